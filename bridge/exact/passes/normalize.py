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
from bridge.exact import operators
from bridge.exact.graph import Graph, Limits, Node, Tensor, add_made, constant
from bridge.exact.names import free_name
from bridge.exact.operators.record import Spelling


def normalize(graph: Graph) -> Graph:
    """Every operator in its one spelling; raises `BridgeError` for a form that no TFLite kernel has."""
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        for item in _NORMALIZERS[operators.of(node).spelling](node, tensors):
            if isinstance(item, Tensor):
                add_made(tensors, item)
            else:
                nodes.append(item)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


Made = Iterator[Node | Tensor]


def _as_it_is(node: Node, tensors: dict[str, Tensor]) -> Made:  # noqa: ARG001 - the table's form
    yield node


def _gemm(node: Node, tensors: dict[str, Tensor]) -> Made:
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    x, weight = tensors[node.inputs[0]], tensors[node.inputs[1]]
    if not weight.is_constant or len(weight.shape) != 2 or not 0.0 < alpha < np.inf:
        raise BridgeError(
            where=str(node),
            problem=f"multiplies by a weight that is not a constant matrix, or by alpha {alpha:g}, which is not positive",
            remedy="Export the dense layer as nn.Linear; the integer kernel takes a constant weight.",
        )
    if not node.attrs.get("transB"):
        weight = transposed(weight)
        yield weight
    if alpha != 1.0:
        weight = _times(weight, alpha)
        yield weight
    if node.attrs.get("transA"):
        turned = replace(x, name=free_name(f"{x.name}/transposed"), shape=x.shape[::-1], origin=None)
        yield turned
        yield Node("Transpose", free_name(f"{node.name}/transA"), (x.name,), (turned.name,), {"perm": [1, 0]})
        x = turned
    _require_features(node, x, weight)
    bias = tensors[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    if bias is None or beta == 0.0:
        bias = _zeros(node, weight.shape[0])
        yield bias
    else:
        flat = _bias_of_rows(node, bias, beta, x.shape[0], weight.shape[0])
        if flat is not bias:
            yield flat
        bias = flat
    yield Node("Gemm", node.name, (x.name, weight.name, bias.name), node.outputs)


def _times(weight: Tensor, factor: float) -> Tensor:
    """The weight times a positive number: its scales take it over, its codes stay."""
    name = free_name(f"{weight.name}/times")
    if weight.qparams is None:
        return constant(name, (weight.values * np.float32(factor)).astype(np.float32))
    scale = (weight.qparams.scale.astype(np.float64) * factor).astype(np.float32)
    return constant(name, weight.values, replace(weight.qparams, scale=scale))


def _bias_of_rows(node: Node, c: Tensor, beta: float, rows: int, channels: int) -> Tensor:
    """C of a Gemm, (channels,) times beta: ONNX broadcasts it to (rows, channels), and each row must be the same.

    A C that has the right form already stays as it is, with the codes that it may hold.
    """
    if not c.is_constant:
        raise BridgeError(
            where=f"{node}, C '{c.name}'",
            problem="is computed when the model runs; the integer kernel adds a constant bias",
            remedy="Write it as a dense layer without C, a Q/DQ pair, and an Add.",
        )
    if c.shape == (channels,) and beta == 1.0:
        return c
    padded = (1,) * (2 - len(c.shape)) + c.shape
    if len(padded) != 2 or padded[0] not in (1, rows) or padded[1] not in (1, channels):
        raise BridgeError(
            where=f"{node}, C '{c.name}'",
            problem=f"has shape {c.shape}, which does not broadcast to ({rows}, {channels})",
            remedy="Give C one number for each output channel.",
        )
    values = c.values.reshape(padded)
    if (values != values[:1]).any():
        raise BridgeError(
            where=f"{node}, C '{c.name}'",
            problem=f"has shape {c.shape} and adds other numbers to each row of the output; a bias is the same for all rows",
            remedy="Write it as a dense layer without C, a Q/DQ pair, and an Add, so that the sum has a trained scale.",
        )
    on_axis_1 = c.qparams is not None and c.qparams.axis == len(c.shape) - 1
    if beta == 1.0 and padded[1] == channels and c.qparams is not None and (on_axis_1 or c.qparams.axis is None):
        return constant(free_name(f"{c.name}/flat"), values[0], c.qparams.on_axis(0))
    row = np.broadcast_to(c.real.reshape(padded)[0] * np.float32(beta), (channels,))
    return constant(free_name(f"{c.name}/flat"), row.astype(np.float32))


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
    if list(node.attrs.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has shape {weight.shape}; the node says kernel_shape {node.attrs['kernel_shape']}",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    spatial = len(weight.shape) - 2
    if list(node.attrs.get("kernel_shape") or weight.shape[2:]) != list(weight.shape[2:]):
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has kernels {weight.shape[2:]}; the operator says {node.attrs['kernel_shape']}",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    if spatial not in (1, 2):
        raise BridgeError(
            where=str(node),
            problem=f"convolves over {spatial} axes; TFLite's integer kernels do 1 and 2",
            remedy="Fold the extra axis into the batch or the channels.",
        )
    node = _explicit_padding(node, x, weight.shape[2:])
    transposed_conv = node.op == "ConvTranspose"
    channels = weight.shape[1] * node.attrs.get("group", 1) if transposed_conv else weight.shape[0]
    if len(node.inputs) < 3 or not node.inputs[2]:
        bias = _zeros(node, channels)
        yield bias
        node = replace(node, inputs=(*node.inputs[:2], bias.name))
    _require_one_for_each(node, tensors.get(node.inputs[2]), "bias", channels)
    yield node


def _require_one_for_each(node: Node, parameter: Tensor | None, role: str, channels: int) -> None:
    """ONNX's shape inference does not look at biases, nor at the parameters of a batch norm."""
    if parameter is not None and (parameter.shape != (channels,) or not parameter.is_constant):
        raise BridgeError(
            where=f"{node}, {role} '{parameter.name}'",
            problem=f"has shape {parameter.shape}{'' if parameter.is_constant else ' and is computed when the model runs'}; "
            f"it must be a constant of {channels} numbers, one for each channel",
            remedy="The file was edited by hand, or is damaged; export it again.",
        )


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
    _refuse_padding(node, kernel, pads, auto)
    if auto in ("SAME_UPPER", "SAME_LOWER") and node.op != "ConvTranspose":
        before, after = [], []
        for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max(same := (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            if same < 0 and "Pool" in node.op:
                raise BridgeError(
                    where=str(node),
                    problem=f"skips {-same} elements of {size} by auto_pad {auto}; readers differ on which",
                    remedy="Export with explicit pads.",
                )
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
    wider = [max(pair) for pair in zip(strides, dilations, strict=False)]
    if any(more >= wide for more, wide in zip(node.attrs.get("output_padding") or [], wider, strict=False)):
        raise BridgeError(
            where=str(node),
            problem=f"has output_padding {node.attrs['output_padding']}; it must be smaller than stride or dilation, {wider}",
            remedy="Use a smaller output_padding, as PyTorch demands; ONNX Runtime computes something else there.",
        )
    if node.op != "ConvTranspose":
        reach = [(k - 1) * dilation + 1 for k, dilation in zip(kernel, dilations, strict=True)]
        room = [size + pads[i] + pads[i + spatial] for i, size in enumerate(x.shape[2:])]
        strides = [min(stride, size) for stride, size in zip(strides, room, strict=True)]  # one window either way
        dilations = [1 if k == 1 else dilation for k, dilation in zip(kernel, dilations, strict=True)]
        if any(window > size for window, size in zip(reach, room, strict=True)):
            raise BridgeError(
                where=str(node),
                problem=f"has a window of {reach} on {room} elements, padding included",
                remedy="Give the input the size that the model was trained with.",
            )
    numbers = {"strides": strides, "dilations": dilations, "pads": pads, "kernel_shape": list(kernel)}
    return replace(node, attrs={**node.attrs, **numbers, "auto_pad": "NOTSET"})


def _refuse_padding(node: Node, kernel: tuple[int, ...], pads: list[int], auto: str) -> None:
    """Two statements at once, or a pool of padding alone (ONNX operator specification, Conv and MaxPool)."""
    problem = None
    if any(pads) and auto not in ("NOTSET", ""):
        problem = f"has pads {pads} and auto_pad {auto}; only one of them can be"
    elif "Pool" in node.op and any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):
        problem = f"has windows {list(kernel)} that can lie in its padding {pads} altogether"
    if problem is not None:
        raise BridgeError(
            where=str(node), problem=problem, remedy="The file is damaged or was edited by hand; export it again."
        )


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
    if node.attrs.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise BridgeError(
            where=str(node),
            problem="normalizes by the mean and variance of the data it sees: it was exported in training mode",
            remedy="Call model.eval() before the export, or pass training=TrainingMode.EVAL to torch.onnx.export.",
        )
    for name, role in zip(node.inputs[1:5], ("scale", "offset", "mean", "variance"), strict=True):
        _require_one_for_each(node, tensors[name], role, (*tensors[node.inputs[0]].shape, 1)[1])
    gamma, beta, mean, variance = (tensors[name].real.astype(np.float64) for name in node.inputs[1:5])
    spread = variance + node.attrs.get("epsilon", 1e-5)
    if not (spread > 0).all():
        raise BridgeError(
            where=f"{node}, variance '{node.inputs[4]}'",
            problem=f"is {spread.min():.3g} with epsilon, and must be positive",
            remedy="The training diverged, or the file is damaged; export it again.",
        )
    factor = gamma / np.sqrt(spread)
    if not (np.abs([factor, beta - mean * factor]) <= np.finfo(np.float32).max).all():
        raise BridgeError(
            where=f"{node}, variance '{node.inputs[4]}'",
            problem=f"makes the factor {np.abs(factor).max():.3g}, which float32 does not hold",
            remedy="The training diverged, or the file is damaged; export it again.",
        )
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
    if not axes and node.attrs.get("noop_with_empty_axes"):
        yield Node("Reshape", node.name, node.inputs[:1], node.outputs)  # to the same shape
        return
    axes = sorted({axis % rank for axis in axes or range(rank)})  # ONNX, ReduceMean: no axes are all axes
    keep = bool(node.attrs.get("keepdims", 1))
    yield Node("Mean", node.name, node.inputs[:1], node.outputs, {"axes": axes, "keepdims": keep})


def _limit(node: Node, tensors: dict[str, Tensor]) -> Made:
    low, high = 0.0, np.inf
    if node.op == "Clip":
        limits = [_number(node, tensors[name]) if name else None for name in (*node.inputs[1:], "", "")[:2]]
        high = np.inf if limits[1] is None else limits[1]
        low = min(-np.inf if limits[0] is None else limits[0], high)  # the upper one wins (ONNX, Clip; torch.clamp)
        if low == np.inf or high == -np.inf:
            raise BridgeError(
                where=str(node),
                problem="has limits that let nothing but infinity through",
                remedy="Give the lower limit a number, or leave it out.",
            )
    yield Node("Limit", node.name, node.inputs[:1], node.outputs, limits=Limits(float(low), float(high)))


def _number(node: Node, limit: Tensor) -> float:
    if not limit.is_constant or limit.data is None or limit.data.size != 1:
        raise BridgeError(
            where=f"{node}, limit '{limit.name}'",
            problem="is not one constant number",
            remedy="Export with fixed limits; a limit for each element is a Min or a Max.",
        )
    return float(limit.real.item())


def _unary_axes(node: Node, tensors: dict[str, Tensor]) -> Made:
    """Reshape, Flatten, Squeeze, Unsqueeze: the output's known shape says it all."""
    if node.op == "Squeeze" and len(node.inputs) > 1 and not np.prod(tensors[node.inputs[1]].shape):
        raise BridgeError(
            where=f"{node}, axes '{node.inputs[1]}'",
            problem="is an empty list: ONNX's shape inference takes that for no axis, ONNX Runtime for all axes of size 1",
            remedy="Name the axes, or leave the operand out to squeeze all of size 1.",
        )
    yield Node("Reshape", node.name, node.inputs[:1], node.outputs)


_NORMALIZERS: dict[Spelling | None, Callable[[Node, dict[str, Tensor]], Made]] = {
    None: _as_it_is,
    Spelling.DENSE: _gemm,
    Spelling.PRODUCT: _matmul,
    Spelling.CONVOLUTION: _conv,
    Spelling.POOL: _pool,
    Spelling.BATCH_NORM: _batch_norm,
    Spelling.MEAN: _mean,
    Spelling.LIMIT: _limit,
    Spelling.SHAPE: _unary_axes,
}

SPELLINGS = operators.named(lambda each: each.spelling)
"""The ONNX operators that leave here in one form, most of them under another name."""
