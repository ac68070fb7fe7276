"""One spelling for operators that ONNX can write in several ways: dense layers, batch norms, means, limits.

Gemm(alpha, beta, transA, transB), MatMul by a constant  ->  Gemm(x, weight (out, in), bias (out,))
BatchNormalization                                       ->  ChannelAffine(x, factor (C,), offset (C,))
GlobalAveragePool, ReduceMean                            ->  Mean(axes, keepdims)
Relu, Clip with constant limits                          ->  Limit(low, high)
Conv, ConvTranspose without a bias                       ->  the same with a bias of zeros
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Tensor, add_made, constant
from bridge.exact.names import free_name


def normalize(graph: Graph) -> Graph:
    """Every operator in its one spelling; raises `BridgeError` for a form that no TFLite kernel has."""
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        for item in _NORMALIZERS.get(node.op, _as_it_is)(node, tensors):
            if isinstance(item, Tensor):
                add_made(tensors, item)
            else:
                nodes.append(item)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


Made = Iterator[Node | Tensor]


def _as_it_is(node: Node, tensors: dict[str, Tensor]) -> Made:  # noqa: ARG001 - the table's form
    yield node


def _gemm(node: Node, tensors: dict[str, Tensor]) -> Made:
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    weight = tensors[node.inputs[1]]
    if node.attrs.get("transA") or not weight.is_constant or alpha != 1.0:
        raise BridgeError(
            where=str(node),
            problem="multiplies by a weight that is not constant, or with transA or alpha",
            remedy="Export the dense layer as nn.Linear; the integer kernel takes a constant weight.",
        )
    if not node.attrs.get("transB"):
        weight = transposed(weight)
        yield weight
    _require_features(node, tensors[node.inputs[0]], weight)
    bias = tensors[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    channels = weight.shape[0]
    if bias is None or beta == 0.0:
        bias = _zeros(node, channels)
        yield bias
    elif bias.shape != (channels,) or beta != 1.0:
        bias = constant(
            free_name(f"{bias.name}/flat"), np.broadcast_to(bias.real.reshape(-1) * np.float32(beta), (channels,))
        )
        yield bias
    yield Node("Gemm", node.name, (node.inputs[0], weight.name, bias.name), node.outputs)


def _require_features(node: Node, x: Tensor, weight: Tensor) -> None:
    """ONNX's shape inference does not look at the features of a Gemm."""
    if x.shape[-1] != weight.shape[1]:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"takes {weight.shape[1]} features; its input has {x.shape[-1]}",
            remedy="Give the input the size that the model was trained with.",
        )


def _matmul(node: Node, tensors: dict[str, Tensor]) -> Made:
    weight = tensors[node.inputs[1]]
    if tensors[node.inputs[0]].is_constant:
        raise BridgeError(
            where=f"{node}, operand '{node.inputs[0]}'",
            problem="is a constant multiplied from the left; the integer kernel takes two activations",
            remedy="Write it as a dense layer over the last axis: x.transpose(-1, -2) @ weight.T.",
        )
    if not weight.is_constant:
        yield node  # two activations: BATCH_MATMUL
        return
    if len(weight.shape) != 2:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has {len(weight.shape)} dimensions; the dense kernel takes a matrix",
            remedy="Split the batched weight into one dense layer for each matrix.",
        )
    weight, bias = transposed(weight), _zeros(node, weight.shape[1])
    _require_features(node, tensors[node.inputs[0]], weight)
    yield weight
    yield bias
    yield Node("Gemm", node.name, (node.inputs[0], weight.name, bias.name), node.outputs)


def transposed(weight: Tensor) -> Tensor:
    """A matrix the other way round, its per-channel scales following their axis."""
    qparams = weight.qparams
    if qparams is not None and qparams.axis is not None:
        qparams = qparams.on_axis(1 - qparams.axis)
    return constant(free_name(f"{weight.name}/transposed"), weight.values.T, qparams)


def _zeros(node: Node, channels: int) -> Tensor:
    """A bias of zeros: some NPU drivers are slowest, or refuse, without the operand."""
    return constant(free_name(f"{node.name}/bias"), np.zeros(channels, np.float32))


def _conv(node: Node, tensors: dict[str, Tensor]) -> Made:
    x, weight = tensors[node.inputs[0]], tensors[node.inputs[1]]
    if not weight.is_constant:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem="is computed when the model runs",
            remedy="Export the weight as an initializer; the integer kernel takes a constant.",
        )
    _require_channels(node, x, weight)
    spatial = len(weight.shape) - 2
    if spatial not in (1, 2):
        raise BridgeError(
            where=str(node),
            problem=f"convolves over {spatial} axes; TFLite's integer kernels do 1 and 2",
            remedy="Fold the extra axis into the batch or the channels.",
        )
    node = _explicit_padding(node, x, weight.shape[2:])
    if len(node.inputs) < 3 or not node.inputs[2]:
        transposed_conv = node.op == "ConvTranspose"
        channels = weight.shape[1] * node.attrs.get("group", 1) if transposed_conv else weight.shape[0]
        bias = _zeros(node, channels)
        yield bias
        node = replace(node, inputs=(*node.inputs[:2], bias.name))
    yield node


def _require_channels(node: Node, x: Tensor, weight: Tensor) -> None:
    """ONNX's shape inference does not look at the channels."""
    group = node.attrs.get("group", 1)
    transposed_conv, fits = node.op == "ConvTranspose", len(x.shape) == len(weight.shape) > 2
    if fits and group > 0:
        wanted = weight.shape[0] if transposed_conv else weight.shape[1] * group
        fits = x.shape[1] == wanted and weight.shape[0] % group == 0
    if not fits or group < 1:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has shape {weight.shape} and {group} group{'s' if group > 1 else ''}; "
            f"its input has shape {x.shape}, channels on axis 1",
            remedy="Give the input the number of channels that the model was trained with.",
        )


def _explicit_padding(node: Node, x: Tensor, kernel: tuple[int, ...]) -> Node:
    """`auto_pad` as numbers (ONNX operator specification, Conv); missing attributes filled in."""
    spatial = len(kernel)
    strides = node.attrs.get("strides") or [1] * spatial
    dilations = node.attrs.get("dilations") or [1] * spatial
    pads = node.attrs.get("pads") or [0] * 2 * spatial
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER") and node.op != "ConvTranspose":
        before, after = [], []
        for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            small = total // 2
            before.append(total - small if auto == "SAME_LOWER" else small)
            after.append(small if auto == "SAME_LOWER" else total - small)
        pads = before + after
    elif auto not in ("NOTSET", "VALID", ""):
        raise BridgeError(
            where=str(node),
            problem=f"asks for auto_pad {auto}, which leaves its padding to the reader",
            remedy="Export with explicit pads.",
        )
    if node.attrs.get("output_shape"):
        raise BridgeError(
            where=str(node),
            problem=f"asks for output_shape {node.attrs['output_shape']} and leaves its padding to the reader",
            remedy="Export with explicit pads and output_padding.",
        )
    if node.op != "ConvTranspose":
        reach = [(k - 1) * dilation + 1 for k, dilation in zip(kernel, dilations, strict=True)]
        room = [size + pads[i] + pads[i + spatial] for i, size in enumerate(x.shape[2:])]
        if any(window > size for window, size in zip(reach, room, strict=True)):
            raise BridgeError(
                where=str(node),
                problem=f"has a window of {reach} on {room} elements, padding included",
                remedy="Give the input the size that the model was trained with.",
            )
    numbers = {"strides": strides, "dilations": dilations, "pads": pads, "kernel_shape": list(kernel)}
    return replace(node, attrs={**node.attrs, **numbers, "auto_pad": "NOTSET"})


def _pool(node: Node, tensors: dict[str, Tensor]) -> Made:
    x = tensors[node.inputs[0]]
    kernel = tuple(node.attrs["kernel_shape"])
    if len(kernel) not in (1, 2) or len(node.outputs) > 1:
        raise BridgeError(
            where=str(node),
            problem="pools over more than two axes, or asks for the indices",
            remedy="TFLite's integer pools take one or two axes and return values only.",
        )
    yield _explicit_padding(node, x, kernel)


def _batch_norm(node: Node, tensors: dict[str, Tensor]) -> Made:
    gamma, beta, mean, variance = (tensors[name].real.astype(np.float64) for name in node.inputs[1:5])
    spread = variance + node.attrs.get("epsilon", 1e-5)
    if not (spread > 0).all():
        raise BridgeError(
            where=f"{node}, variance '{node.inputs[4]}'",
            problem=f"is {spread.min():.3g} with epsilon, and must be positive",
            remedy="The training diverged, or the file is damaged; export it again.",
        )
    factor = gamma / np.sqrt(spread)
    factors = constant(free_name(f"{node.name}/factor"), factor.astype(np.float32))
    offsets = constant(free_name(f"{node.name}/offset"), (beta - mean * factor).astype(np.float32))
    yield factors
    yield offsets
    yield Node("ChannelAffine", node.name, (node.inputs[0], factors.name, offsets.name), node.outputs[:1])


def _mean(node: Node, tensors: dict[str, Tensor]) -> Made:
    rank = len(tensors[node.inputs[0]].shape)
    axes = node.attrs.get("axes")
    if len(node.inputs) > 1 and node.inputs[1]:
        axes = tensors[node.inputs[1]].values.tolist()
    if node.op == "GlobalAveragePool":
        axes = range(2, rank)
    axes = sorted(axis % rank for axis in (axes if axes is not None else range(rank)))
    keep = bool(node.attrs.get("keepdims", 1))
    yield Node("Mean", node.name, node.inputs[:1], node.outputs, {"axes": axes, "keepdims": keep})


def _limit(node: Node, tensors: dict[str, Tensor]) -> Made:
    low, high = 0.0, np.inf
    if node.op == "Clip":
        limits = [tensors[name].real.item() if name else None for name in (*node.inputs[1:], "", "")[:2]]
        low = -np.inf if limits[0] is None else limits[0]
        high = np.inf if limits[1] is None else limits[1]
    yield Node("Limit", node.name, node.inputs[:1], node.outputs, {"low": float(low), "high": float(high)})


def _unary_axes(node: Node, tensors: dict[str, Tensor]) -> Made:  # noqa: ARG001 - the table's form
    """Reshape, Flatten, Squeeze, Unsqueeze: the output's known shape says it all."""
    yield Node("Reshape", node.name, node.inputs[:1], node.outputs)


_NORMALIZERS: dict[str, Callable[[Node, dict[str, Tensor]], Made]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    "Relu": _limit,
    "Clip": _limit,
    "Reshape": _unary_axes,
    "Flatten": _unary_axes,
    "Squeeze": _unary_axes,
    "Unsqueeze": _unary_axes,
}

SPELLINGS = frozenset(_NORMALIZERS)
"""The ONNX operators that leave here under another name."""
