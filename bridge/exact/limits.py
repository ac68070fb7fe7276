"""What the file format can say and the kernels (kernels.py) cannot compute: refused here, before a file is written."""

from __future__ import annotations

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from bridge.exact.kernels import Limit, product
from bridge.exact.schema import OPERATORS

LIMITS = {op: row.kernel.factor for op, row in OPERATORS.items() if isinstance(row.kernel.factor, Limit)}
INPUT_SCALES = {op: row.kernel.input_scales for op, row in OPERATORS.items() if row.kernel.input_scales is not None}
OUTPUT_SCALES = {op: row.kernel.output_scale for op, row in OPERATORS.items() if row.kernel.output_scale is not None}


def refuse_beyond_limits(graph: Graph) -> None:
    """Raise `BridgeError` for the first operator of a lowered graph that a kernel would compute wrongly or not at all."""
    for node in graph.nodes:
        _refuse_factor(node, graph)
        if node.op == "BATCH_MATMUL":
            _refuse_zero_point(node, graph)
        if node.op in INPUT_SCALES:
            _refuse_input_scale(node, graph)
        if node.op in OUTPUT_SCALES:
            _refuse_output_scale(node, graph)
        if OPERATORS[node.op].kernel.windowed:
            _refuse_beyond_int16(node, graph)
        if node.op == "QUANTIZE":
            _refuse_fine_steps(node, graph)


def factor(node: Node, graph: Graph) -> float | None:
    """Steps of the output for one step of the input; None where no limit applies, as in float."""
    limit, y = LIMITS.get(node.op), graph.output(node)
    scales = [
        float(np.max(tensor.qparams.scale))
        for tensor in graph.operands(node)
        if tensor.qparams is not None and tensor.dtype == np.int8
    ]
    if limit is None or y.qparams is None or len(scales) < (2 if limit.factor is product else 1):
        return None  # float, or a file of others in which an operand has no scale
    slope = max(1.0, abs(node.attrs["alpha"])) if node.op == "LEAKY_RELU" else 1.0  # multiplied into the input's scale
    return limit.factor(scales) * slope / float(y.q.scale)


def _refuse_factor(node: Node, graph: Graph) -> None:
    found = factor(node, graph)
    if found is not None and found >= LIMITS[node.op].below:
        raise BridgeError(
            where=f"{node}, output '{node.outputs[0]}'",
            problem=f"has scale {graph.output(node).q.scale:.4g}, and one step of its input is {found:.4g} of its steps; "
            f"from {LIMITS[node.op].below:.0f} on {LIMITS[node.op].happens}",
            remedy="The observer of that output saw next to nothing: fine-tune with data that reaches it.",
        )


def _refuse_input_scale(node: Node, graph: Graph) -> None:
    (x,) = graph.operands(node)
    finest, coarsest = INPUT_SCALES[node.op]
    if x.qparams is not None and not finest < float(x.q.scale) < coarsest:
        raise BridgeError(
            where=f"{node}, input '{x.name}'",
            problem=f"has scale {x.q.scale:.4g}; its kernel computes between {finest:.4g} and {coarsest:.4g} only",
            remedy="Such a scale was not trained on real data: fine-tune again with data that reaches this operator.",
        )


def _refuse_output_scale(node: Node, graph: Graph) -> None:
    y = graph.output(node)
    if y.qparams is not None and float(y.q.scale) > OUTPUT_SCALES[node.op]:
        raise BridgeError(
            where=f"{node}, output '{y.name}'",
            problem=f"has scale {y.q.scale:.4g}; its kernel computes up to {OUTPUT_SCALES[node.op]:.4g} only",
            remedy="Such a scale was not trained on real data: fine-tune again with data that reaches this operator.",
        )


def _refuse_zero_point(node: Node, graph: Graph) -> None:
    """XNNPACK takes the second operand for a weight: exact at zero point 0, up to 255 codes off at -128."""
    second = graph.operands(node)[1]
    if second.qparams is not None and second.q.zero_point.any():
        raise BridgeError(
            where=f"{node}, operand '{second.name}'",
            problem=f"has {second.q}; XNNPACK multiplies two activations as if the second had zero point 0",
            remedy="Observe that operand with a symmetric observer (zero point 0 as int8, 128 as uint8).",
        )


_FINEST = 2.0**-40
"""QUANTIZE of real numbers counts steps in int32, and what is beyond 2^31 of them comes out at the wrong end of the range
(lite/kernels/internal/reference/quantize.h). A scale that was trained is 2^-23 at least, torch's own least; this one leaves
2^-9, which any activation exceeds."""


def _refuse_fine_steps(node: Node, graph: Graph) -> None:
    x, y = graph.operands(node)[0], graph.output(node)
    if x.qparams is None and y.qparams is not None and float(np.min(y.qparams.scale)) < _FINEST:
        raise BridgeError(
            where=f"{node}, output '{y.name}'",
            problem=f"has scale {float(np.min(y.qparams.scale)):.4g}; numbers of more than 2^31 of these steps, here "
            f"{float(np.min(y.qparams.scale)) * 2**31:.2g}, come out at the wrong end of the range",
            remedy="Such a scale was not trained on real data: fine-tune again with data that reaches this operator.",
        )


_INT16 = 2**15 - 1


def _refuse_beyond_int16(node: Node, graph: Graph) -> None:
    """Kernels keep padding, and strides and dilations of convolutions, in 16 bits: lite/kernels/internal/types.h,
    PaddingValues, ConvParams, DepthwiseParams. Beyond, the padding wraps around and windows lie elsewhere."""
    for axis, side in enumerate("hw", start=1):
        numbers = {"padding": _padding(node, graph, axis, side)}
        if "POOL" not in node.op:
            numbers["stride"] = node.attrs[f"stride_{side}"]
            numbers["dilation"] = node.attrs.get(f"dilation_{side}_factor", 1)
        for name, number in numbers.items():
            if number > _INT16:
                raise BridgeError(
                    where=str(node),
                    problem=f"has {name} {number:,}; its kernel counts it in 16 bits, up to {_INT16:,}",
                    remedy="Give the operator a window that is not that much larger than its input.",
                )


def _padding(node: Node, graph: Graph, axis: int, side: str) -> int:
    """The larger half of what SAME pads on one axis (lite/kernels/padding.h, ComputePaddingWithOffset)."""
    if node.attrs["padding"] != "SAME":
        return 0
    out, covered = graph.output(node), graph.operands(node)[0]
    if node.op == "TRANSPOSE_CONV":  # the convolution that it reverses
        out, covered = graph.tensors[node.inputs[2]], graph.output(node)
    weight = None if "POOL" in node.op else graph.tensors[node.inputs[1]].shape
    size = node.attrs[f"filter_{'height' if side == 'h' else 'width'}"] if weight is None else weight[axis]
    reach = (size - 1) * node.attrs.get(f"dilation_{side}_factor", 1) + 1
    total = (out.shape[axis] - 1) * node.attrs[f"stride_{side}"] + reach - covered.shape[axis]
    return int(-(-max(total, 0) // 2))
