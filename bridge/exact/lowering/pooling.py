"""Pools and means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Lowered, Node, Note, constant, per_tensor
from bridge.exact.lowering.activation import with_limits
from bridge.exact.lowering.conv import lower_conv
from bridge.exact.lowering.padding import padded, unclamped
from bridge.exact.lowering.registry import lowers
from bridge.exact.names import free_name


def _pool(op: str, node: Node, graph: Graph, lowest: bool) -> Lowered:
    (x,) = graph.operands(node)
    kernel = tuple(node.attrs["kernel_shape"])
    before, source, padding = padded(node, x, graph, kernel, lowest)
    options = {
        "padding": padding,
        "stride_h": node.attrs["strides"][0],
        "stride_w": node.attrs["strides"][1],
        "filter_height": kernel[0],
        "filter_width": kernel[1],
    }
    pool = Node(op, node.name, (source,), node.outputs, options)
    return with_limits(Lowered((*before.nodes, pool), before.tensors), node, graph)


def _dilated(node: Node) -> BridgeError:
    return BridgeError(
        where=str(node),
        problem=f"has dilations {node.attrs['dilations']}; TFLite's pools have none",
        remedy="Use a pool without dilation.",
    )


@lowers("MaxPool")
def lower_max_pool(node: Node, graph: Graph) -> Lowered:
    """MaxPool -> MAX_POOL_2D, in and out at one scale; padding that SAME does not give is a PADV2 or PAD before it."""
    if any(dilation != 1 for dilation in node.attrs["dilations"]):
        raise _dilated(node)
    return _pool("MAX_POOL_2D", node, graph, lowest=True)


@lowers("AveragePool")
def lower_average_pool(node: Node, graph: Graph) -> Lowered:
    """AveragePool -> AVERAGE_POOL_2D, in and out at one scale.

    TFLite rounds half away from zero on the code, PyTorch's engine half to even (catalogue entry M31): 1 LSB at ties.
    The kernel leaves padding out of the count; where ONNX counts it, a PAD operator makes it part of the input.
    Padding is counted as PyTorch does: the model's own pads, not what ceil_mode adds behind them. ONNX Runtime 1.23
    counts both below opset 19, and from 19 on counts the pads of one axis for the other's; a note says where.
    With an output scale of its own (passes/rescale.py) it is a DEPTHWISE_CONV_2D by 1 / (height * width).
    """
    x, y = graph.operands(node)[0], graph.output(node)
    if x.qparams is not None and y.qparams is not None and not x.q.same_grid(y.q):
        return _noted(_as_convolution(node, graph), node, graph)
    if any(dilation != 1 for dilation in node.attrs["dilations"]):
        raise _dilated(node)
    counted = bool(node.attrs.get("count_include_pad", 0)) and any(node.attrs["pads"])
    lowered = _counting_padding(node, graph) if counted else _pool("AVERAGE_POOL_2D", node, graph, lowest=False)
    if [made.op for made in lowered.nodes].count("PAD") > counted:
        raise BridgeError(
            where=str(node),
            problem=f"leaves padding {node.attrs['pads']} (or what ceil_mode adds) out of its average, "
            "which TFLite does for SAME padding only",
            remedy="Use count_include_pad=True without ceil_mode, or a padding that splits evenly.",
        )
    return _noted(lowered, node, graph)


def _noted(lowered: Lowered, node: Node, graph: Graph) -> Lowered:
    """With a note where ONNX Runtime counts other elements than PyTorch (1.23 against 2.13, opsets 13 to 22, measured)."""
    if not node.attrs.get("count_include_pad", 0):
        return lowered
    x, y, pads = graph.operands(node)[0], graph.output(node), node.attrs["pads"]
    beyond = any(
        (y.shape[1 + i] - 1) * node.attrs["strides"][i] + node.attrs["kernel_shape"][i]
        > x.shape[1 + i] + pads[i] + pads[2 + i]
        for i in range(2)
    )
    said = []
    if beyond:
        said.append("below opset 19 ONNX Runtime 1.23 also counts what ceil_mode adds")
    if pads[0::2] != pads[1::2]:
        said.append("from opset 19 on ONNX Runtime 1.23 counts the padding of one axis for the other's")
    what = f"counts its padding {pads} as PyTorch does; {', and '.join(said)}"
    notes = (Note("pytorch", str(node), what),) if said else ()
    return replace(lowered, notes=(*lowered.notes, *notes))


def _as_convolution(node: Node, graph: Graph) -> Lowered:
    """Every weight is the code 127 at scale 1 / (127 * height * width), which loses nothing: one rounding in all."""
    channels, kernel = graph.operands(node)[0].shape[-1], node.attrs["kernel_shape"]
    scale = per_tensor(1.0 / (127 * np.prod(kernel)), 0)
    weight = constant(free_name(f"{node.name}/weight"), np.full((channels, 1, *kernel), 127, np.int8), scale)
    bias = constant(free_name(f"{node.name}/bias"), np.zeros(channels, np.float32))
    attrs = {**node.attrs, "group": channels}
    conv = replace(node, op="Conv", inputs=(node.inputs[0], weight.name, bias.name), attrs=attrs)
    return lower_conv(conv, replace(graph, tensors={**graph.tensors, weight.name: weight, bias.name: bias}))


def _counting_padding(node: Node, graph: Graph) -> Lowered:
    """A PAD operator for all of it: the pool's own padding is not counted."""
    (x,) = graph.operands(node)
    top, left, bottom, right = node.attrs["pads"]
    shape = (x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
    made = replace(x, name=free_name(f"{node.name}/padded"), shape=shape, origin=None, qparams=unclamped(x.qparams))
    paddings = constant(
        free_name(f"{node.name}/paddings"), np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    )
    pad = Node("PAD", free_name(f"{node.name}/pad"), (x.name, paddings.name), (made.name,))
    inner = replace(node, inputs=(made.name,), attrs={**node.attrs, "pads": [0, 0, 0, 0]})
    pool = _pool("AVERAGE_POOL_2D", inner, replace(graph, tensors={**graph.tensors, made.name: made}), lowest=False)
    return Lowered((pad, *pool.nodes), (made, paddings, *pool.tensors))


@lowers("Mean")
def lower_mean(node: Node, graph: Graph) -> Lowered:
    """GlobalAveragePool, ReduceMean -> MEAN: one requantization by scale_in / (scale_out * count)."""
    (x,) = graph.operands(node)
    axes = constant(free_name(f"{node.name}/axes"), np.array(node.attrs["axes"], np.int32))
    mean = Node("MEAN", node.name, (x.name, axes.name), node.outputs, {"keep_dims": node.attrs["keepdims"]})
    return Lowered((mean,), (axes,))
