"""What passes tell each other by attributes is declared: checked after each of them."""

from __future__ import annotations

from bridge.exact.graph import Graph, Node
from bridge.exact.operators import of


def check_attributes(graph: Graph, after: str) -> None:
    """Every attribute is one that its operator has in ONNX, or one that its record says passes make, of that type.

    A failure is our defect and names the pass `after`. What has no record is not looked at: unwritten.py refuses it.
    """
    for node in graph.nodes:
        _check(node, after)


def _check(node: Node, after: str) -> None:
    operator = of(node)
    if operator.reads is None and not operator.becomes:
        return
    known = {} if operator.reads is None else operator.reads.attributes
    for name, value in node.attrs.items():
        if name in operator.made:
            if not isinstance(value, operator.made[name]):
                raise AssertionError(
                    f"{after}: {node} has {name} {value!r}; its record says {operator.made[name].__name__}"
                )
        elif name not in known:
            raise AssertionError(
                f"{after}: {node} has an attribute '{name}' that its record does not know (bridge/exact/operators, made)"
            )
