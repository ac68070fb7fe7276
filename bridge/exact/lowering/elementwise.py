"""Sums, products, activations, and the operators that only change the scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import INT32, missed, quantize_constant
from bridge.exact.complete.price import largest
from bridge.exact.graph import Graph, Limits, Lowered, Node, Note, Tensor, constant
from bridge.exact.lowering.activation import clamp, fused_activation, limit, with_limits
from bridge.exact.lowering.conv import one_by_one
from bridge.exact.lowering.registry import lowers
from bridge.exact.names import free_name

_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
_EXTREME = {"Min": "MINIMUM", "Max": "MAXIMUM"}


def _as_int8(node: Node, tensor: Tensor, graph: Graph, reach: float) -> tuple[Tensor, tuple[Note, ...]]:
    """A constant operand beside int8 activations: its trained codes, or codes by its range and a note.

    The kernels take one scale of it: one that has a scale for each channel counts as untrained.
    `reach`: how much of a difference in the constant arrives in the output, at most.
    """
    y = graph.output(node)
    if not tensor.is_constant or _one_scale(tensor) or y.qparams is None:
        return tensor, ()
    real = tensor.real.astype(np.float32)
    codes, qparams = quantize_constant(real, symmetric=node.op == "PRelu")
    off = missed(real, codes, qparams) * reach
    note = Note("derived", f"{node}, constant '{tensor.name}'", f"{qparams}", y.name, off)
    return constant(free_name(f"{tensor.name}/{node.name}"), codes, qparams), (note,)


def _one_scale(tensor: Tensor) -> bool:
    return tensor.qparams is not None and tensor.qparams.axis is None


@lowers(*_BINARY)
def lower_binary(node: Node, graph: Graph) -> Lowered:
    """Add, Sub, Mul of two operands -> ADD, SUB, MUL, each operand at its own scale.

    A constant without a trained scale gets 8 bits. Where these would lose anything, and it has a value for each
    channel, or few values: DEPTHWISE_CONV_2D of size 1, whose weights and int32 biases hold it exactly.
    """
    exact = _with_exact_constant(node, graph)
    if exact is not None:
        return exact
    x, other = graph.operands(node)
    reaches = (largest(other), largest(x)) if node.op == "Mul" else (1.0, 1.0)
    pairs = [_as_int8(node, operand, graph, reach) for operand, reach in zip((x, other), reaches, strict=True)]
    operands = [tensor for tensor, _ in pairs]
    made = tuple(tensor for tensor in operands if tensor.is_constant)
    notes = tuple(note for _, more in pairs for note in more)
    op = Node(_BINARY[node.op], node.name, tuple(tensor.name for tensor in operands), node.outputs)
    return with_limits(Lowered((op,), made, notes), node, graph)


_FEW = 4096
"""Values of a constant that differ from element to element up to which each becomes a channel: 5 bytes for each."""


def _with_exact_constant(node: Node, graph: Graph) -> Lowered | None:
    """A constant in the weights or biases of a DEPTHWISE_CONV_2D; None where ADD, SUB or MUL hold it as well."""
    x, value = sorted(graph.operands(node), key=lambda tensor: tensor.is_constant)
    y = graph.output(node)
    untrained = value.is_constant and not x.is_constant and not _one_scale(value)
    if not untrained or x.qparams is None or y.qparams is None or x.shape != y.shape or not x.shape:
        return None
    real = value.real.astype(np.float32)
    if not missed(real, *quantize_constant(real)):
        return None
    shape = (1,) * (len(x.shape) - real.ndim) + real.shape
    per_channel = all(size == 1 for size in shape[:-1])
    if not per_channel and (shape[0] != 1 or int(np.prod(x.shape[1:])) > _FEW):
        return None
    along = x.shape[-1:] if per_channel else x.shape[1:]
    values = np.broadcast_to(real.reshape(shape[-len(along) :]), along).reshape(-1)
    factors, offsets = np.ones_like(values), np.zeros_like(values)
    if node.op == "Mul":
        factors = values
    else:
        subtracted = node.op == "Sub" and graph.operands(node)[1] is value
        offsets = -values if subtracted else values
        factors = -factors if node.op == "Sub" and not subtracted else factors
    if not _fit(factors, offsets, float(x.q.scale)):
        return None
    return one_by_one(node, graph, x, factors, offsets)


def _fit(factors: np.ndarray, offsets: np.ndarray, scale: float) -> bool:
    """Whether weights of +-127 and int32 biases can hold them, with room for 255 steps of the input."""
    magnitudes = np.abs(factors[factors != 0].astype(np.float64)) / 127
    if (magnitudes < np.finfo(np.float32).tiny).any():
        return False
    step = scale * magnitudes.min(initial=np.inf)
    return bool(np.abs(offsets).max(initial=0.0) < step * (INT32.max - 127 * 255))


@lowers(*_EXTREME)
def lower_extreme(node: Node, graph: Graph) -> Lowered:
    """Min, Max -> MINIMUM, MAXIMUM, two operands at a time, all at the scale of the output (passes/rescale.py)."""
    first, *others = graph.operands(node)
    if not others:
        raise BridgeError(
            where=str(node),
            problem="has one operand; TFLite's MINIMUM and MAXIMUM take two",
            remedy="Remove the operator: it changes nothing.",
        )
    nodes: list[Node] = []
    between: list[Tensor] = []
    for index, other in enumerate(others):
        target = graph.output(node)
        if index < len(others) - 1:
            shape = np.broadcast_shapes(first.shape, other.shape)
            target = replace(target, name=free_name(f"{node.name}/{index}"), shape=shape, origin=None)
            between.append(target)
        nodes.append(Node(_EXTREME[node.op], target.name, (first.name, other.name), (target.name,)))
        first = target
    return Lowered((*nodes[:-1], replace(nodes[-1], name=node.name)), tuple(between))


@lowers("Div")
def lower_div(node: Node, graph: Graph) -> Lowered:
    """Div by a constant -> MUL by its reciprocal: TFLite has no int8 DIV."""
    divisor = graph.operands(node)[1]
    if not divisor.real.all():
        raise BridgeError(
            where=f"{node}, constant '{divisor.name}'",
            problem="divides by zero",
            remedy="The training diverged, or the file is damaged; export it again.",
        )
    inverse = constant(free_name(f"{divisor.name}/inverse"), (1.0 / divisor.real.astype(np.float64)).astype(np.float32))
    replaced = replace(node, op="Mul", inputs=(node.inputs[0], inverse.name))
    lowered = lower_binary(replaced, replace(graph, tensors={**graph.tensors, inverse.name: inverse}))
    return replace(lowered, tensors=(*lowered.tensors, inverse))


@lowers("Limit")
def lower_limit(node: Node, graph: Graph) -> Lowered:
    """Relu, Clip -> RELU, RELU6, RELU_N1_TO_1, or MAXIMUM and MINIMUM with the limits as codes."""
    (x,) = graph.operands(node)
    y = graph.output(node)
    activation = fused_activation(node, y)
    if activation not in (None, "NONE"):
        return Lowered((Node(str(activation), node.name, (x.name,), node.outputs),))
    return limit(node.name, x, y, node.kept_within)


@lowers("Clamp")
def lower_clamp(node: Node, graph: Graph) -> Lowered:
    """A trained clamp narrower than int8 (passes/rescale.py) -> MAXIMUM, MINIMUM."""
    (x,) = graph.operands(node)
    return clamp(node.name, x, graph.output(node))


_UNARY = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH"}


@lowers(*_UNARY)
def lower_unary(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Sigmoid, Tanh, HardSwish -> LOGISTIC, TANH, HARD_SWISH; the first two write their prescribed scale."""
    return Lowered((Node(_UNARY[node.op], node.name, node.inputs, node.outputs),))


@lowers("HardSigmoid")
def lower_hard_sigmoid(node: Node, graph: Graph) -> Lowered:
    """HardSigmoid -> DEPTHWISE_CONV_2D of size 1: alpha * x + beta with one rounding, limited to 0..1.

    TFLite has no such operator. At the trained output scale of 1/256 saturation is the limit.
    """
    (x,) = graph.operands(node)
    if x.is_constant or not x.shape:
        raise BridgeError(
            where=f"{node}, input '{x.name}'",
            problem="is a constant, or a single number",
            remedy="Export the model with this value computed (constant folding).",
        )
    channels = x.shape[-1]
    alpha, beta = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
    limited = replace(node, limits=Limits(0.0, 1.0))
    return one_by_one(limited, graph, x, np.full(channels, alpha, np.float32), np.full(channels, beta, np.float32))


@lowers("LeakyRelu")
def lower_leaky_relu(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """LeakyRelu -> LEAKY_RELU."""
    options = {"alpha": float(node.attrs.get("alpha", 0.01))}
    return Lowered((Node("LEAKY_RELU", node.name, node.inputs, node.outputs, options),))


@lowers("PRelu")
def lower_prelu(node: Node, graph: Graph) -> Lowered:
    """PRelu -> PRELU; a slope without a trained scale is quantized by its largest magnitude."""
    x, slope = graph.operands(node)
    if x.is_constant:
        raise BridgeError(
            where=f"{node}, input '{x.name}'",
            problem="is a constant",
            remedy="Export the model with this value computed (constant folding).",
        )
    slopes, notes = _as_int8(node, slope, graph, largest(x))
    if slopes.is_constant:
        shape = slopes.shape[1:] if len(slopes.shape) == len(x.shape) and slopes.shape[0] == 1 else slopes.shape
        last = x.shape[-1:] if all(size == 1 for size in shape[:-1]) else shape[-1:]
        whole = (*(1,) * (len(x.shape) - 1 - len(shape)), *shape[:-1], *last)
        slopes = constant(
            free_name(f"{slopes.name}/broadcast"), np.broadcast_to(slopes.values.reshape(shape), whole), slopes.qparams
        )
    return Lowered((Node("PRELU", node.name, (x.name, slopes.name), node.outputs),), (slopes,), notes)


@lowers("Quantize")
def lower_quantize(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """A change of scale, or the border from float -> QUANTIZE."""
    return Lowered((Node("QUANTIZE", node.name, node.inputs, node.outputs),))


@lowers("Dequantize")
def lower_dequantize(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """The border to float -> DEQUANTIZE."""
    return Lowered((Node("DEQUANTIZE", node.name, node.inputs, node.outputs),))


@lowers("Softmax")
def lower_softmax(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Softmax over the last stored axis -> SOFTMAX, which writes 1/256 and zero point -128."""
    return Lowered((Node("SOFTMAX", node.name, node.inputs, node.outputs, {"beta": 1.0}),))
