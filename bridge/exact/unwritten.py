"""What is said of operators that the bridge does not write: all of them at once, so that nobody mends one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bridge.errors import BridgeError
from bridge.exact.graph import Node

MOST_NAMED = 12


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
