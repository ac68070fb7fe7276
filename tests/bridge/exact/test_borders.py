"""What the caller hands in and gets back."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.borders import with_io
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Node
from bridge.verifying.litert import KERNELS, Runner
from bridge.verifying.verification import verify
from tests.builders import Pair, activation, graph_of, ops, qdq_model

X, Y = activation("x", (1, 4), 0.5, 3), activation("y", (1, 4), 0.25, -7)
GRAPH = graph_of([Node("LEAKY_RELU", "node", ("x",), ("y",), {"alpha": 0.5})], [X, Y], ["y"])


def test_int8_leaves_the_graph_as_it_is():
    assert with_io(GRAPH, "int8") is GRAPH


def test_uint8_has_the_same_scale_and_a_zero_point_128_higher():
    graph = with_io(GRAPH, "uint8")
    assert ops(graph) == ["QUANTIZE", "LEAKY_RELU", "QUANTIZE"]
    x, y = graph.tensors["x"], graph.tensors["y"]
    assert (x.dtype, str(x.q)) == (np.uint8, "scale 0.5, zero point 131")
    assert (y.dtype, str(y.q)) == (np.uint8, "scale 0.25, zero point 121")


def test_float32_quantizes_on_the_way_in_and_dequantizes_on_the_way_out():
    graph = with_io(GRAPH, "float32")
    assert ops(graph) == ["QUANTIZE", "LEAKY_RELU", "DEQUANTIZE"]
    assert graph.tensors["x"].qparams is None
    assert graph.tensors["x/int8"].q == X.q


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_names_of_inputs_and_outputs_stay(dtype):
    graph = with_io(GRAPH, dtype)
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))


def test_a_float_input_stays_float():
    floating = graph_of([Node("QUANTIZE", "q", ("f",), ("y",))], [activation("f", (1, 4)), Y], ["y"])
    assert ops(with_io(floating, "uint8")) == ["QUANTIZE", "QUANTIZE"]
    assert with_io(floating, "uint8").tensors["f"].dtype == np.float32


def test_an_input_that_two_operators_read_is_quantized_once():
    nodes = [Node("RELU", "a", ("x",), ("y",)), Node("RELU6", "b", ("x",), ("z",))]
    graph = graph_of(nodes, [X, Y, activation("z", (1, 4), 0.5, 3)], ["y", "z"])
    assert ops(with_io(graph, "uint8")).count("QUANTIZE") == 3  # one in, two out


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_all_three_give_the_same_numbers(kernels):
    model = qdq_model(
        ("LeakyRelu", "x", "y", {"alpha": 0.5}),
        inputs={"x": (1, 4)},
        pairs={"x": Pair(0.5, 3), "y": Pair(0.5, -7)},
        outputs="y",
    )
    codes = np.array([[-128, 0, 3, 100]], np.int8)

    def run(io, x):
        return Runner(convert(model, Options(io=io)).tflite, kernels)({"x": x})["y"]

    as_int8 = run("int8", codes)
    assert_array_equal(run("uint8", (codes.astype(np.int16) + 128).astype(np.uint8)), as_int8.astype(np.int16) + 128)
    real = (codes.astype(np.float32) - 3) * np.float32(0.5)
    assert_array_equal(run("float32", real), (as_int8.astype(np.float32) + 7) * np.float32(0.5))


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_an_input_that_is_an_output_too_comes_out_rounded(io, tmp_path):
    """In float32 the file handed the caller's own numbers on, unrounded and unclamped."""
    model = qdq_model(
        ("Relu", "x", "y"), inputs={"x": (1, 4)}, pairs={"x": Pair(0.5, 3), "y": Pair(0.5, 3)}, outputs="y"
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("x_quantized", onnx.TensorProto.FLOAT, [1, 4]))
    onnx.save(model, tmp_path / "model.onnx")
    done = convert(tmp_path / "model.onnx", Options(io=io))
    x = {"x": np.array([[0.3, -0.2, 1000, -1000]], np.float32)}

    found = verify(tmp_path / "model.onnx", done.graph, done.tflite, x)

    assert [apart.worst for apart in found.outputs["xnnpack"].values()] == [0, 0]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("io", "codes"), [("int8", [4, -2]), ("uint8", [132, 126]), ("float32", [2.0, -1.0])])
def test_an_output_that_is_a_constant_is_there_too(io, codes, kernels):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["y"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["k"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.int8(0), "z"),
        numpy_helper.from_array(np.array([4, -2], np.int8), "c"),
    ]  # fmt: skip
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in
              (("x", [1, 4]), ("y", [1, 4]), ("k", [2]))}  # fmt: skip
    graph = helper.make_graph(nodes, "constant", [values["x"]], [values["y"], values["k"]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    conversion = convert(model, Options(io=io))

    dtype = conversion.graph.tensors["x"].dtype
    assert Runner(conversion.tflite, kernels)({"x": np.zeros((1, 4), dtype)})["k"].tolist() == codes


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_a_model_that_only_rounds_is_refused_whatever_its_inputs_are(io):
    model = qdq_model(("Identity", "x", "y"), inputs={"x": (1, 4)}, pairs={"x": Pair(0.5, 3)}, outputs="y")
    with pytest.raises(BridgeError, match="hands its input on without computing anything"):
        convert(model, Options(io=io))
