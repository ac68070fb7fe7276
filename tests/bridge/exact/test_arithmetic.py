"""Rounding, saturation and derived scales, against numbers one can do in the head."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.exact.arithmetic import bias_scale, code_of, dequantize, missed, quantize, quantize_bias, quantize_constant
from bridge.exact.graph import QParams, per_tensor


def real(*values):
    return np.array(values, np.float32)


def test_quantize_rounds_halves_to_even():
    assert_array_equal(quantize(real(0.5, 1.5, 2.5, -0.5, -1.5), per_tensor(1.0, 0)), [0, 2, 2, 0, -2])


def test_quantize_rounds_before_it_adds_the_zero_point():
    assert_array_equal(quantize(real(0.5, 1.5), per_tensor(1.0, 1)), [1, 3])


def test_quantize_saturates_at_int8():
    assert_array_equal(quantize(real(-1000, 1000), per_tensor(0.5, 0)), [-128, 127])


def test_quantize_saturates_at_a_trained_clamp():
    assert_array_equal(quantize(real(-1000, 1000), per_tensor(0.5, 0, 0, 100)), [0, 100])


def test_quantize_uses_the_scale_of_each_channel():
    qparams = QParams(real(0.5, 0.25), np.zeros(2, np.int32), 1)
    assert_array_equal(quantize(np.ones((1, 2), np.float32), qparams), [[2, 4]])


def test_dequantize_undoes_quantize_on_the_grid():
    codes = np.arange(-128, 128, dtype=np.int8)
    qparams = per_tensor(0.1, -3)
    assert_array_equal(quantize(dequantize(codes, qparams), qparams), codes)


def test_bias_scale_is_the_float32_product():
    scale = bias_scale(np.float32(0.1), real(0.3, 0.7))
    assert scale.dtype == np.float32
    assert_array_equal(scale, np.float32(0.1) * real(0.3, 0.7))


def test_a_bias_is_rounded_half_to_even():
    assert_array_equal(quantize_bias(real(0.25, 0.75, -0.25, -1.25), np.float32(0.5)), [0, 2, 0, -2])


def test_a_bias_beyond_int32_is_still_beyond_int32():
    codes = quantize_bias(real(1, -1, 1, -1), real(2**-40, 2**-40, 1e-30, 1e-30))
    assert_array_equal(codes[:2], [2**40, -(2**40)])
    assert codes[2] > 2**31
    assert codes[3] < -(2**31)


@pytest.mark.parametrize(
    ("values", "codes", "said"),
    [
        ([1.27, -0.02, 0.0], [127, -2, 0], "scale 0.0099999998, zero point 0"),  # the largest magnitude
        ([0.5, -1.5, 4.0], [1, -3, 8], "scale 0.5, zero point 0"),  # multiples of the smallest
        ([0.0, 5.1, 1.0], [-128, 127, -78], "scale 0.02, zero point -128"),  # both ends: half the step
    ],
)
def test_a_derived_constant_takes_the_scale_that_misses_it_least(values, codes, said):
    found, qparams = quantize_constant(real(*values))
    assert_array_equal(found, codes)
    assert str(qparams) == said


def test_a_derived_constant_has_no_zero_point_where_none_is_wanted():
    codes, qparams = quantize_constant(real(0.0, 2.54, 1.0), symmetric=True)
    assert_array_equal(codes, [0, 127, 50])
    assert str(qparams) == "scale 0.02, zero point 0"


def test_what_codes_miss_begins_beyond_the_last_bits_of_float32():
    assert missed(real(0.3), np.array([1], np.int8), per_tensor(0.3, 0)) == 0.0
    assert missed(real(0.75), np.array([1], np.int8), per_tensor(0.5, 0)) == 0.25


def test_a_constant_of_zeros_has_a_usable_scale():
    codes, qparams = quantize_constant(real(0, 0))
    assert_array_equal(codes, [0, 0])
    assert qparams == per_tensor(1.0, 0)


@pytest.mark.parametrize(("value", "code"), [(0.0, -3), (1.0, 7), (100.0, 127)])
def test_code_of_a_limit_is_the_nearest_code(value, code):
    assert code_of(value, per_tensor(0.1, -3)) == code
