"""The file as another reader sees it."""

from dataclasses import replace

import numpy as np
import pytest
import tflite
from numpy.testing import assert_array_equal

from bridge.exact.graph import Node
from bridge.exact.writer import write
from bridge.verifying import litert
from compare.tflite.file import read
from tests.builders import activation, graph_of, int32_codes, single_node, weight


def dense(scales=(0.5, 0.25), name="w"):
    return single_node(
        "FULLY_CONNECTED",
        activation("x", (1, 3), 0.1, -3),
        weight(name, [[1, 2, 3], [4, 5, 6]], list(scales)),
        int32_codes("b", [7, -8], [0.05, 0.025]),
        output=activation("y", (1, 2), 0.2, 4),
    )


def test_names_shapes_types_and_parameters_are_read_back():
    file = read(write(dense()), "dense")
    x, w, b, y = file.tensors
    assert [(t.name, t.shape, t.dtype, t.constant) for t in (x, w, b, y)] == [
        ("x", (1, 3), "int8", False),
        ("w", (2, 3), "int8", True),
        ("b", (2,), "int32", True),
        ("y", (1, 2), "int8", False),
    ]
    assert (x.scale, x.zero_point) == ((float(np.float32(0.1)),), (-3,))
    assert (w.scale, w.zero_point) == ((0.5, 0.25), (0, 0))
    assert [(o.name, o.inputs, o.outputs) for o in file.operators] == [("FULLY_CONNECTED", (0, 1, 2), (3,))]


def test_constants_hold_their_codes():
    interpreter = litert.interpreter(write(dense()))
    assert_array_equal(interpreter.get_tensor(1), [[1, 2, 3], [4, 5, 6]])
    assert_array_equal(interpreter.get_tensor(2), [7, -8])


def test_the_axis_of_per_channel_scales_is_written():
    graph = single_node(
        "DEPTHWISE_CONV_2D",
        activation("x", (1, 1, 1, 2), 0.5),
        weight("w", [[[[1, 2]]]], [0.5, 0.25], axis=3),
        int32_codes("b", [0, 0], [0.25, 0.125]),
        output=activation("y", (1, 1, 1, 2), 0.5),
    )
    tensors = tflite.Model.GetRootAsModel(write(graph), 0).Subgraphs(0)
    assert tensors.Tensors(1).Quantization().QuantizedDimension() == 3


def test_the_same_graph_gives_the_same_bytes():
    assert write(dense()) == write(dense())


def test_constant_data_is_aligned_to_16_bytes():
    content = write(dense())
    codes = bytes([1, 2, 3, 4, 5, 6])
    assert content.count(codes) == 1
    assert content.index(codes) % 16 == 0


def test_a_missing_operand_is_minus_one():
    graph = dense()
    node = replace(graph.nodes[0], inputs=("x", "w", ""))
    (operator,) = read(write(replace(graph, nodes=(node,))), "dense").operators
    assert operator.inputs == (0, 1, -1)


def test_the_signature_names_inputs_and_outputs():
    x, y, z = (activation(name, (1, 2), 0.5) for name in ("in", "out", "more"))
    graph = graph_of([Node("RELU", "a", ("in",), ("out",)), Node("RELU6", "b", ("in",), ("more",))], [x, y, z], [])
    content = write(replace(graph, outputs=("out", "more")))
    runner = litert.interpreter(content).get_signature_runner("serving_default")
    result = runner(**{"in": np.array([[-1, 100]], np.int8)})
    assert_array_equal(result["out"], [[0, 100]])
    assert_array_equal(result["more"], [[0, 12]])  # 6.0 at scale 0.5


def test_operator_codes_are_written_twice_for_old_readers():
    code = tflite.Model.GetRootAsModel(write(dense()), 0).OperatorCodes(0)
    assert code.DeprecatedBuiltinCode() == code.BuiltinCode() == tflite.BuiltinOperator.FULLY_CONNECTED
    assert code.Version() == 4


def test_an_option_without_a_place_is_our_defect():
    graph = single_node("RELU", activation("x", (1,), 0.5), output=activation("y", (1,), 0.5), alpha=1.0)
    with pytest.raises(AssertionError, match=r"RELU 'node': \['alpha'\] have no place"):
        write(graph)
