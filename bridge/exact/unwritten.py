"""What is said of operators that the bridge does not write: all of them at once, so that nobody mends one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bridge.errors import BridgeError
from bridge.exact import operators
from bridge.exact.graph import Graph, Node

MOST_NAMED = 12


def refuse_unread(graph: Graph) -> None:
    """Raise `BridgeError` for the operators of a file that nothing is written for, before any pass stumbles over them.

    Branches of constants are left out: what computes them may be known to passes/fold.py only.
    """
    constant = {name for name, tensor in graph.tensors.items() if tensor.is_constant}
    unread = []
    for node in graph.nodes:
        if all(name in constant or not name for name in node.inputs) or node.op == "Shape":
            constant.update(node.outputs)
            continue
        operator = operators.of(node)
        if operator.reads is None or not operator.is_written:
            unread.append(node)
    if unread:
        raise unwritten(unread)


def refuse_left(graph: Graph) -> Graph:
    """The same graph; raises `BridgeError` for what should be gone by now, and stands for no operator of TFLite.

    These are a Cast that changes the type, and operators of constants that passes/fold.py does not compute.
    """
    left = [node for node in graph.nodes if not (operators.of(node).becomes or operators.of(node).spelling)]
    if left:
        raise unwritten(left)
    return graph


def unwritten(nodes: Iterable[Node]) -> BridgeError:
    """The error for these operators, the first of them by name; there is at least one."""
    first, *others = nodes
    return BridgeError(
        where=f"node '{first.name}' ({first.op})",
        problem="the exact bridge cannot write this operator" + _in_all([node.op for node in (first, *others)]),
        remedy="What it writes: docs/operators.md. Train with another operator in its place, or end the model before it.",
    )


_OF_ONNX_RUNTIME = {"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
"""Domains of ONNX Runtime's own operators (its docs/ContribOperators.md; include/onnxruntime/core/graph/constants.h)."""


def of_other_domains(nodes: Sequence[tuple[str, str, str]], file: str) -> BridgeError:
    """The error for nodes of domains that are not read, each as domain, operator and name; there is at least one."""
    domain, op, name = nodes[0]
    remedy = "Export in QDQ form (QuantizeLinear and DequantizeLinear of the standard domain)."
    if {each for each, _, _ in nodes} <= _OF_ONNX_RUNTIME:
        remedy = (
            "ONNX Runtime writes such operators when it saves a model that it has optimized: convert the file from before "
            "that, or optimize with ORT_ENABLE_BASIC at most. Quantize in the QDQ format: quant_format=QuantFormat.QDQ."
        )
    return BridgeError(
        where=f"{file}, node '{name}' ({domain}.{op})",
        problem="belongs to an operator domain that the exact bridge does not read"
        + _in_all([f"{domain}.{op}" for domain, op, _ in nodes]),
        remedy=remedy,
    )


def _in_all(operators: Sequence[str]) -> str:
    """'' for one; else how many there are of each kind, the commonest first."""
    if len(operators) == 1:
        return ""
    counts = Counter(operators)
    listed = [f"{op} {count}" for op, count in counts.most_common(MOST_NAMED)]
    more = "" if len(counts) <= MOST_NAMED else f" and {len(counts) - MOST_NAMED} kinds more"
    return f"; in all {len(operators)} of this model: {', '.join(listed)}{more}"
