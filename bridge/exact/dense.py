"""Dense layers with a scale for each channel, written as 1x1 convolutions: for NPUs that take such scales there only."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from bridge.exact.graph import Graph, Node, Tensor, add_made
from bridge.exact.lowering.activation import shape_of
from bridge.exact.names import free_name

PerChannelDense = Literal["FULLY_CONNECTED", "CONV_2D"]
"""FULLY_CONNECTED: the operator made for it. Vela before 4.0 (NXP's board software lf-6.6.3 ships 3.10.0) leaves it to the
CPU when its weights have a scale for each channel, and takes CONV_2D.

CONV_2D: the same sums between two RESHAPEs; the same codes on XNNPACK, within 1 LSB on the reference kernels.
"""


def dense_written_as(operator: PerChannelDense, graph: Graph) -> Graph:
    """A lowered graph in which every FULLY_CONNECTED with per-channel weights is `operator`."""
    if operator == "FULLY_CONNECTED":
        return graph
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        weight = graph.operand(node, 1) if node.op == "FULLY_CONNECTED" else None
        wide = weight is not None and weight.qparams is not None and weight.q.axis is not None
        if weight is None or not wide or len(graph.tensors[node.inputs[0]].shape) != 2:
            nodes.append(node)
            continue
        made, new = _convolution(node, graph.tensors[node.inputs[0]], weight, graph.output(node))
        nodes += made
        add_made(tensors, *new)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _convolution(node: Node, x: Tensor, weight: Tensor, y: Tensor) -> tuple[list[Node], list[Tensor]]:
    """RESHAPE to (N, 1, 1, C), the convolution, RESHAPE back; and the tensors these add."""
    place = node.name or y.name
    columns = Tensor(free_name(f"{place}/as image"), (x.shape[0], 1, 1, x.shape[1]), x.dtype, None, x.qparams)
    sums = Tensor(free_name(f"{place}/as convolution"), (y.shape[0], 1, 1, y.shape[1]), y.dtype, None, y.qparams)
    kernel = replace(
        weight, name=free_name(f"{weight.name}/as kernel"), shape=(weight.shape[0], 1, 1, weight.shape[1]),
        data=weight.values.reshape(weight.shape[0], 1, 1, weight.shape[1]), origin=None,
    )  # fmt: skip
    there, back = shape_of(free_name(f"{place}/image shape"), columns), shape_of(free_name(f"{place}/vector shape"), y)
    attrs = {
        "padding": "VALID",
        "stride_w": 1,
        "stride_h": 1,
        "fused_activation": node.attrs.get("fused_activation", "NONE"),
    }
    bias = node.inputs[2:3]
    return (
        [
            Node("RESHAPE", free_name(f"{place}/to image"), (x.name, there.name), (columns.name,)),
            Node("CONV_2D", place, (columns.name, kernel.name, *bias), (sums.name,), attrs),
            Node("RESHAPE", free_name(f"{place}/to vector"), (sums.name, back.name), (y.name,)),
        ],
        [columns, sums, kernel, there, back],
    )
