"""Choosing by name: globs of a command line, each of which must match something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from bridge.errors import BridgeError

Thing = TypeVar("Thing")


def chosen(named: Mapping[str, Thing], patterns: Sequence[str], option: str, nothing: str) -> tuple[Thing, ...]:
    """What has a name that matches any of the patterns, in order; everything without patterns.

    `option`: whose values the patterns are. Raises `BridgeError` that says `nothing` and lists the names for a pattern that
    matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise BridgeError(
                where=f"{option} '{pattern}'", problem=nothing, remedy=f"There are: {', '.join(named) or 'none'}."
            )
    return tuple(
        each for name, each in named.items() if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    )
