"""Weights untouched, biases in int32: every special case a trained model brings along."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.passes.fold import fold
from tests.builders import activation, constant, float_constant, int32_codes, lowered, notes, single_node, weight

X = activation("x", (1, 2), 0.5)
Y = activation("y", (1, 2), 0.25)


def dense(w, b=None, x=X):
    graph = lowered("Gemm", x, w, b or float_constant("b", [0.0, 0.0]), output=Y)
    _, kernel, bias = graph.operands(graph.nodes[0])
    return kernel, bias, graph


def test_every_code_is_kept_minus_128_too():
    """What becomes of -128 is decided on the whole graph: tests/bridge/exact/test_pair_sums.py."""
    kernel, _, graph = dense(weight("w", [[-128, 1], [-128, -127]], [0.5, 0.5]))
    assert_array_equal(kernel.values, [[-128, 1], [-128, -127]])
    assert graph.notes == ()


def test_uint8_weights_with_zero_point_128_are_taken():
    graph = fold(
        single_node(
            "DequantizeLinear",
            constant("codes", np.array([[128, 129], [127, 1]], np.uint8)),
            float_constant("scale", 0.5),
            constant("zero", np.array(128, np.uint8)),
            output=activation("w", (2, 2)),
        )
    )
    kernel, _, _ = dense(graph.tensors["w"])
    assert_array_equal(kernel.values, [[0, 1], [-1, -127]])


def test_scales_along_the_inputs_are_refused():
    with pytest.raises(BridgeError, match="weight 'w': has its scales along axis 1, not along the 2 output channels"):
        dense(weight("w", [[1, 2], [3, 4]], [0.5, 0.25], axis=1))


def test_a_per_tensor_weight_has_a_per_tensor_bias():
    kernel, bias, _ = dense(weight("w", [[1, 2], [3, 4]], 0.5), float_constant("b", [1.0, 2.0]))
    assert kernel.q.axis is None
    assert bias.q.axis is None
    assert_array_equal(bias.values, [4, 8])  # / (0.5 * 0.5)


def test_the_bias_is_rounded_half_to_even():
    _, bias, _ = dense(weight("w", [[1, 2], [3, 4]], [0.5, 0.5]), float_constant("b", [0.125, 0.375]))
    assert_array_equal(bias.values, [0, 2])  # 0.5 and 1.5


def test_int32_bias_codes_are_kept():
    b = int32_codes("b", [123456789, -7], [0.25, 0.125])
    _, bias, _ = dense(weight("w", [[1, 2], [3, 4]], [0.5, 0.25]), b)
    assert bias.dtype == np.int32
    assert_array_equal(bias.values, [123456789, -7])


def test_int32_bias_codes_at_another_scale_are_quantized_anew():
    _, bias, _ = dense(weight("w", [[1, 2], [3, 4]], [0.5, 0.25]), int32_codes("b", [10, 10], [0.5, 0.5]))
    assert_array_equal(bias.values, [20, 40])  # 5.0 / 0.25, 5.0 / 0.125


@pytest.mark.parametrize("scale", [1e-12, 1e-30], ids=["beyond int32", "beyond int64"])
def test_a_dead_channel_with_a_huge_bias_gets_a_larger_scale(scale):
    kernel, bias, graph = dense(weight("w", [[1, 2], [0, 0]], [0.5, scale]), float_constant("b", [1.0, 3.0]))
    assert_array_equal(kernel.values, [[1, 2], [0, 0]])
    assert kernel.q.scale[0] == 0.5
    assert bias.values[0] == 4
    assert bias.values[1] * bias.q.scale[1] == pytest.approx(3.0, rel=1e-6)
    assert len(notes(graph, "bias")) == 1


def test_a_bias_that_does_not_fit_a_living_channel_is_refused_by_channel_and_number():
    w, b = weight("w", [[1, 2], [0, 1]], [0.5, 1e-12]), float_constant("b", [1.0, 3.0])
    with pytest.raises(BridgeError, match=r"bias channel 1: 6e\+12 does not fit int32 at scale 5e-13 \(input 0\.5 x"):
        dense(w, b)


def test_a_float_weight_stays_float():
    kernel, bias, _ = dense(float_constant("w", [[1, 2], [3, 4]]), x=activation("x", (1, 2)))
    assert kernel.qparams is None
    assert bias.dtype == np.float32
