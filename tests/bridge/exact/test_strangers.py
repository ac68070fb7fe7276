"""Models that another tool quantized: ONNX Runtime's static quantizer, in its own way of writing Q/DQ."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.verifying.verification import verify

SHAPE = (1, 3, 8, 10)


class Noise(CalibrationDataReader):
    """Eight random images."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.batches = iter([{"x": random.normal(size=SHAPE).astype(np.float32)} for _ in range(8)])

    def get_next(self):
        return next(self.batches, None)


def float_model(folder):
    """Conv, Relu, depthwise Conv, Add, MaxPool, Concat, GlobalAveragePool, Flatten, Gemm; no Q/DQ yet."""
    random = np.random.default_rng(1)

    def weight(name, *shape):
        return numpy_helper.from_array((random.normal(size=shape) * 0.3).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="depthwise", pads=[1, 1, 1, 1], group=6),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="sum"),
        helper.make_node("MaxPool", ["a"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sigmoid", ["m"], ["s"], name="gate"),
        helper.make_node("Concat", ["m", "s"], ["cat"], name="cat", axis=1),
        helper.make_node("GlobalAveragePool", ["cat"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="dense", transB=1),
    ]
    constants = [
        weight("w1", 6, 3, 3, 3), weight("b1", 6), weight("w2", 6, 1, 3, 3), weight("b2", 6),
        weight("w3", 4, 12), weight("b3", 4),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "stranger",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        constants,
    )
    path = folder / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(autouse=True)
def quiet_quantizer(caplog):
    """ONNX Runtime's quantizer speaks through the root logger."""
    caplog.set_level(logging.ERROR)


def quantized(folder, **options):
    path = folder / "quantized.onnx"
    settings = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(float_model(folder)), str(path), Noise(), **(settings | options))
    return path


@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per-tensor", "per-channel"])
@pytest.mark.parametrize("reduce_range", [False, True], ids=["full range", "reduced range"])
def test_a_model_that_onnx_runtime_quantized_converts_within_one_lsb(activations, per_channel, reduce_range, tmp_path):
    path = quantized(
        tmp_path,
        activation_type=activations,
        per_channel=per_channel,
        reduce_range=reduce_range,
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": activations == QuantType.QInt8},
    )

    conversion = convert(path)

    inputs = {"x": np.random.default_rng(2).normal(size=(6, *SHAPE[1:])).astype(np.float32)}
    checked = verify(path, conversion.graph, conversion.tflite, inputs)
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    assert max(item.distance.worst for item in checked.operators) <= 1
    assert checked.outputs["xnnpack"]["y"].worst <= 2  # the sigmoid is rounded to its prescribed scale first


def test_its_int32_biases_keep_their_codes(tmp_path):
    path = quantized(tmp_path)
    model = onnx.load(path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    biases = [array for array in stored.values() if array.dtype == np.int32 and array.size > 1]

    graph = convert(path).graph

    written = [
        graph.tensors[node.inputs[2]].values for node in graph.nodes if len(node.inputs) > 2 and "CONV" in node.op
    ]
    assert written
    assert all(any(np.array_equal(codes, bias) for bias in biases) for codes in written)


@pytest.mark.parametrize("quant_format", list(QuantFormat), ids=str)
def test_asymmetric_weights_convert_exactly_at_a_price_that_is_said(quant_format, tmp_path):
    path = quantized(
        tmp_path,
        quant_format=quant_format,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        extra_options={"WeightSymmetric": False},
    )

    conversion = convert(path)

    inputs = {"x": np.random.default_rng(2).normal(size=(6, *SHAPE[1:])).astype(np.float32)}
    checked = verify(path, conversion.graph, conversion.tflite, inputs)
    assert max(item.distance.worst for item in checked.operators) <= 1
    assert any("2 parts" in note.what for note in conversion.notes if note.kind == "parts")


def test_only_some_operators_quantized_is_refused_and_converts_with_float_around(tmp_path):
    path = quantized(tmp_path, op_types_to_quantize=["Conv"])

    with pytest.raises(BridgeError, match=r"has no trained scale \(\d+ tensors"):
        convert(path)
    conversion = convert(path, Options(allow_float=True))

    assert conversion.operators_out["DEQUANTIZE"] >= 1
    assert any(note.kind == "float" for note in conversion.notes)


@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per-tensor", "per-channel"])
def test_the_integer_operator_format_converts_within_one_lsb_too(activations, per_channel, tmp_path):
    path = quantized(tmp_path, quant_format=QuantFormat.QOperator, activation_type=activations, per_channel=per_channel)

    conversion = convert(path)

    inputs = {"x": np.random.default_rng(2).normal(size=(6, *SHAPE[1:])).astype(np.float32)}
    checked = verify(path, conversion.graph, conversion.tflite, inputs)
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    assert max(item.distance.worst for item in checked.operators) <= 1
    assert checked.outputs["xnnpack"]["y"].worst <= 2
