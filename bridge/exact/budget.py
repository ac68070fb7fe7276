"""What one conversion may take: a file of 650 bytes can ask for terabytes, and is refused before anything is computed.

Two numbers, both raised by the caller: elements of one tensor, and of all constants that the conversion computes
together; operators of the model, local functions written out. What the file itself holds costs nothing here, and a
large file may compute more: its author paid for it in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.errors import BridgeError

MAX_ELEMENTS = 2**26
"""67 million: eight times the largest activation of torchvision's quantizable networks at batch 8."""
MAX_NODES = 100_000
_TIMES_STORED = 16
"""How often the elements that the file holds may be computed anew: quantized, transposed, reshaped, and so on."""


@dataclass
class Budget:
    """What is left for one conversion; every part of it asks before it computes."""

    elements: int = MAX_ELEMENTS
    nodes: int = MAX_NODES
    stored: int = 0
    """Elements of the file's own constants."""
    _spent: int = field(default=0, repr=False)

    def refuse_nodes(self, count: int, where: str, what: str = "operators") -> None:
        """Raise `BridgeError` when the model has more operators (or as much of anything else) than allowed."""
        if count > self.nodes:
            raise BridgeError(
                where=where,
                problem=f"has {_number(count)} {what}; {self.nodes:,} are allowed",
                remedy="If the model is really that large, raise the limit with --max-nodes.",
            )

    def refuse_tensor(self, elements: int, where: str) -> None:
        """Raise `BridgeError` when one tensor is larger than allowed; one that the file holds never is."""
        if elements > max(self.elements, self.stored):
            raise BridgeError(
                where=where,
                problem=f"has {_number(elements)} elements; {max(self.elements, self.stored):,} are allowed",
                remedy="If the model is really that large, raise the limit with --max-elements.",
            )

    def spend(self, elements: int, where: str) -> None:
        """Raise `BridgeError` when the constants computed so far, with these, are more than allowed together."""
        self._spent += elements
        allowed = self.elements + _TIMES_STORED * self.stored
        if self._spent > allowed:
            raise BridgeError(
                where=where,
                problem=f"would make {_number(self._spent)} elements of constants; {allowed:,} are allowed",
                remedy="If the model really computes constants that large, raise the limit with --max-elements.",
            )


_COUNTED = 10**18


def size_of(shape: Iterable[int]) -> int:
    """Elements of a shape, an open axis as 1; not counted beyond 10^18."""
    elements = 1
    for axis in shape:
        elements = elements if axis < 0 else min(elements * axis, _COUNTED)
    return elements


def _number(count: int) -> str:
    return f"{count:,}" if count < _COUNTED else "10^18 or more"


def broadcast(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of several shapes together, the larger size of each axis; whether they fit is another question."""
    shapes = list(shapes)
    rank = max((len(shape) for shape in shapes), default=0)
    filled = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*filled, strict=True))
