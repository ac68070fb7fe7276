"""Sums that leave what a kernel counts with: how near each comes to the end, from the codes its input can reach.

A kernel computes bias + sum of weight * (code - zero point) in int32, modulo 2^32: only the final sum has to fit. Then
the reference kernels shift it left by the exponent of their multiplier, also in int32 (MultiplyByQuantizedMultiplier in
lite/kernels/internal/common.cc; measured: at a multiplier of 64 they return 0 for a sum of 2^25, where XNNPACK
saturates).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Note, Tensor

_END = 2.0**31
_NEAR = 2.0**30
"""From here on a note says how near."""

CHANNEL_AXIS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "DEPTHWISE_CONV_2D": 3}
"""Where the output channels lie in the weight (TFLite 8-bit quantization specification)."""

_INPUT = {"TRANSPOSE_CONV": 2}
"""The place of the activation where it is not the first operand."""


def refuse_wrapping(graph: Graph) -> Graph:
    """A lowered graph with a note for each sum that comes near to the end of int32.

    Raises `BridgeError`, naming operator and channel, for one that some input makes wrap around.
    """
    notes = []
    for node in graph.nodes:
        if node.op == "SOFTMAX":
            notes += _exponentials(node, graph)
        if node.op in ("ADD", "SUB", "MUL"):
            notes += _sixteen_bits(node, graph)
        found = None
        if node.op in CHANNEL_AXIS:
            found = _weighted(node, graph)
        elif node.op == "BATCH_MATMUL":
            found = _product(node, graph)
        if found is None:
            continue
        sums, multiplier = found
        channel = int(np.argmax(sums * _shift(multiplier)))
        largest, shift = float(sums[channel]), float(_shift(multiplier)[channel])
        shifted = f", and {largest * shift:.4g} where the kernel shifts it" if shift > 1 else ""
        said = f"bias and weights times input codes reach {largest:.4g}{shifted}: "
        said += f"{100 * largest * shift / _END:.4g} % of 2^31"
        if largest * shift >= _END:
            raise BridgeError(
                where=f"{node}, output channel {channel}",
                problem=f"can wrap around in int32: {said}",
                remedy="Its weight channel is almost all zero, or its sum is too long: prune the channel, give the weight "
                "observer a larger eps, or split the layer.",
            )
        if largest * shift >= _NEAR:
            notes.append(Note("accumulator", f"{node}, output channel {channel}", said))
    return replace(graph, notes=(*graph.notes, *notes))


_16_BITS = 2**15


def _sixteen_bits(node: Node, graph: Graph) -> list[Note]:
    """A sum or product that LiteRT's built-in kernels, without XNNPACK, wrap around in 16 bits.

    They saturate it to 16 bits and then add the output's zero point (optimized_integer_ops: AddElementwiseInt8,
    MulElementwise; found where the doctor held the kernel sets against each other).
    """
    operands, y = graph.operands(node), graph.output(node)
    if y.qparams is None or any(each.qparams is None or each.dtype != np.int8 for each in operands):
        return []
    ends = [
        (int(each.values.min()) - int(each.q.zero_point), int(each.values.max()) - int(each.q.zero_point))
        if each.is_constant
        else reach(each.name, graph)
        for each in operands
    ]
    scales = [float(each.q.scale) for each in operands]
    if node.op == "MUL":
        products = [one * other * scales[0] * scales[1] for one in ends[0] for other in ends[1]]
        least, most = min(products) / float(y.q.scale), max(products) / float(y.q.scale)
    else:
        signs = (1, -1) if node.op == "SUB" else (1, 1)
        terms = [
            sorted(sign * code * scale for code in end) for sign, end, scale in zip(signs, ends, scales, strict=True)
        ]
        least, most = (sum(term[side] for term in terms) / float(y.q.scale) for side in (0, 1))
    zero = int(y.q.zero_point)
    if max(least, -_16_BITS) + zero >= -_16_BITS and min(most, _16_BITS - 1) + zero < _16_BITS:
        return []
    what = f"reaches {max(most, -least):,.0f} steps of its output: LiteRT's built-in kernels wrap around beyond 32,767, XNNPACK "
    what += "and the reference kernels saturate"
    return [Note("accumulator", f"{node}, output '{y.name}'", what)]


LONGEST_SOFTMAX = 511
"""Equal inputs that the reference SOFTMAX adds up: from 512 on it would shift by more than 31 bits and ends the process
(RoundingDivideByPOT in gemmlowp's fixedpoint.h, called by lite/kernels/internal/reference/softmax.h with
num_bits_over_unit + 23). XNNPACK's default kernels do not."""


def _exponentials(node: Node, graph: Graph) -> list[Note]:
    (x,) = graph.operands(node)
    if x.qparams is None or x.shape[-1] <= LONGEST_SOFTMAX:
        return []
    what = f"over {x.shape[-1]} elements: the reference kernel ends the process where they are nearly equal "
    what += f"(exponentials that add up to {LONGEST_SOFTMAX + 1}, the largest being 1); XNNPACK computes them"
    return [Note("accumulator", f"{node}, input '{x.name}'", what)]


def reach(name: str, graph: Graph) -> tuple[int, int]:
    """Smallest and largest code minus zero point; a trained clamp counts, except where the caller hands in the codes."""
    q = graph.tensors[name].q
    low, high = (-128, 127) if name in graph.inputs else (q.qmin, q.qmax)
    zero = int(q.zero_point)
    return low - zero, high - zero


def _shift(multiplier: np.ndarray) -> np.ndarray:
    """By how much the sum grows before it is multiplied: 2^exponent where that is above 1 (QuantizeMultiplier)."""
    grown: np.ndarray = np.maximum(1.0, 2.0 ** np.frexp(multiplier)[1].astype(np.float64))
    return grown


Sums = tuple[np.ndarray, np.ndarray]
"""By output channel: the largest magnitude of the sum, and output steps for one step of it."""


def _weighted(node: Node, graph: Graph) -> Sums | None:
    x = graph.tensors[node.inputs[_INPUT.get(node.op, 0)]]
    weight, y = graph.tensors[node.inputs[1]], graph.output(node)
    if x.qparams is None or weight.qparams is None or y.qparams is None or not weight.is_constant:
        return None
    axis = CHANNEL_AXIS[node.op]
    others = tuple(place for place in range(len(weight.shape)) if place != axis)
    total = weight.values.sum(axis=others, dtype=np.int64).astype(np.float64)
    absolute = np.abs(weight.values.astype(np.int16)).sum(axis=others, dtype=np.int64).astype(np.float64)
    positive, negative = (total + absolute) / 2, (total - absolute) / 2
    low, high = reach(x.name, graph)
    low, high = min(low, 0), max(high, 0)  # padding adds real zeros
    bias = _bias(node, graph, len(total))
    most = np.maximum(bias + positive * high + negative * low, 0)
    least = np.minimum(bias + positive * low + negative * high, 0)
    return np.maximum(most, -least), np.broadcast_to(
        float(x.q.scale) * weight.q.scale.astype(np.float64) / float(y.q.scale), bias.shape
    )


def _bias(node: Node, graph: Graph, channels: int) -> np.ndarray:
    place = _INPUT.get(node.op, 1) + 1
    bias: Tensor | None = graph.operand(node, place)
    return np.zeros(channels) if bias is None else bias.values.astype(np.float64)


def _product(node: Node, graph: Graph) -> Sums | None:
    a, b = (graph.tensors[name] for name in node.inputs)
    y = graph.output(node)
    if a.qparams is None or b.qparams is None or y.qparams is None:
        return None
    largest = a.shape[-1] * float(np.prod([max(map(abs, reach(name, graph))) for name in node.inputs]))
    return np.array([largest]), np.array([float(a.q.scale) * float(b.q.scale) / float(y.q.scale)])
