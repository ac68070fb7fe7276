"""Dense layers and products of two activations: FULLY_CONNECTED, BATCH_MATMUL."""

from __future__ import annotations

from bridge.exact.graph import Graph, Lowered, Node
from bridge.exact.lowering.activation import with_limits
from bridge.exact.lowering.registry import lowers
from bridge.exact.lowering.weights import int32_bias, kernel


@lowers("Gemm")
def lower_gemm(node: Node, graph: Graph) -> Lowered:
    """Gemm, MatMul by a constant -> FULLY_CONNECTED; weights stay (out, in).

    Input, weight and output keep their trained scales; the bias scale is input scale * weight scale (TFLite 8-bit
    quantization specification, FULLY_CONNECTED). Axes before the last are kept.
    """
    x, weight, bias = graph.operands(node)
    filters = kernel(node, weight, (0, 1), weight.shape[0], axis=0)
    biases, filters, notes = int32_bias(node, bias, x, filters)
    options = {"keep_num_dims": len(x.shape) > 2}
    dense = Node("FULLY_CONNECTED", node.name, (x.name, filters.name, biases.name), node.outputs, options)
    return with_limits(Lowered((dense,), (filters, biases), tuple(notes)), node, graph)


@lowers("MatMul")
def lower_matmul(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """MatMul of two activations -> BATCH_MATMUL; all three keep their trained scales."""
    return Lowered((Node("BATCH_MATMUL", node.name, node.inputs, node.outputs),))
