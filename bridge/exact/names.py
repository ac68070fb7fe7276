"""Names of what the bridge makes: none that the file uses, and none twice.

Tensors are referred to by name, so that a made name which meets another one would exchange their contents. Every name
that a pass or a lowering gives to a tensor or a node of its own is therefore drawn here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

_taken: ContextVar[set[str] | None] = ContextVar("taken", default=None)


@contextmanager
def reserved(names: Iterable[str]) -> Iterator[None]:
    """Inside, `free_name` gives none of these names, and none twice; an inner block adds to what the outer one has."""
    outer = _taken.get()
    if outer is not None:
        outer.update(names)
        yield
        return
    token = _taken.set(set(names))
    try:
        yield
    finally:
        _taken.reset(token)


def free_name(wanted: str) -> str:
    """`wanted`, or with a number behind it where that name is taken; nothing else gets the result.

    Outside `reserved`, where a test runs one function alone, it is `wanted`.
    """
    taken = _taken.get()
    if taken is None:
        return wanted
    name = wanted
    numbers = count(2)
    while name in taken:
        name = f"{wanted}_{next(numbers)}"
    taken.add(name)
    return name
