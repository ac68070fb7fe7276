"""Which tensors take the scale of a neighbour, and which must not."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.graph import Node, QParams, per_tensor
from bridge.exact.passes.inherit import inherit
from tests.builders import activation, graph_of, notes, single_node

TRAINED = per_tensor(0.5, 3)
X = activation("x", (1, 2, 4, 4), 0.5, 3)


def parameters(op, *operands, **attrs):
    graph = inherit(single_node(op, *operands, output=activation("y", (1, 2, 4, 4)), **attrs))
    return graph.tensors["y"].qparams, graph


@pytest.mark.parametrize(
    "op", ["MaxPool", "Reshape", "Transpose", "Slice", "Split", "Pad", "Limit", "Gather", "Resize"]
)
def test_a_choice_among_the_inputs_stays_on_their_grid(op):
    qparams, graph = parameters(op, X)
    assert qparams == TRAINED
    assert graph.notes == ()


@pytest.mark.parametrize("op", ["MaxPool", "Limit", "Transpose", "AveragePool", "Pad"])
def test_codes_of_a_scale_for_each_channel_are_handed_on_by_no_operator(op):
    """The channels may be elsewhere behind it; a Relu on a weight that is quantized inside of the graph ended in a TypeError."""
    per_channel = replace(X, qparams=QParams(np.array([0.5, 0.25], np.float32), np.array([0, 0], np.int32), axis=1))
    qparams, graph = parameters(op, per_channel)
    assert qparams is None
    assert graph.notes == ()


@pytest.mark.parametrize(("op", "attrs"), [("AveragePool", {}), ("Mean", {}), ("Resize", {"mode": "linear"})])
def test_an_average_takes_the_scale_of_its_input_and_a_note(op, attrs):
    qparams, graph = parameters(op, X, **attrs)
    assert qparams == TRAINED
    assert [note.where for note in notes(graph, "inherited")] == [f"{op} 'node'"]


@pytest.mark.parametrize(
    ("op", "prescribed"),
    [("Softmax", per_tensor(1 / 256, -128)), ("Sigmoid", per_tensor(1 / 256, -128)), ("Tanh", per_tensor(1 / 128, 0))],
)
def test_an_operator_with_a_prescribed_scale_gets_it_and_a_note(op, prescribed):
    qparams, graph = parameters(op, X)
    assert qparams == prescribed
    assert len(notes(graph, "fixed")) == 1


@pytest.mark.parametrize("op", ["Conv", "Gemm", "Add", "LeakyRelu"])
def test_an_operator_that_computes_gets_nothing(op):
    qparams, _ = parameters(op, X)
    assert qparams is None


def test_a_trained_scale_is_never_replaced():
    graph = inherit(single_node("MaxPool", X, output=activation("y", (1, 2, 2, 2), 0.25)))
    assert graph.tensors["y"].q == per_tensor(0.25, 0)


def test_rounding_moves_backwards_through_a_rearrangement():
    graph = inherit(single_node("Transpose", activation("x", (1, 2)), output=activation("y", (2, 1), 0.5, 3)))
    assert graph.tensors["x"].q == TRAINED


def test_rounding_does_not_move_backwards_through_an_average():
    graph = inherit(single_node("Mean", activation("x", (1, 2)), output=activation("y", (1,), 0.5, 3)))
    assert graph.tensors["x"].qparams is None


def test_rounding_does_not_move_backwards_past_another_reader():
    nodes = [Node("Reshape", "a", ("x",), ("y",)), Node("Erf", "b", ("x",), ("z",))]
    tensors = [activation("x", (2,)), activation("y", (2, 1), 0.5), activation("z", (2,))]
    assert inherit(graph_of(nodes, tensors, ["y", "z"])).tensors["x"].qparams is None


def test_a_concatenation_of_equal_scales_has_that_scale():
    qparams, _ = parameters("Concat", X, activation("z", (1, 2, 4, 4), 0.5, 3))
    assert qparams == TRAINED


def test_a_concatenation_of_different_scales_has_none():
    qparams, _ = parameters("Concat", X, activation("z", (1, 2, 4, 4), 0.25, 3))
    assert qparams is None


def test_a_concatenation_hands_its_scale_to_every_open_input():
    graph = inherit(
        single_node("Concat", activation("a", (1, 2)), activation("b", (1, 2)), output=activation("y", (1, 4), 0.5, 3))
    )
    assert graph.tensors["a"].q == graph.tensors["b"].q == TRAINED


def test_scales_travel_along_a_whole_chain():
    nodes = [Node("Reshape", "a", ("x",), ("t",)), Node("Transpose", "b", ("t",), ("y",))]
    tensors = [X, activation("t", (32,)), activation("y", (32,))]
    assert inherit(graph_of(nodes, tensors, ["y"])).tensors["y"].q == TRAINED
