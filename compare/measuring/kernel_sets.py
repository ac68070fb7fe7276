"""Operators that two kernel sets of LiteRT compute in two ways: an option, or operands, that only one of them looks at."""

from __future__ import annotations

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from bridge.verifying.litert import KernelSet
from compare.measuring.alone import cut_out
from compare.measuring.drift import Traced
from compare.running.trying import run, tried

ROUNDING = 2
"""Codes by which the kernel sets may be apart on one operator: each rounds by one (catalogue entry M30)."""
MOST_OPERATORS = 300
"""That are run one by one; of a longer file the first."""
MOST_RUNS = 16


def disagreement(content: bytes, traced: Traced) -> str | None:
    """The first operator that XNNPACK computes otherwise than the built-in kernels, from the same codes; None without one.

    `traced`: what the built-in kernels computed. The outputs of the whole file are compared first.
    """
    graph = traced.graph
    if not _apart(content, traced, graph.inputs, graph.outputs):
        return None
    for node in graph.nodes[:MOST_OPERATORS]:
        moving = tuple(name for name in dict.fromkeys(node.inputs) if name and not graph.tensors[name].is_constant)
        if not moving or not set(moving) <= set(traced.values) or node.op == "QUANTIZE":
            continue  # what XNNPACK does to QUANTIZE is M57
        apart = _apart(cut_out(content, (node,), moving, node.outputs), traced, moving, node.outputs)
        if apart:
            return _said(node, apart)
    return None


def _said(node: Node, apart: tuple[int, KernelSet]) -> str:
    codes, kernels = apart
    return (
        f"it is two networks: {node.op} '{node.outputs[0]}' gives codes up to {codes} apart on LiteRT's built-in kernels and "
        f"on its {_OTHERS[kernels]}, from the same input"
    )


_OTHERS: dict[KernelSet, str] = {"xnnpack": "XNNPACK kernels", "reference": "reference kernels"}


def _apart(
    content: bytes, traced: Traced, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> tuple[int, KernelSet] | None:
    """The largest difference in codes that no rounding explains, and with which kernels; None where there is none.

    The slow reference kernels are left out where a run would take long, and all that do not run the file.
    """
    graph = traced.graph
    if any(graph.tensors[name].dtype.kind not in "iu" for name in outputs):
        return None
    feeds = [_codes(graph, name, traced.values[name]) for name in inputs]
    one = _run(content, feeds, "builtin")
    for kernels in _OTHERS:
        if one is None or (kernels == "reference" and tried(content).only_prepared):
            continue
        other = _run(content, feeds, kernels)
        if other is None:
            continue
        apart = max(_difference(*each) for each in zip(one, other, strict=True))
        if apart > ROUNDING:
            return apart, kernels
    return None


def _run(content: bytes, feeds: list[np.ndarray], kernels: KernelSet) -> list[np.ndarray] | None:
    try:
        return run(content, feeds, None, kernels)
    except BridgeError:
        return None  # what does not run has been said


def _difference(one: np.ndarray, other: np.ndarray) -> int:
    if one.shape != other.shape:
        return 255
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max(initial=0))


def _codes(graph: Graph, name: str, real: np.ndarray) -> np.ndarray:
    """(runs, *shape) as the file stores them."""
    from compare.measuring.drift import stored

    tensor = graph.tensors[name]
    return stored(tensor, real.reshape(-1, *tensor.shape)[:MOST_RUNS])
