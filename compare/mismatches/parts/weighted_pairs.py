"""Operators with weights of an ONNX model and of the .tflite made from it, in pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import load_from_string

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from bridge.exact.passes.fold import fold
from bridge.exact.reader import from_model
from compare.subjects.case import Case

_KINDS = {"Conv": ("CONV_2D", "DEPTHWISE_CONV_2D"), "Gemm": ("FULLY_CONNECTED",)}


def weighted_pairs(case: Case) -> Iterator[tuple[Graph, Node, Node]]:
    """(ONNX graph, its operator, the .tflite's operator), matched by their order among their kind.

    The ONNX graph is folded: a constant that arithmetic leads to is a constant. Nothing for a case without both files,
    or with a model that the exact bridge's reader refuses.
    """
    if case.onnx is None or case.file is None:
        return
    try:
        graph = fold(from_model(load_from_string(case.onnx)))  # the reader may change the model
    except BridgeError:
        return
    for kind, ops in _KINDS.items():
        ours = (node for node in graph.nodes if node.op == kind)
        theirs = (node for node in case.file.graph.nodes if node.op in ops)
        yield from ((graph, one, other) for one, other in zip(ours, theirs, strict=False))


LIKE = 0.99
"""Correlation of two weights that are the same but for being quantized again."""


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two weights of one shape hold the same numbers at the same places, up to quantization and a factor."""
    if not one.any() or not other.any():
        return False
    one, other = one.astype(np.float64), other.astype(np.float64)  # a damaged scale squared is beyond float32
    return bool((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()) > LIKE)
