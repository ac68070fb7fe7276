"""What the bridge knows of each operator: one record an operator, one file a family. Passes, pages and tests ask here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from bridge.exact.graph import Node
from bridge.exact.operators import conv, elementwise, folded, linear, pooling, rearrange
from bridge.exact.operators.record import Operator, Output


def _by_name(*families: tuple[Operator, ...]) -> Mapping[str, Operator]:
    found: dict[str, Operator] = {}
    for operator in (operator for family in families for operator in family):
        if operator.name in found:
            raise AssertionError(f"two records of {operator.name}")
        found[operator.name] = operator
    return MappingProxyType(found)


OPERATORS = _by_name(
    conv.OPERATORS,
    linear.OPERATORS,
    pooling.OPERATORS,
    elementwise.OPERATORS,
    rearrange.OPERATORS,
    folded.OPERATORS,
)


def of(node: Node) -> Operator:
    """The record of a node's operator; one without traits where there is none, until unwritten.py refuses the node."""
    return OPERATORS.get(node.op) or Operator(name=node.op)


def named(trait: Callable[[Operator], object]) -> frozenset[str]:
    """The names of the operators of which something is true."""
    return frozenset(name for name, operator in OPERATORS.items() if trait(operator))


def _samples_nearest(node: Node) -> bool:
    return bool(node.attrs.get("mode", "nearest") == "nearest")


def moves(node: Node) -> bool:
    """Whether its outputs are elements of its inputs, whatever those hold."""
    operator = of(node)
    return operator.output in (Output.MOVED, Output.JOINED) or (
        operator.output is Output.SAMPLED and _samples_nearest(node)
    )


def preserves(node: Node) -> bool:
    """Whether every output value is one of its inputs' values, so that rounding before it is rounding after it."""
    return of(node).preserves or moves(node)


def averages(node: Node) -> bool:
    """Whether its outputs lie between its inputs' values, and are rounded to the scale it writes."""
    operator = of(node)
    return operator.averages or (operator.output is Output.SAMPLED and not _samples_nearest(node))
