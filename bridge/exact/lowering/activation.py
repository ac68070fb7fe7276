"""The limits of an operator's output: its fused activation where that is exact, an operator of its own where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.exact.arithmetic import code_of
from bridge.exact.graph import Graph, Limits, Lowered, Node, Tensor, constant
from bridge.exact.names import free_name

FUSED = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
"""TFLite's fused activations by their limits (schema.fbs, ActivationFunctionType)."""


_LARGEST_LIMIT = 2.0**30
"""Steps of the output up to which an activation's limit is counted: beyond, a convolution does not prepare, and RELU6 or
RELU_N1_TO_1 of its own is up to 129 codes off (lite/kernels/kernel_util.cc: no_integer_overflow_from_quantization)."""


def fused_activation(node: Node, y: Tensor) -> str | None:
    """The activation that does the node's limits exactly: by name, "NONE" where saturation does it, None if none."""
    low, high = node.kept_within.low, node.kept_within.high
    if (low, high) in FUSED and y.qparams is not None:
        counted = _LARGEST_LIMIT * float(y.q.scale)
        low, high = low if low >= -counted else -np.inf, high if high <= counted else np.inf
    if (low, high) in FUSED:
        return FUSED[(low, high)]
    if (low, high) == (-np.inf, np.inf):
        return "NONE"
    if y.qparams is not None:
        wanted = _codes(low, high, y)
        if wanted == (-128, 127):
            return "NONE"
        for limits, name in FUSED.items():
            if _codes(*limits, y) == wanted:
                return name
    return None


def _codes(low: float, high: float, y: Tensor) -> tuple[int, int]:
    return (
        -128 if np.isneginf(low) else max(-128, code_of(low, y.q)),
        127 if np.isposinf(high) else min(127, code_of(high, y.q)),
    )


def with_limits(lowered: Lowered, node: Node, graph: Graph) -> Lowered:
    """`lowered`, whose last operator writes the node's output, with MAXIMUM and MINIMUM where no activation fits."""
    y = graph.output(node)
    *before, last = lowered.nodes
    activation = fused_activation(node, y)
    if activation is not None:
        fused = replace(last, attrs={**last.attrs, "fused_activation": activation})
        return replace(lowered, nodes=(*before, fused))
    open_y = replace(y, name=free_name(f"{y.name}/unlimited"), origin=None)
    fused = replace(last, outputs=(open_y.name,), attrs={**last.attrs, "fused_activation": "NONE"})
    limits = limit(node.name, open_y, y, node.kept_within)
    return Lowered((*before, fused, *limits.nodes), (*lowered.tensors, open_y, *limits.tensors), lowered.notes)


def limit(name: str, x: Tensor, y: Tensor, within: Limits) -> Lowered:
    """MAXIMUM and MINIMUM with constants; limits that saturation keeps already are left out."""
    low, high = within.low, within.high
    if y.qparams is not None:
        low_code, high_code = _codes(low, high, y)
        bounds: list[tuple[str, float, bool]] = [
            ("MAXIMUM", low_code, low_code > -128),
            ("MINIMUM", high_code, high_code < 127),
        ]
    else:
        bounds = [("MAXIMUM", low, not np.isneginf(low)), ("MINIMUM", high, not np.isposinf(high))]
    return _bounded(name, x, y, [(op, bound) for op, bound, needed in bounds if needed])


def clamp(name: str, x: Tensor, y: Tensor) -> Lowered:
    """MAXIMUM and MINIMUM at a trained clamp, in codes."""
    bounds = [("MAXIMUM", y.q.qmin, y.q.qmin > -128), ("MINIMUM", y.q.qmax, y.q.qmax < 127)]
    return _bounded(name, x, y, [(op, bound) for op, bound, needed in bounds if needed])


def _bounded(name: str, x: Tensor, y: Tensor, bounds: list[tuple[str, float]]) -> Lowered:
    if not bounds:
        shape = shape_of(free_name(f"{name}/shape"), y)
        return Lowered((Node("RESHAPE", name, (x.name, shape.name), (y.name,)),), (shape,))
    nodes: list[Node] = []
    tensors: list[Tensor] = []
    source = x
    for index, (op, bound) in enumerate(bounds):
        target = y if index == len(bounds) - 1 else replace(y, name=free_name(f"{y.name}/{op.lower()}"), origin=None)
        scalar = constant(free_name(f"{name}/{op.lower()}"), _shaped(op, bound, y), y.qparams)
        tensors += [scalar] if target is y else [scalar, target]
        nodes.append(Node(op, scalar.name, (source.name, scalar.name), (target.name,)))
        source = target
    return Lowered(tuple(nodes), tuple(tensors))


def _shaped(op: str, bound: float, y: Tensor) -> np.ndarray:
    """The limit as one number, or once for each number of the last axis where XNNPACK must not take it for an activation.

    It makes one of a single number behind a float convolution, and then does not load the file where 0 lies outside the
    limits (ai-edge-litert 2.1.0: "failed to reshape runtime").
    """
    if y.qparams is not None or (bound <= 0.0 if op == "MAXIMUM" else bound >= 0.0):
        return np.array(bound, y.dtype)
    return np.full(y.shape[-1:] if y.shape[-1:] != (1,) else y.shape, bound, y.dtype)


def shape_of(name: str, y: Tensor) -> Tensor:
    """The shape operand of RESHAPE."""
    return constant(name, np.array(y.shape, np.int32))
