"""One sentence for an operator that nothing is written for, whichever step finds it."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Node
from bridge.exact.unwritten import refuse_left, refuse_unread
from tests.builders import activation, float_constant, graph_of, single_node

X, Y = activation("x", (1,), 0.5), activation("y", (1,), 0.5)
SENTENCE = r"node 'node' \({}\): the exact bridge cannot write this operator"


@pytest.mark.parametrize("op", ["Erf", "Ceil", "Mean", "Limit"])
def test_what_no_file_may_ask_for_is_refused_before_any_pass(op):
    """Ceil is computed from constants only; Mean and Limit are made by passes, and ONNX means something else by Mean."""
    with pytest.raises(BridgeError, match=SENTENCE.format(op)):
        refuse_unread(single_node(op, X, output=Y))


def test_branches_of_constants_are_left_to_the_passes():
    node = Node("Erf", "node", ("c",), ("y",))
    refuse_unread(graph_of([node], [float_constant("c", [1.0]), Y], ("y",)))


@pytest.mark.parametrize("op", ["Erf", "Cast", "Ceil"])
def test_what_is_left_behind_the_pairs_is_refused(op):
    with pytest.raises(BridgeError, match=SENTENCE.format(op)):
        refuse_left(single_node(op, X, output=Y))


@pytest.mark.parametrize("op", ["Relu", "Limit", "Mean", "Conv"])
def test_what_is_spelled_otherwise_or_made_by_a_pass_goes_on(op):
    graph = single_node(op, X, output=Y)
    assert refuse_left(graph) is graph


@pytest.mark.parametrize("allow_float", [False, True])
def test_an_operator_of_constants_that_nothing_computes_is_refused_by_name(allow_float):
    """And not for the scale that it lacks: no scale would help."""
    nodes = [helper.make_node("Erf", ["c"], ["e"], "node"), helper.make_node("Add", ["x", "e"], ["y"], "add")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2,)) for name in "xy"]
    constants = [numpy_helper.from_array(np.float32([1, 2]), "c")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(BridgeError, match=SENTENCE.format("Erf")):
        convert(model, Options(allow_float=allow_float))
