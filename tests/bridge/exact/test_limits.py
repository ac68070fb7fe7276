"""What the file format can say and no kernel computes is refused, with the number."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import Node, Tensor, per_tensor
from bridge.exact.limits import LIMITS, refuse_beyond_limits
from bridge.exact.schema import OPERATORS
from tests.builders import activation, float_constant, graph_of, lowered, weight

X = activation("x", (1, 2), 1.0)


def y(scale):
    return activation("y", (1, 2), scale)


def test_a_sum_is_refused_from_256_steps_for_one():
    refuse_beyond_limits(lowered("Add", X, X, output=y(1 / 255)))
    with pytest.raises(
        BridgeError, match=r"ADD 'node', output 'y': has scale 0\.003906, and one step .* is 256 of its"
    ):
        refuse_beyond_limits(lowered("Add", X, X, output=y(1 / 256)))


def test_a_dense_layer_is_measured_by_input_scale_times_weight_scale():
    w, b = weight("w", [[1, 2], [3, 4]], [0.25, 0.5]), float_constant("b", [0, 0])
    refuse_beyond_limits(lowered("Gemm", X, w, b, output=y(1 / 64)))
    with pytest.raises(BridgeError, match="FULLY_CONNECTED 'node', output 'y'"):
        refuse_beyond_limits(lowered("Gemm", X, w, b, output=y(1 / 512)))


def test_hard_swish_is_refused_where_its_kernel_does_not_prepare():
    with pytest.raises(BridgeError, match="is 128 of its steps; from 128 on the kernel does not prepare"):
        refuse_beyond_limits(lowered("HardSwish", X, output=y(1 / 128)))


def test_matmul_with_a_zero_point_that_xnnpack_leaves_out_is_refused():
    x, z = activation("x", (1, 2), 0.5, 3), activation("z", (2, 4), 0.25, 4)
    with pytest.raises(BridgeError, match=r"BATCH_MATMUL 'node', operand 'z': has scale 0\.25, zero point 4"):
        refuse_beyond_limits(lowered("MatMul", x, z, output=activation("y", (1, 4), 0.125)))


def test_a_softmax_of_an_input_too_fine_for_its_multiplier_is_refused():
    with pytest.raises(BridgeError, match=r"SOFTMAX 'node', input 'x': has scale 1\.49e-08"):
        refuse_beyond_limits(lowered("Softmax", activation("x", (1, 2), 2.0**-26), output=y(1 / 256)))


def test_a_sum_whose_scale_its_kernel_cannot_shift_is_refused():
    refuse_beyond_limits(lowered("Add", X, X, output=y(2.0**107)))
    with pytest.raises(BridgeError, match=r"ADD 'node', output 'y': has scale 3\.245e\+32; its kernel computes up to"):
        refuse_beyond_limits(lowered("Add", X, X, output=y(2.0**108)))


def pooled(op, window):
    """A pool of `window` places with stride 2 over five, padded as SAME does."""
    x, out = activation("x", (1, 1, 5, 1), 1.0), activation("y", (1, 1, 3, 1), 1.0)
    total = 4 + window - 5
    pads = [0, total // 2, 0, total - total // 2]
    return lowered(op, x, output=out, kernel_shape=[1, window], strides=[1, 2], pads=pads, dilations=[1, 1])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_padding_beyond_the_16_bits_of_a_kernel_is_refused(op):
    """From 65,541 places on the reference kernel took the maximum, and both kernel sets the average, of other ones."""
    refuse_beyond_limits(pooled(op, 65_535))
    with pytest.raises(BridgeError, match=r"_POOL_2D 'node': has padding 32,768; its kernel counts it in 16 bits"):
        refuse_beyond_limits(pooled(op, 65_537))


@pytest.mark.parametrize("what", ["strides", "dilations"])
def test_strides_and_dilations_of_a_convolution_beyond_16_bits_are_refused(what):
    attrs = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]} | {what: [1, 2**15]}
    taps, places = (1, 2) if what == "strides" else (2, 1)
    x, w = activation("x", (1, 1, 2**15 + 1, 1), 1.0), weight("w", np.ones((1, 1, 1, taps)), [1.0])
    out = activation("y", (1, 1, places, 1), 1.0)
    with pytest.raises(BridgeError, match=f"has {what[:-1]} 32,768; its kernel counts it in 16 bits"):
        refuse_beyond_limits(lowered("Conv", x, w, float_constant("b", [0.0]), output=out, **attrs))


def test_real_numbers_are_not_quantized_to_steps_of_which_any_number_has_too_many():
    real = activation("x", (1, 2))
    fine = [Tensor("y", (1, 2), np.dtype(np.int8), None, per_tensor(scale, 0)) for scale in (2.0**-40, 2.0**-41)]
    graphs = [graph_of([Node("QUANTIZE", "node", ("x",), ("y",))], [real, y], ("y",)) for y in fine]
    refuse_beyond_limits(graphs[0])
    with pytest.raises(BridgeError, match=r"QUANTIZE 'node', output 'y': has scale 4\.547e-13"):
        refuse_beyond_limits(graphs[1])


def test_float_operators_have_no_limits():
    refuse_beyond_limits(lowered("Add", activation("x", (1,)), activation("z", (1,)), output=activation("y", (1,))))


def test_limits_are_of_operators_that_we_write():
    assert set(LIMITS) <= set(OPERATORS)
