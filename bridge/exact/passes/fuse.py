"""What follows a convolution, a dense layer or a sum and can be done inside it, is.

    Conv/Gemm -> ChannelAffine, or Mul/Div/Add/Sub by a constant   the weights' scales and the bias take it over:
        factor * (s_w * q_w * x + b) + offset = (factor * s_w) * q_w * x + (factor * b + offset), codes unchanged
    Conv/Gemm/Add/... -> Limit                                     the operator's own activation

Only where nothing was quantized in between: a trained rounding is never removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from bridge.exact import operators
from bridge.exact.arithmetic import float32_scale
from bridge.exact.graph import Graph, Limits, Node, Note, QParams, Tensor, add_made, constant
from bridge.exact.names import free_name

DEAD_SCALE = 1e-20
"""Of a channel whose factor is 0: so fine that its bias decides (lowering/weights.py makes room for it)."""

_UNIT = 1e-6
"""A factor this near to 1 is a division undone by a multiplication in float32 (catalogue entry M10)."""


def fuse(graph: Graph) -> Graph:
    """Fold affine steps into weights and limits into activations, where no trained rounding lies in between."""
    reads = {name: len(readers) for name, readers in graph.consumers().items()}
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    written_by: dict[str, int] = {}
    notes = list(graph.notes)
    for node in graph.nodes:
        fused = None
        rule = _RULES.get(node.op)
        data = _data_operand(node, tensors)
        if rule and data in written_by and reads[data] == 1 and data not in graph.outputs:
            before = nodes[written_by[data]]
            same_size = tensors[data].shape == tensors[node.outputs[0]].shape  # a constant can broadcast it up
            if tensors[data].qparams is None and before.outputs == (data,) and same_size:
                fused = rule(before, node, tensors)
        if fused is None:
            written_by.update(dict.fromkeys(node.outputs, len(nodes)))
            nodes.append(node)
        else:
            at = written_by.pop(data)
            nodes[at] = fused
            written_by[fused.outputs[0]] = at
            notes.append(Note("fused", str(node), f"into {before}"))
            notes.extend(_negated_lowest_codes(before, fused, tensors))
    return replace(graph, nodes=tuple(nodes), tensors=tensors, notes=tuple(notes))


def _data_operand(node: Node, tensors: dict[str, Tensor]) -> str:
    """The one operand that is not constant; the empty name when there are two."""
    moving = [name for name in node.inputs if name and not tensors[name].is_constant]
    return moving[0] if len(moving) == 1 else ""


def _affine(before: Node, node: Node, tensors: dict[str, Tensor]) -> Node | None:
    """`before` with the step taken into weight and bias; None where it is not a step per output channel."""
    grouped_transpose = before.op == "ConvTranspose" and before.attrs.get("group", 1) != 1
    weights = operators.of(before).weights
    if weights is None or before.limits is not None or grouped_transpose:
        return None  # grouped transposed convolutions are left alone
    weight, bias = tensors[before.inputs[1]], tensors[before.inputs[2]]
    if weight.qparams is not None and weight.qparams.axis not in (None, weights.outputs):
        return None  # scales along the inputs: the lowering refuses them
    channels = bias.shape[0]
    if tensors[node.outputs[0]].shape != tensors[before.outputs[0]].shape:
        return None  # the constant is larger than what it meets, and broadcasts it
    step = _factor_and_offset(node, tensors, channels, len(tensors[node.outputs[0]].shape), before.op)
    if step is None:
        return None
    factor, offset = step
    scaled_weight = _scaled(weight, factor, weights.outputs, node)
    real_bias = bias.real.astype(np.float64) * factor + offset
    scaled_bias = bias
    if not (np.allclose(factor, 1.0, rtol=0, atol=_UNIT) and not offset.any()):
        scaled_bias = constant(free_name(f"{node.name}/bias"), real_bias.astype(np.float32))
    add_made(tensors, scaled_weight, scaled_bias)
    return replace(before, inputs=(before.inputs[0], scaled_weight.name, scaled_bias.name), outputs=node.outputs)


def _factor_and_offset(
    node: Node, tensors: dict[str, Tensor], channels: int, rank: int, before: str
) -> tuple[np.ndarray, np.ndarray] | None:
    if node.op == "ChannelAffine" and before == "Gemm" and rank != 2:
        return None  # the norm counts its channels on axis 1, the dense layer on the last
    if node.op == "ChannelAffine":
        return tensors[node.inputs[1]].real.astype(np.float64), tensors[node.inputs[2]].real.astype(np.float64)
    place = next(index for index, name in enumerate(node.inputs) if tensors[name].is_constant)
    value = tensors[node.inputs[place]]
    axis = rank - 1 if before == "Gemm" else 1
    shape = (1,) * (rank - len(value.shape)) + value.shape
    if any(size != 1 for i, size in enumerate(shape) if i != axis) or len(value.shape) > rank:
        return None
    numbers = np.broadcast_to(value.real.reshape(-1).astype(np.float64), (channels,))
    zeros, ones = np.zeros(channels), np.ones(channels)
    if node.op == "Div":
        return (1.0 / numbers, zeros) if place == 1 and numbers.all() else None
    if node.op == "Sub":
        return (ones, -numbers) if place == 1 else (-ones, numbers)
    return (numbers, zeros) if node.op == "Mul" else (ones, numbers)


def _scaled(weight: Tensor, factor: np.ndarray, axis: int, node: Node) -> Tensor:
    if np.allclose(factor, 1.0, rtol=0, atol=_UNIT):
        return weight
    name = free_name(f"{node.name}/weight")
    shape = [1] * len(weight.shape)
    shape[axis] = -1
    if weight.qparams is None:
        return constant(name, (weight.values * factor.reshape(shape)).astype(np.float32))
    scale = np.broadcast_to(weight.qparams.scale, factor.shape).astype(np.float64) * np.abs(factor)
    dead = scale < np.finfo(np.float32).tiny
    scale = np.where(dead, DEAD_SCALE, scale)
    sign = np.where(dead, 0, np.sign(factor)).astype(np.int16)
    codes = np.clip(weight.values.astype(np.int16) * sign.reshape(shape), -128, 127).astype(np.int8)
    zero_point = np.broadcast_to(weight.qparams.zero_point, factor.shape).astype(np.int32)
    return constant(
        name, codes, QParams(float32_scale(scale, f"{node}, weight '{weight.name}'"), zero_point.copy(), axis)
    )


def _negated_lowest_codes(before: Node, after: Node, tensors: dict[str, Tensor]) -> Iterator[Note]:
    """int8 has no 128: a code of -128 in a channel with a negative factor is one step less than trained."""
    if operators.of(before).weights is None or before.inputs[1] == after.inputs[1]:
        return
    was, now = tensors[before.inputs[1]], tensors[after.inputs[1]]
    count = 0 if was.qparams is None else int(np.count_nonzero((was.values == -128) & (now.values == 127)))
    if count:
        yield Note("weights", str(before), f"{count} codes of -128 became 127, where the factor is negative")


def _limited(before: Node, node: Node, tensors: dict[str, Tensor]) -> Node | None:  # noqa: ARG001 - the table's form
    if before.op != "Limit" and not operators.of(before).limitable:
        return None
    first, then = before.kept_within, node.kept_within
    low = min(max(first.low, then.low), then.high)
    return replace(before, outputs=node.outputs, limits=Limits(low, max(min(first.high, then.high), low)))


_RULES: dict[str, Callable[[Node, Node, dict[str, Tensor]], Node | None]] = {
    "ChannelAffine": _affine,
    "Mul": _affine,
    "Div": _affine,
    "Add": _affine,
    "Sub": _affine,
    "Limit": _limited,
}
