"""An operator without weights that a file lost: the gate stops where the given inputs show it."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.convert import convert
from compare.explaining.verdict import judge
from compare.mismatches.parts.operator_edits import edited
from compare.subjects.case import Case


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def model(*operators, extra=()):
    """x (1, 5) at 0.5 -> Q/DQ -> these operators -> Q/DQ at 0.5."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["t0"]),
        *operators,
        helper.make_node("QuantizeLinear", [f"t{len(operators)}", "s", "z"], ["qy"]),
        helper.make_node("DequantizeLinear", ["qy", "s", "z"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 5])],
        [value("y", TensorProto.FLOAT, [1, 5])],
        [constant("s", 0.5), constant("z", 0, np.int8), constant("low", -1.5), constant("high", 1.5), *extra],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


RELU = helper.make_node("Relu", ["t0"], ["t1"])
CLIP = helper.make_node("Clip", ["t0", "low", "high"], ["t1"])
DOUBLED = helper.make_node("Add", ["t0", "t0"], ["t1"])
INPUTS = {"x": np.linspace(-4, 4, 40).astype(np.float32).reshape(8, 5)}


def without_last(content):
    """The file with its last operator taken out; the output is what that operator read."""

    def change(_, main):
        last = main.operators.pop()
        main.outputs = [last.inputs[0]]

    return edited(content, change)


@pytest.mark.parametrize("operators", [(RELU,), (CLIP,), (DOUBLED, helper.make_node("Relu", ["t1"], ["t2"]))])
def test_a_lost_operator_stops_the_gate(operators):
    made = model(*operators)
    right = convert(made).tflite
    case = Case(onnx=made.SerializeToString(), tflite=right, inputs=INPUTS)
    assert not judge(case).fails
    assert judge(Case(onnx=made.SerializeToString(), tflite=without_last(right), inputs=INPUTS)).fails
