"""TF-MOT's two uses: what becomes quantization-aware, and which scales training decided."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from keras_side.network import build_network
from keras_side.qat import (
    activation_ranges,
    activation_scales,
    output_scale,
    quantization_of_range,
    quantize_dense_only,
    quantize_whole,
    start_ranges,
)
from keras_side.training import measure_ranges


def aware_layers(model):
    return [layer.name for layer in model.layers if layer.name.startswith("quant")]


def test_ordinary_use_wraps_every_layer_and_quantizes_three_activations():
    model = quantize_whole(build_network(0))
    input_layer, *others = aware_layers(model)
    assert input_layer.startswith("quantize_layer")  # numbered from the second model of a process on
    assert others == ["quant_reshape", "quant_conv", "quant_pool", "quant_flatten", "quant_dense"]
    assert list(activation_ranges(model)) == ["input", "conv", "dense"]


def test_dense_only_use_leaves_the_convolution_float_and_the_input_of_dense_without_a_range():
    model = quantize_dense_only(build_network(0))
    assert aware_layers(model) == ["quant_flatten", "quant_dense"]
    assert list(activation_ranges(model)) == ["dense"]


def test_a_float_model_has_no_scales():
    model = build_network(0)
    assert activation_scales(model) == {}
    assert output_scale(model) is None


def test_untrained_ranges_are_minus_six_to_six_except_the_inputs_which_is_empty():
    ranges = activation_ranges(quantize_whole(build_network(0)))
    assert ranges == {"input": (0.0, 0.0), "conv": (-6.0, 6.0), "dense": (-6.0, 6.0)}


def test_scales_of_a_model_that_was_never_trained_are_refused():
    with pytest.raises(BridgeError, match=r"range \[0.0, 0.0\]: must contain zero and be wider than zero"):
        activation_scales(quantize_whole(build_network(0)))


def test_training_leaves_half_of_the_codes_after_the_relu_unused(trained_qat):
    scales = activation_scales(trained_qat)
    assert scales["input"] == (float(np.float32(1 / 255)), -128)
    assert scales["conv"][1] > -10  # -128 would be the zero point of a range that starts at zero
    assert output_scale(trained_qat) == scales["dense"][0]


def test_measured_ranges_use_all_codes_from_the_first_step(trained, digits):
    model = quantize_whole(trained)
    start_ranges(model, measure_ranges(trained, digits[0]))
    scales = activation_scales(model)
    assert scales["input"] == (float(np.float32(1 / 255)), -128)
    assert scales["conv"][1] == -128


def test_starting_ranges_without_one_of_the_layers_are_refused():
    with pytest.raises(BridgeError, match=r"has none for \['conv', 'dense'\] \(given: \['input'\]\)"):
        start_ranges(quantize_whole(build_network(0)), {"input": (0.0, 1.0)})


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, -128),
        (-128.0, 127.0, 1.0, 0),
        (-255.0, 0.0, 1.0, 127),
        (-100.4, 154.6, 1.0, -28),  # -100.4 is moved to -100
        (-1.0, 0.275, 0.005, 72),
    ],
)
def test_a_range_becomes_scale_and_zero_point(low, high, scale, zero_point):
    assert quantization_of_range(low, high) == (pytest.approx(scale, rel=1e-6), zero_point)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_a_range_that_is_empty_or_without_zero_is_refused(low, high):
    with pytest.raises(BridgeError, match="must contain zero and be wider than zero"):
        quantization_of_range(low, high)


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")  # said of every fake-quantized model
def test_the_rule_for_ranges_is_the_converters_own_to_the_last_bit():
    """One graph with 200 random fake-quantizations, converted: every scale and zero point must be the computed one."""
    import tensorflow as tf

    drawn = np.random.default_rng(0).uniform(0.01, 20.0, (200, 2)).astype(np.float32)
    ranges = [(-float(low), float(high)) for low, high in drawn]

    def all_fake_quantized(x):
        return [tf.quantization.fake_quant_with_min_max_args(x, low, high) for low, high in ranges]

    function = tf.function(all_fake_quantized).get_concrete_function(tf.TensorSpec((1, 4), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    written = written_quantizations(converter.convert())
    assert_array_equal(sorted(written), sorted({quantization_of_range(low, high) for low, high in ranges}))


def written_quantizations(content):
    """Every (scale, zero point) in a .tflite."""
    import tflite

    subgraph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    parameters = [subgraph.Tensors(index).Quantization() for index in range(subgraph.TensorsLength())]
    return {(float(q.Scale(0)), int(q.ZeroPoint(0))) for q in parameters if q is not None and q.ScaleLength()}
