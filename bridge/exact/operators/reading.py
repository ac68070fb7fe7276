"""How far the bridge knows an operator as a file may write it: what becomes of its attributes, how many operands it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Used:
    """The bridge follows the attribute, or a lowering refuses what it cannot follow."""


@dataclass(frozen=True)
class Only:
    """The attribute, or each of its numbers, must be one of these values; with another one the operator is refused."""

    values: tuple[int | str, ...]
    otherwise: str
    """What another value asks for: the rest of a sentence that begins with the operator and the value."""
    remedy: str


@dataclass(frozen=True)
class NoEffect:
    """No value changes what is computed here."""

    because: str


_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Within:
    """The attribute is used, and each of its numbers must lie between these two.

    ONNX's shape inference divides by some of them: a stride of 0 ends the process there.
    """

    lowest: int
    highest: int = _INT32


Rule = Used | Only | NoEffect | Within


@dataclass(frozen=True)
class Reading:
    """How far the bridge knows an operator: its attributes, and how many inputs and outputs it may have."""

    inputs: int
    """How many of them the bridge knows; `ANY` where ONNX sets no limit."""
    outputs: int
    attributes: Mapping[str, Rule] = field(default_factory=dict)


ANY = 2**31 - 1
USED = Used()
AXIS = Within(-32, 31)
"""Of as many axes as a file may have (guard.py): ONNX's shape inference lets a Softmax of axis 2^63 - 1 pass."""
FLAG = Within(0, 1)
EXPORT_AGAIN = "Export without it; the integer kernels do not do that."
WINDOW: Mapping[str, Rule] = MappingProxyType(
    {"auto_pad": USED, "kernel_shape": Within(1), "pads": Within(0), "strides": Within(1)}
)
REDUCTION: Mapping[str, Rule] = MappingProxyType({"axes": AXIS, "keepdims": FLAG, "noop_with_empty_axes": FLAG})
FLOAT_8_ONLY = NoEffect("it rules casts to 8-bit floating point, which no kernel here has")


def reading(inputs: int, outputs: int = 1, *shared: Mapping[str, Rule], **attributes: Rule) -> Reading:
    """`Reading` of so many operands, with the attributes of `shared` groups and those named."""
    together: dict[str, Rule] = {}
    for group in (*shared, attributes):
        together |= group
    return Reading(inputs, outputs, MappingProxyType(together))


ONE_INPUT, TWO_INPUTS, MANY_INPUTS = reading(1), reading(2), reading(ANY)
