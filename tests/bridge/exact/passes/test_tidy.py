"""Reshapes that do nothing go; of two in a row the second reads the first's input."""

from bridge.exact.graph import Node
from bridge.exact.passes.tidy import tidy
from tests.builders import activation, graph_of, ops


def reshape(source, target):
    return Node("Reshape", target, (source,), (target,))


def test_a_reshape_to_the_same_shape_is_gone():
    tensors = [activation("x", (1, 4), 0.5), activation("t", (1, 4), 0.5), activation("y", (1, 4), 0.5)]
    graph = tidy(graph_of([reshape("x", "t"), Node("Relu", "r", ("t",), ("y",))], tensors, ["y"]))
    assert [(node.op, node.inputs) for node in graph.nodes] == [("Relu", ("x",))]


def test_a_reshape_that_changes_the_scale_stays():
    tensors = [activation("x", (1, 4), 0.5), activation("t", (1, 4), 0.25), activation("y", (1, 4), 0.25)]
    graph = graph_of([reshape("x", "t"), Node("Relu", "r", ("t",), ("y",))], tensors, ["y"])
    assert ops(tidy(graph)) == ["Reshape", "Relu"]


def test_an_output_takes_over_the_tensor_it_only_renames():
    tensors = [activation("x", (1, 4), 0.5), activation("t", (1, 4), 0.5), activation("y", (1, 4), 0.5)]
    graph = tidy(graph_of([Node("Relu", "r", ("x",), ("t",)), reshape("t", "y")], tensors, ["y"]))
    assert [(node.op, node.outputs) for node in graph.nodes] == [("Relu", ("y",))]


def test_an_input_that_is_only_renamed_is_copied():
    tensors = [activation("x", (1, 4), 0.5), activation("y", (1, 4), 0.5)]
    assert ops(tidy(graph_of([reshape("x", "y")], tensors, ["y"]))) == ["Reshape"]


def test_of_two_reshapes_one_is_left():
    tensors = [activation("x", (1, 4), 0.5), activation("t", (2, 2), 0.5), activation("y", (4, 1), 0.5)]
    graph = tidy(graph_of([reshape("x", "t"), reshape("t", "y")], tensors, ["y"]))
    assert [(node.op, node.inputs, node.outputs) for node in graph.nodes] == [("Reshape", ("x",), ("y",))]


def test_a_reshape_and_back_leaves_nothing():
    tensors = [
        activation(name, shape, 0.5) for name, shape in (("x", (1, 4)), ("t", (2, 2)), ("u", (1, 4)), ("y", (1, 4)))
    ]
    graph = graph_of([reshape("x", "t"), reshape("t", "u"), Node("Relu", "r", ("u",), ("y",))], tensors, ["y"])
    assert [(node.op, node.inputs) for node in tidy(graph).nodes] == [("Relu", ("x",))]
