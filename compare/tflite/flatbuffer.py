"""Every offset of a .tflite held against the file, before a reader follows any (the format: flatbuffers.dev, Internals).

The generated Python readers check nothing: a damaged offset is read from wherever it points to.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_SCALAR = "scalar"


@dataclass(frozen=True)
class Vector:
    """A vector of scalars of `size` bytes, or of tables."""

    size: int = 4
    of: dict[int, object] | None = None


_QUANTIZATION: dict[int, object] = {0: Vector(), 1: Vector(), 2: Vector(), 3: Vector(8), 6: _SCALAR}
_TENSOR: dict[int, object] = {0: Vector(), 2: _SCALAR, 3: Vector(1), 4: _QUANTIZATION, 7: Vector()}
_OPERATOR: dict[int, object] = {0: _SCALAR, 1: Vector(), 2: Vector(), 4: {}, 5: Vector(1)}
_SUBGRAPH: dict[int, object] = {
    0: Vector(of=_TENSOR), 1: Vector(), 2: Vector(), 3: Vector(of=_OPERATOR), 4: Vector(1)
}  # fmt: skip
_MODEL: dict[int, object] = {
    0: _SCALAR, 1: Vector(of={1: Vector(1), 2: _SCALAR, 3: _SCALAR}), 2: Vector(of=_SUBGRAPH), 3: Vector(1),
    4: Vector(of={0: Vector(1)}),
}  # fmt: skip
"""Fields by number, as in schema.fbs of TensorFlow 2.18: a scalar of 4 bytes, a vector, or a table (a dict)."""

_TIMES = 16
"""How often the bytes of the file may be referred to; vectors that are shared, or lie over each other, multiply."""


@dataclass
class _Verifier:
    content: bytes
    visited: int = field(default=0)

    def model(self) -> None:
        self.table(self.offset(0), _MODEL)

    def number(self, form: str, at: int) -> int:
        if at < 0:
            raise IndexError(f"offset {at}")
        value: int = struct.unpack_from(form, self.content, at)[0]
        return value

    def offset(self, at: int) -> int:
        return at + self.number("<I", at)

    def spend(self, count: int) -> None:
        self.visited += count
        if self.visited > _TIMES * len(self.content):
            raise IndexError(f"parts that refer to {self.visited:,} bytes of {len(self.content):,}")

    def table(self, at: int, fields: dict[int, object]) -> None:
        start = at - self.number("<i", at)
        length, size = self.number("<H", start), self.number("<H", start + 2)
        if length < 4 or length % 2 or start + length > len(self.content) or at + size > len(self.content):
            raise IndexError(f"table at {at}")
        self.spend(length + size)
        for place in range((length - 4) // 2):
            inside = self.number("<H", start + 4 + 2 * place)
            kind = fields.get(place)
            if not inside:
                continue
            if not 4 <= inside < size or (kind is not None and inside + 4 > size):
                raise IndexError(f"field {place} of the table at {at}")
            if isinstance(kind, Vector):
                self.vector(self.offset(at + inside), kind)
            elif isinstance(kind, dict):
                self.table(self.offset(at + inside), kind)

    def vector(self, at: int, kind: Vector) -> None:
        count = self.number("<I", at)
        if at + 4 + count * kind.size > len(self.content):
            raise IndexError(f"{count:,} entries at {at}")
        self.spend(count * kind.size)
        for place in range(count if kind.of is not None else 0):
            self.table(self.offset(at + 4 + 4 * place), kind.of or {})


def verify(content: bytes) -> None:
    """Raise `IndexError` or `struct.error` for an offset, a length or a table that leaves the file."""
    _Verifier(content).model()
