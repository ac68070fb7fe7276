"""Models that random drawing once found wrong, each as small as it gets: now within their bounds of ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.exact.convert import convert
from tests.bridge.exact.checking import checked
from tests.bridge.exact.graphs import Builder, Seeded

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

INT8 = np.int8


def pair(scale: float, zero_point: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.float32(scale), INT8(zero_point)


class Model(Builder):
    """A builder whose input is quantized already."""

    def start(self, *shape: int, scale: float = 0.1, zero_point: int = 3) -> str:
        return self.requantize(self.input(*shape, magnitude=scale * 60), pair(scale, zero_point))


@pytest.fixture
def model() -> Model:
    return Model(Seeded(0))


@pytest.fixture
def operators(tmp_path):
    """Check the model that ends in these tensors, and return its TFLite operators."""

    def check(model: Model, *outputs: str) -> list[str]:
        finished = model.finish(outputs)
        outcome = checked(finished, tmp_path / "model.onnx")
        assert outcome.refusal is None
        assert not outcome.too_far
        return [node.op for node in convert(finished.proto).graph.nodes]

    return check


def test_a_clip_after_the_pair_has_real_limits_and_is_no_clip_of_codes(model, operators):
    clipped = model.add("Clip", [model.start(1, 8), model.constant(0.0), model.constant(2.0)])
    assert operators(model, model.requantize(clipped, pair(0.1, 3))) == ["MAXIMUM", "MINIMUM"]


def test_a_limit_outside_the_grid_of_its_input_is_applied_on_the_grid_of_its_output(model, operators):
    clipped = model.add("Clip", [model.start(1, 8, zero_point=127), model.constant(1.0), model.constant(2.0)])
    operators(model, model.requantize(clipped, pair(0.02, -128)))


def test_a_limit_that_saturation_keeps_costs_only_the_rescaling(model, operators):
    relu = model.add("Relu", [model.start(1, 8)])
    assert operators(model, model.requantize(relu, pair(0.05, -128))) == ["ADD"]


def test_a_second_quantization_behind_an_operator_that_does_nothing_is_kept(model, operators):
    again = model.requantize(model.add("Dropout", [model.start(1, 8)]), pair(0.05, 0))
    shaped = model.add("Reshape", [again, model.constant([1, 2, 4], np.int64)])
    assert operators(model, shaped) == ["ADD", "RESHAPE"]


def test_an_output_that_is_only_the_quantized_input_leaves_the_input_its_name(model, operators):
    x = model.start(1, 8)
    same = model.add("Dropout", [x])
    y = model.requantize(model.add("Relu", [x]), pair(0.05, -128))
    operators(model, y, same)
    assert convert(model.finish([y, same]).proto).graph.inputs == ("input0",)


def test_slopes_per_channel_of_a_tensor_that_is_not_channels_last(model, operators):
    x = model.start(2, 3, 4, 4, zero_point=0)
    turned = model.add("Transpose", [x], perm=[0, 1, 3, 2])
    product = model.requantize(model.add("MatMul", [x, turned]), pair(5.0, 0))
    slope = model.constant(np.array([0.1, 0.2, 0.4]).reshape(3, 1, 1))
    operators(model, model.requantize(model.add("PRelu", [product, slope]), pair(5.0, 0)))


def batch_norm(model: Model, x: str, gamma: list[float], beta: list[float]) -> str:
    channels = len(gamma)
    statistics = [gamma, beta, np.zeros(channels), np.ones(channels)]
    return str(model.add("BatchNormalization", [x, *(model.constant(s) for s in statistics)]))


@pytest.mark.parametrize("shape", [(1, 2, 6), (1, 2, 4, 4)])
def test_a_batch_norm_is_fused_into_a_convolution_over_one_axis_too(model, operators, shape):
    x = model.start(*shape)
    weight, scales = model.weight(model.normal(2, 2, *(3,) * (len(shape) - 2)), axis=0)
    normed = batch_norm(model, model.add("Conv", [x, weight]), [0.5, 2.0], [1.0, -1.0])
    made = operators(model, model.quantize(model.add("Relu", [normed]), at_least=0.1 * float(np.max(scales))))
    assert [op for op in made if op not in ("RESHAPE", "TRANSPOSE")] == ["CONV_2D"]


def test_a_channel_whose_batch_norm_factor_is_zero_keeps_its_offset(model, operators):
    x = model.start(1, 2, 4, 4, scale=2.0)
    weight, _ = model.weight(model.normal(2, 2, 1, 1, scale=0.01), axis=0)
    normed = batch_norm(model, model.add("Conv", [x, weight]), [0.0, 1.0], [0.77, 0.1])
    operators(model, model.requantize(normed, pair(0.02, 0)))


def test_a_batch_norm_of_its_own_whose_factor_is_zero_keeps_its_offset(model, operators):
    normed = batch_norm(model, model.start(1, 2, 4, 4, scale=2.0), [0.0, 0.5], [0.77, 0.1])
    operators(model, model.requantize(normed, pair(1.0, 0)))


def test_an_average_with_a_finer_scale_than_its_input_is_a_convolution(model, operators):
    pooled = model.add("AveragePool", [model.start(1, 2, 4, 4)], kernel_shape=[2, 2], strides=[2, 2])
    assert operators(model, model.requantize(pooled, pair(0.01, 0))) == ["DEPTHWISE_CONV_2D"]


def test_padding_with_a_number_beyond_the_input_scale_is_done_at_the_output_scale(model, operators):
    x = model.start(1, 8, zero_point=127)
    padded = model.add("Pad", [x, model.constant([0, 1, 0, 1], np.int64), model.constant(5.0)])
    assert operators(model, model.requantize(padded, pair(0.2, 0))) == ["ADD", "PADV2"]


def test_a_convolution_that_skips_the_end_of_one_axis_is_not_padded_by_same(model, operators):
    weight, _ = model.weight(model.normal(2, 1, 1, 3), axis=0)
    y = model.add("Conv", [model.start(1, 1, 6, 6), weight], kernel_shape=[1, 3], strides=[3, 1], pads=[0, 1, 0, 1])
    assert operators(model, model.requantize(y, pair(0.2, 0))) == ["PAD", "CONV_2D"]


def test_a_transposed_convolution_with_fewer_outputs_than_one_stride_does_not_end_the_process(model, operators):
    weight, _ = model.weight(model.normal(1, 3, 1, 3), axis=1)
    y = model.add("ConvTranspose", [model.start(1, 1, 1, 1), weight], strides=[1, 3], pads=[0, 1, 0, 1])
    assert operators(model, model.requantize(y, pair(0.2, 0))) == ["TRANSPOSE_CONV", "SLICE"]


def test_a_six_that_the_activation_cannot_count_to_is_a_plain_relu(model, operators):
    product = model.add("Mul", [model.start(1, 8, scale=1e-10), model.constant(2.0)])
    limited = model.add("Clip", [product, model.constant(0.0), model.constant(6.0)])
    assert operators(model, model.requantize(limited, pair(1e-10, -128))) == ["MUL"]


def test_a_pool_in_ceil_mode_leaves_out_a_window_that_starts_in_the_padding(model, operators):
    x = model.start(1, 2, 4, 3)
    attrs = {"kernel_shape": [1, 4], "strides": [2, 1], "pads": [0, 2, 0, 2], "ceil_mode": 1}
    operators(model, model.requantize(model.add("MaxPool", [x], **attrs), pair(0.1, 3)))
