"""Nodes in any order say the same; a graph that reads itself is refused."""

import numpy as np
import onnx
import pytest
from onnx import helper

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from tests.bridge.exact.test_bad_input import small_model


def shuffled(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    nodes = list(model.graph.node)
    order = np.random.default_rng(seed).permutation(len(nodes))
    del model.graph.node[:]
    model.graph.node.extend(nodes[place] for place in order)
    return model


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_the_nodes_gives_the_same_file(seed):
    assert convert(shuffled(small_model(), seed)).tflite == convert(small_model()).tflite


def test_a_model_in_order_keeps_its_nodes_as_they_stand():
    model = small_model()
    before = [node.name for node in model.graph.node]
    convert(model)
    assert [node.name for node in model.graph.node] == before


def test_a_graph_that_reads_itself_is_refused():
    model = small_model()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.input[0] = "again"
    model.graph.node.append(helper.make_node("Identity", [relu.output[0]], ["again"], "round"))
    with pytest.raises(BridgeError, match="before anything wrote it"):
        convert(model)


def test_what_nothing_makes_is_refused_by_name():
    model = shuffled(small_model(), 3)
    next(node for node in model.graph.node if node.op_type == "Relu").input[0] = "nothing"
    with pytest.raises(BridgeError, match="reads 'nothing' before anything wrote it"):
        convert(model)
