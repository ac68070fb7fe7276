"""Convolutions: CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV; and a factor per channel, which is a depthwise one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import float32_scale
from bridge.exact.graph import Graph, Lowered, Node, Note, QParams, Tensor, constant, per_tensor
from bridge.exact.lowering.activation import shape_of, with_limits
from bridge.exact.lowering.padding import padded
from bridge.exact.lowering.registry import lowers
from bridge.exact.lowering.weights import int32_bias, kernel
from bridge.exact.names import free_name
from bridge.exact.passes.fuse import DEAD_SCALE


@lowers("Conv")
def lower_conv(node: Node, graph: Graph) -> Lowered:
    """Conv -> CONV_2D, or DEPTHWISE_CONV_2D where every group has one input channel.

    Activations are NHWC already (passes/layout.py); weights OIHW -> OHWI, or 1HWO for depthwise. Input, weight and
    output keep their trained scales; only the bias scale is derived: input scale * weight scale, zero point 0 (TFLite
    8-bit quantization specification, CONV_2D). Groups: CONV_2D with a filter of C / groups channels.
    """
    x, weight, bias = graph.operands(node)
    groups, channels = node.attrs.get("group", 1), weight.shape[0]
    depthwise = groups == x.shape[-1] and weight.shape[1] == 1 and groups > 1
    if depthwise:
        filters = kernel(node, weight, (1, 2, 3, 0), channels, axis=3)
    else:
        filters = kernel(node, weight, (0, 2, 3, 1), channels, axis=0)
    biases, filters, notes = int32_bias(node, bias, x, filters)
    before, source, padding = padded(node, x, graph, weight.shape[2:])
    options = {
        "padding": padding,
        "stride_h": node.attrs["strides"][0],
        "stride_w": node.attrs["strides"][1],
        "dilation_h_factor": node.attrs["dilations"][0],
        "dilation_w_factor": node.attrs["dilations"][1],
    }
    if depthwise:
        options["depth_multiplier"] = channels // groups
    op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    conv = Node(op, node.name, (source, filters.name, biases.name), node.outputs, options)
    lowered = Lowered((*before.nodes, conv), (*before.tensors, filters, biases), tuple(notes))
    return with_limits(lowered, node, graph)


@lowers("ConvTranspose")
def lower_conv_transpose(node: Node, graph: Graph) -> Lowered:
    """ConvTranspose -> TRANSPOSE_CONV; weights IOHW -> OHWI.

    TRANSPOSE_CONV pads as the convolution it reverses would (kernels/padding.h): where that is not what the model
    asks for, the whole result is computed (VALID) and a SLICE cuts out what was asked for.
    """
    x, weight, bias = graph.operands(node)
    y = graph.output(node)
    strides, pads = node.attrs["strides"], node.attrs["pads"]
    if node.attrs.get("group", 1) != 1 or any(d != 1 for d in node.attrs["dilations"]):
        raise BridgeError(
            where=str(node),
            problem="is a grouped or dilated transposed convolution; TRANSPOSE_CONV does neither",
            remedy="Use a plain ConvTranspose2d, or Resize followed by a convolution.",
        )
    filters = kernel(node, weight, (1, 2, 3, 0), weight.shape[1], axis=0)
    biases, filters, notes = int32_bias(node, bias, x, filters)
    sizes = weight.shape[2:]
    whole = tuple((x.shape[1 + i] - 1) * strides[i] + sizes[i] for i in range(2))
    tensors: list[Tensor] = [filters, biases]
    nodes: list[Node] = []
    padding, target = _transpose_padding(x, y, strides, pads, whole)
    if target is None:
        if any(pads[i] + y.shape[1 + i] > whole[i] for i in range(2)):
            raise BridgeError(
                where=str(node),
                problem=f"its output {y.shape[1:3]} reaches beyond what the kernel computes, {whole}",
                remedy="Use an output_padding that is not larger than the padding.",
            )
        target = replace(y, name=free_name(f"{y.name}/whole"), shape=(y.shape[0], *whole, y.shape[3]), origin=None)
        tensors.append(target)
        begin = constant(free_name(f"{node.name}/begin"), np.array([0, pads[0], pads[1], 0], np.int32))
        size = constant(free_name(f"{node.name}/size"), np.array(y.shape, np.int32))
        tensors += [begin, size]
        nodes.append(Node("SLICE", free_name(f"{node.name}/crop"), (target.name, begin.name, size.name), node.outputs))
    shape = shape_of(free_name(f"{node.name}/shape"), target)
    options = {"padding": padding, "stride_h": strides[0], "stride_w": strides[1]}
    conv = Node("TRANSPOSE_CONV", node.name, (shape.name, filters.name, x.name, biases.name), (target.name,), options)
    lowered = Lowered((conv, *nodes), (shape, *tensors), tuple(notes))
    if nodes:
        limited = with_limits(Lowered((conv,)), replace(node, outputs=(target.name,)), _with(graph, target))
        return Lowered((*limited.nodes, *nodes), (shape, *tensors, *limited.tensors), lowered.notes)
    return with_limits(lowered, node, graph)


def _with(graph: Graph, tensor: Tensor) -> Graph:
    return replace(graph, tensors={**graph.tensors, tensor.name: tensor})


def _transpose_padding(
    x: Tensor, y: Tensor, strides: list[int], pads: list[int], whole: tuple[int, ...]
) -> tuple[str, Tensor | None]:
    if not any(pads) and y.shape[1:3] == whole:
        return "VALID", y
    for i in range(2):
        total = whole[i] - y.shape[1 + i]
        same = -(-y.shape[1 + i] // strides[i]) == x.shape[1 + i] and total >= 0 and total // 2 == pads[i]
        # XNNPACK (LiteRT 2.1.0) ends the process when SAME leaves fewer outputs than one stride: input 1, stride 3,
        # kernel 3, output 1. Measured for inputs 1 to 4, kernels 1 to 5, strides 1 to 4 (docs/properties.md).
        same = same and y.shape[1 + i] >= strides[i]
        if not same:
            return "VALID", None
    return "SAME", y


@lowers("ChannelAffine")
def lower_channel_affine(node: Node, graph: Graph) -> Lowered:
    """A factor and an offset per channel -> DEPTHWISE_CONV_2D of size 1: one rounding, one requantization.

    Factor f becomes the code 127 or -127 at scale |f| / 127, which loses nothing; the offset becomes the bias.
    """
    x, factors, offsets = graph.operands(node)
    lowered = one_by_one(node, graph, x, factors.real, offsets.real)
    if x.qparams is None:
        return lowered
    note = Note("unfused", str(node), "a DEPTHWISE_CONV_2D of its own, exact")
    return replace(lowered, notes=(*lowered.notes, note))


def one_by_one(node: Node, graph: Graph, x: Tensor, factors: np.ndarray, offsets: np.ndarray) -> Lowered:
    """x * factor + offset per last-axis channel, as a DEPTHWISE_CONV_2D of size 1, reshaped around where x is not 4-D.

    factors, offsets: float32 (channels,), or one for each element of a sample: then each is a channel. Factors of one
    magnitude share one scale, which more NPUs are fast with.
    """
    y = graph.output(node)
    channels = factors.size
    if x.qparams is None:
        filters = constant(free_name(f"{node.name}/factors"), factors.astype(np.float32).reshape(1, 1, 1, channels))
    else:
        codes = np.where(factors < 0, -127, 127) * (factors != 0)
        wanted = np.where(factors != 0, np.abs(factors.astype(np.float64)) / 127, DEAD_SCALE)
        scale = float32_scale(wanted, f"{node}, factor")
        qparams = QParams(scale, np.zeros(channels, np.int32), 3)
        if (scale == scale[0]).all():
            qparams = per_tensor(scale[0], 0)
        filters = constant(free_name(f"{node.name}/factors"), codes.astype(np.int8).reshape(1, 1, 1, channels), qparams)
    bias = constant(free_name(f"{node.name}/offsets"), offsets.astype(np.float32))
    biases, filters, notes = int32_bias(node, bias, x, filters)
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1}
    conv = Node("DEPTHWISE_CONV_2D", node.name, (x.name, filters.name, biases.name), node.outputs, options)
    if len(x.shape) == 4 and channels == x.shape[-1]:
        return with_limits(Lowered((conv,), (filters, biases), tuple(notes)), node, graph)
    wide = (int(np.prod(x.shape)) // channels, 1, 1, channels)
    wide_x = replace(x, name=free_name(f"{node.name}/input4d"), shape=wide, origin=None)
    wide_y = replace(y, name=free_name(f"{node.name}/output4d"), shape=wide, origin=None)
    shapes = (shape_of(free_name(f"{node.name}/shape4d"), wide_x), shape_of(free_name(f"{node.name}/shape"), y))
    conv = replace(conv, inputs=(wide_x.name, filters.name, biases.name), outputs=(wide_y.name,))
    inner = replace(node, outputs=(wide_y.name,))
    limited = with_limits(Lowered((conv,), (filters, biases), tuple(notes)), inner, _with(graph, wide_y))
    widen = Node("RESHAPE", free_name(f"{node.name}/widen"), (x.name, shapes[0].name), (wide_x.name,))
    narrow = Node("RESHAPE", free_name(f"{node.name}/narrow"), (wide_y.name, shapes[1].name), (y.name,))
    tensors = (*limited.tensors, wide_x, wide_y, *shapes)
    return Lowered((widen, *limited.nodes, narrow), tensors, limited.notes)
