"""The small QDQ ONNX model that reproductions vary: one convolution with ReLU, trained scales, a bias."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.verifying.onnx_runtime import outputs, session
from compare.subjects.case import Case

SHAPE = (1, 2, 6, 6)
"""Of the input: no two of C, H and W are alike but H and W, so that no converter has to guess the layout."""
CHANNELS = 4


def _weights(colours: int) -> np.ndarray:
    """int8 codes (4, colours, 3, 3) without -128, both signs in each channel."""
    return np.random.default_rng(3).integers(-120, 121, (CHANNELS, colours, 3, 3)).astype(np.int8)


def conv_relu(
    *,
    seven_bit: bool = False,
    int32_bias: bool = False,
    per_channel: bool = False,
    weights: np.ndarray | None = None,
    weight_zero: int = 0,
    colours: int = SHAPE[1],
) -> bytes:
    """x -> Q/DQ -> Conv -> Relu -> Q/DQ -> y with trained scales 1/64 and 1/16.

    `seven_bit`: with the Clip at 127 that `reduce_range` exports; `int32_bias`: the bias behind a DequantizeLinear, as
    in a converted PyTorch model; `per_channel`: weights with a scale for each channel; `colours`: channels of the
    input.
    """
    codes = _weights(colours) if weights is None else weights
    bias = np.array([0.5, -0.25, 1.0, -1.0], np.float32)
    scales = {"sx": 1 / 64, "sy": 1 / 16, "sw": [1 / 256, 1 / 512, 1 / 128, 1 / 384] if per_channel else 1 / 256}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in scales.items()]
    constants += [
        numpy_helper.from_array(np.array(0, np.uint8), "z"),
        numpy_helper.from_array(np.full(CHANNELS if per_channel else (), weight_zero, np.int8), "zw"),
        numpy_helper.from_array(codes, "w"),
    ]
    nodes = [helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["weight"], axis=0 if per_channel else None)]
    nodes += _pair("x", "x_q", "sx", seven_bit)
    if int32_bias:
        step = np.array(scales["sx"] * np.asarray(scales["sw"]), np.float32)
        constants += [
            numpy_helper.from_array(np.rint(bias / step).astype(np.int32), "b"),
            numpy_helper.from_array(step, "sb"),
            numpy_helper.from_array(np.array(0, np.int32), "zb"),
        ]
        nodes.append(helper.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bias"]))
    else:
        constants.append(numpy_helper.from_array(bias, "bias"))
    nodes += [
        helper.make_node("Conv", ["x_q", "weight", "bias"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        *_pair("r", "y", "sy", seven_bit),
    ]
    if seven_bit:
        constants.append(numpy_helper.from_array(np.array(127, np.uint8), "top"))
    graph = helper.make_graph(
        nodes,
        "conv_relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, colours, *SHAPE[2:]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, CHANNELS, 4, 4))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def _pair(source: str, target: str, scale: str, clip: bool) -> list[onnx.NodeProto]:
    nodes = [helper.make_node("QuantizeLinear", [source, scale, "z"], [f"{source}_codes"])]
    codes = f"{source}_codes"
    if clip:
        nodes.append(helper.make_node("Clip", [codes, "", "top"], [f"{source}_clipped"]))
        codes = f"{source}_clipped"
    return [*nodes, helper.make_node("DequantizeLinear", [codes, scale, "z"], [target])]


def samples(count: int = 32, colours: int = SHAPE[1]) -> np.ndarray:
    """float32 (count, colours, 6, 6) over the trained input range 0 to 255/64, with a few values beyond it."""
    return np.random.default_rng(5).uniform(0.0, 4.2, (count, colours, *SHAPE[2:])).astype(np.float32)


def calibration_of(case: Case) -> np.ndarray:
    """What onnx2tf is to calibrate with, (N, H, W, C): the case's own calibration data, else its inputs.

    Raises `BridgeError` for a case that has neither, or several inputs.
    """
    if case.calibration is not None:
        return case.calibration
    if case.inputs is None or len(case.inputs) != 1:
        raise BridgeError(
            where="onnx2tf",
            problem="cannot convert again without calibration data for its one input",
            remedy="Pass the data it was calibrated with (--calibration).",
        )
    (inputs,) = case.inputs.values()
    return inputs.transpose(0, 2, 3, 1)


def through_onnx2tf(content: bytes, calibration: np.ndarray | None = None) -> bytes:
    """The int8 .tflite that onnx2tf 1.x and TensorFlow's converter make of an ONNX model with one input.

    `calibration` is (N, H, W, C); without it, `samples`.
    """
    data = samples().transpose(0, 2, 3, 1) if calibration is None else calibration
    return _through_onnx2tf(content, data.shape, np.ascontiguousarray(data, np.float32).tobytes())


@cache
def _through_onnx2tf(content: bytes, shape: tuple[int, ...], calibration: bytes) -> bytes:
    from bridge import via_onnx2tf

    (name,) = [value.name for value in onnx.load_from_string(content).graph.input]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.onnx"
        path.write_bytes(content)
        data = np.frombuffer(calibration, np.float32).reshape(shape)
        return via_onnx2tf.convert(path, name, data, Path(folder))


@cache
def through_exact(content: bytes) -> bytes:
    """The .tflite of the exact bridge."""
    from bridge.exact.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        return convert(path).tflite


def largest_difference(tflite: bytes, content: bytes) -> float:
    """How far a .tflite's outputs are from ONNX Runtime's on `samples`, in steps of the trained output scale 1/16."""
    from compare.measuring.drift import trace_tflite

    (expected,) = outputs(session(content), {"x": samples()})
    traced = trace_tflite(tflite, [samples().transpose(0, 2, 3, 1)])
    found = traced.values[traced.graph.outputs[0]].reshape(len(expected), 4, 4, CHANNELS).transpose(0, 3, 1, 2)
    return float(np.abs(found - expected).max() * 16)
