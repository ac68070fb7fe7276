"""Dense layers and products of two activations."""

import numpy as np
from numpy.testing import assert_array_equal

from tests.builders import activation, float_constant, lowered, ops, weight

W = weight("w", [[1, 2], [3, 4], [5, 6]], [0.5, 0.25, 0.125])
B = float_constant("b", [1.0, 1.0, 1.0])


def test_gemm_keeps_its_weight_out_by_in_and_every_scale():
    graph = lowered("Gemm", activation("x", (1, 2), 0.5), W, B, output=activation("y", (1, 3), 0.25, 4))
    (node,) = graph.nodes
    x, kernel, bias = graph.operands(node)
    assert (node.op, node.attrs["keep_num_dims"]) == ("FULLY_CONNECTED", False)
    assert_array_equal(kernel.values, W.values)
    assert kernel.q == W.q
    assert x.q.scale == 0.5
    assert graph.tensors["y"].q.zero_point == 4
    assert_array_equal(bias.values, [4, 8, 16])


def test_gemm_over_the_last_of_three_axes_keeps_them():
    graph = lowered("Gemm", activation("x", (1, 5, 2), 0.5), W, B, output=activation("y", (1, 5, 3), 0.25))
    assert graph.nodes[0].attrs["keep_num_dims"] is True


def test_gemm_fuses_its_relu():
    y = activation("y", (1, 3), 0.25)
    graph = lowered("Gemm", activation("x", (1, 2), 0.5), W, B, output=y, within=(0.0, np.inf))
    assert graph.nodes[0].attrs["fused_activation"] == "RELU"


def test_matmul_of_two_activations_keeps_all_three_scales():
    x, z = activation("x", (1, 2), 0.5, 3), activation("z", (2, 4), 0.25)
    graph = lowered("MatMul", x, z, output=activation("y", (1, 4), 0.125, -5))
    assert ops(graph) == ["BATCH_MATMUL"]
    assert [str(graph.tensors[name].q) for name in "xzy"] == [
        "scale 0.5, zero point 3",
        "scale 0.25, zero point 0",
        "scale 0.125, zero point -5",
    ]
