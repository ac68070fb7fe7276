"""Multiply-accumulates of an operator, from its shapes."""

from __future__ import annotations

from math import prod

from bridge.exact.graph import Graph, Node


def macs(graph: Graph, node: Node) -> int:
    """How often the operator multiplies and adds; 0 for one without weights.

    A convolution does one for each output value and each weight that leads to it; BATCH_MATMUL one for each output
    value and each step along the axis that is summed.
    """
    output = graph.tensors[node.outputs[0]].shape if node.outputs else ()
    if node.op == "BATCH_MATMUL":
        left = graph.tensors[node.inputs[0]].shape
        return prod(output) * (left[-2] if node.attrs.get("adj_x") else left[-1]) if len(left) >= 2 else 0
    if len(node.inputs) < 2 or not node.inputs[1]:
        return 0
    weight = graph.tensors[node.inputs[1]].shape
    if node.op == "CONV_2D" and len(weight) == 4:
        return prod(output) * prod(weight[1:])
    if node.op == "DEPTHWISE_CONV_2D" and len(weight) == 4:
        return prod(output) * prod(weight[1:3])
    if node.op == "FULLY_CONNECTED" and len(weight) == 2:
        return prod(output) * weight[1]
    if node.op == "TRANSPOSE_CONV" and len(node.inputs) > 2 and len(weight) == 4:
        return prod(graph.tensors[node.inputs[2]].shape) * prod(weight[:3])
    return 0
