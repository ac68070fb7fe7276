"""What the file format can say and no kernel computes is refused, with the number."""

import pytest

from bridge.errors import BridgeError
from bridge.exact.limits import LIMITS, refuse_beyond_limits
from bridge.exact.schema import OPERATORS
from tests.builders import activation, float_constant, lowered, weight

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


def test_float_operators_have_no_limits():
    refuse_beyond_limits(lowered("Add", activation("x", (1,)), activation("z", (1,)), output=activation("y", (1,))))


def test_limits_are_of_operators_that_we_write():
    assert set(LIMITS) <= set(OPERATORS)
