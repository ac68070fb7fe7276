"""Dense layers with a scale for each channel as 1x1 convolutions: the same codes, up to the kernels' own rounding."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bridge.__main__ import app
from bridge.exact.convert import Options, convert
from bridge.verifying.litert import Runner


def model(*, per_channel: bool):
    """x (2, 6) -> Q/DQ -> Gemm + Relu -> Q/DQ -> y (2, 4)."""
    random = np.random.default_rng(0)
    scale = np.array([1 / 64, 1 / 128, 1 / 32, 1 / 100] if per_channel else 1 / 64, np.float32)
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("sx", 1 / 32), ("sy", 1 / 16))
    ]
    constants += [
        numpy_helper.from_array(np.array(-128, np.int8), "z"),
        numpy_helper.from_array(scale, "sw"),
        numpy_helper.from_array(np.zeros(scale.shape, np.int8), "zw"),
        numpy_helper.from_array(random.integers(-127, 128, (4, 6)).astype(np.int8), "w"),
        numpy_helper.from_array(np.array([0.5, -1, 2, 0], np.float32), "b"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0 if per_channel else None),
        helper.make_node("Gemm", ["xd", "wd", "b"], ["g"], transB=1, name="dense"),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sy", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(("kernels", "apart"), [("xnnpack", 0), ("reference", 1)])
def test_the_convolution_gives_the_codes_of_the_dense_layer(kernels, apart):
    """The reference kernels of the two operators do not round alike."""
    dense = convert(model(per_channel=True))
    convolution = convert(model(per_channel=True), Options(per_channel_dense="CONV_2D"))
    assert dict(convolution.operators_out) == {"RESHAPE": 2, "CONV_2D": 1}

    random = np.random.default_rng(1)
    for _ in range(20):
        codes = {"x": random.integers(-128, 128, (2, 6)).astype(np.int8)}
        one, other = (Runner(each.tflite, kernels)(codes)["y"].astype(int) for each in (dense, convolution))
        assert np.abs(one - other).max() <= apart


def test_a_dense_layer_with_one_scale_stays_one():
    conversion = convert(model(per_channel=False), Options(per_channel_dense="CONV_2D"))
    assert dict(conversion.operators_out) == {"FULLY_CONNECTED": 1}


def test_the_command_takes_the_option(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(model(per_channel=True).SerializeToString())
    done = CliRunner().invoke(app, [str(tmp_path / "m.onnx"), "--per-channel-dense", "conv", "--json"])
    assert done.exit_code == 0, done.output
    assert "CONV_2D" in done.stdout
