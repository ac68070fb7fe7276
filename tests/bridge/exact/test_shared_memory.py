"""Memory that LiteRT writes over too early: each case is wrong as it stands, and right as the bridge writes it."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.graph import Graph, Node, constant, per_tensor
from bridge.exact.shared_memory import kept_apart
from bridge.exact.writer import write
from bridge.verifying.litert import interpreter
from tests.builders import activation

X = np.arange(12, dtype=np.int8).reshape(2, 6) * 5


def numbers(name, values):
    return constant(name, np.array(values, np.int32))


def row(op="ADD"):
    """x -> RELU h -> RESHAPE r -> RESHAPE s -> `op` m -> RELU y; and MEAN z of r, after `op`."""
    tensors = [
        activation("x", (2, 6), 1.0, 0), activation("h", (2, 6), 1.0, 0), activation("r", (12,), 1.0, 0),
        activation("s", (3, 4), 1.0, 0), activation("m", (3, 4), 3.0, 0), activation("y", (3, 4), 3.0, 0),
        activation("z", (1,), 1.0, 0), numbers("flat", [12]), numbers("square", [3, 4]), numbers("axes", [0]),
        constant("zero", np.zeros((), np.int8), per_tensor(1.0, 0)),
    ]  # fmt: skip
    nodes = (
        Node("RELU", "relu", ("x",), ("h",)),
        Node("RESHAPE", "flatten", ("h", "flat"), ("r",)),
        Node("RESHAPE", "fold", ("r", "square"), ("s",)),
        Node(op, "sum", ("s", "zero"), ("m",), {"fused_activation": "NONE"}),
        Node("MEAN", "mean", ("r", "axes"), ("z",), {"keep_dims": True}),
        Node("RELU", "last", ("m",), ("y",)),
    )
    return Graph(nodes, {tensor.name: tensor for tensor in tensors}, ("x",), ("y", "z"))


def behind_a_sum(op="ADD", options=None, scale=3.0, zero_point=0):
    """x -> RELU a -> ADD h -> RESHAPE r -> `op` m -> RELU y; and RELU z of h, after `op`."""
    operands = ("r",) if op == "SOFTMAX" else ("r", "zero")
    tensors = [
        *(activation(name, (2, 6), 1.0, 0) for name in "xahz"), activation("r", (3, 4), 1.0, 0),
        *(activation(name, (3, 4), scale, zero_point) for name in "my"), numbers("square", [3, 4]),
        constant("zero", np.zeros((), np.int8), per_tensor(1.0, 0)),
    ]  # fmt: skip
    nodes = (
        Node("RELU", "relu", ("x",), ("a",)),
        Node("ADD", "first", ("a", "zero"), ("h",), {"fused_activation": "NONE"}),
        Node("RESHAPE", "fold", ("h", "square"), ("r",)),
        Node(op, "op", operands, ("m",), options or {"fused_activation": "NONE"}),
        Node("RELU", "again", ("h",), ("z",)),
        Node("RELU", "last", ("m",), ("y",)),
    )
    return Graph(nodes, {tensor.name: tensor for tensor in tensors}, ("x",), ("y", "z"))


BEHIND = {
    "row ADD": (row("ADD"), [28]),  # 27.5
    "row SUB": (row("SUB"), [28]),
    "row MUL": (row("MUL"), [28]),
    "sum ADD": (behind_a_sum("ADD"), X.tolist()),
    "sum SUB": (behind_a_sum("SUB"), X.tolist()),
    "sum MUL": (behind_a_sum("MUL"), X.tolist()),
    "sum SOFTMAX": (behind_a_sum("SOFTMAX", {"beta": 1.0}, 1 / 256, -128), X.tolist()),
}


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("name", BEHIND)
def test_a_tensor_that_is_still_to_be_read_keeps_its_codes(name, kernels):
    graph, wanted = BEHIND[name]
    assert read_later(kept_apart(graph), kernels) == wanted


@pytest.mark.parametrize("name", BEHIND)
def test_litert_still_writes_over_it(name):
    """When this fails, LiteRT has mended it: shared_memory.py can go."""
    graph, wanted = BEHIND[name]
    assert read_later(graph, "reference") != wanted


def read_later(graph, kernels):
    ready = interpreter(write(graph), kernels)
    ready.set_tensor(ready.get_input_details()[0]["index"], X)
    ready.invoke()
    found = {detail["name"]: ready.get_tensor(detail["index"]) for detail in ready.get_output_details()}
    return found["z"].tolist()


def test_no_other_operator_of_ours_writes_over_its_operand():
    """Every operator that the bridge writes with one operand and an output of its size, in the place of the sum."""
    options = {"LEAKY_RELU": {"alpha": 0.5}}
    for op in sorted({"QUANTIZE", "RELU", "RELU6", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "TANH"}):
        scale = {"LOGISTIC": 1 / 256, "TANH": 1 / 128}.get(op, 3.0)
        graph = behind_a_sum("SOFTMAX", None, scale, -128 if op == "LOGISTIC" else 0)
        attrs = options.get(op, {})
        nodes = tuple(replace(node, op=op, attrs=attrs) if node.name == "op" else node for node in graph.nodes)
        assert read_later(replace(graph, nodes=nodes), "reference") == X.tolist(), op


def test_every_reshape_reads_the_root_and_a_middle_that_nobody_reads_is_gone():
    graph = row()
    unread = replace(graph, nodes=tuple(node for node in graph.nodes if node.op != "MEAN"), outputs=("y",))
    made = kept_apart(unread)
    assert [(node.op, node.inputs[0]) for node in made.nodes] == [
        ("RELU", "x"),
        ("RESHAPE", "h"),
        ("ADD", "s"),
        ("RELU", "m"),
    ]
    assert "r" not in made.tensors


def test_another_view_of_what_lies_between_counts_too():
    """h is read no more, but v, a RESHAPE of it, is."""
    graph = behind_a_sum()
    tensors = {**graph.tensors, **{t.name: t for t in (activation("v", (12,), 1.0, 0), numbers("flat", [12]))}}
    tensors["z"] = activation("z", (12,), 1.0, 0)
    nodes = list(graph.nodes)
    nodes.insert(2, Node("RESHAPE", "view", ("h", "flat"), ("v",)))
    nodes[5] = replace(nodes[5], inputs=("v",))
    made = kept_apart(replace(graph, nodes=tuple(nodes), tensors=tensors))
    assert [node.op for node in made.nodes].count("MAXIMUM") == 1
    assert read_later(made, "reference") == X.reshape(-1).tolist()


def test_what_a_copy_went_into_is_kept_apart_again():
    """m, made of the copy of r, is handed on by a RESHAPE to another sum, and read after that."""
    graph = behind_a_sum()
    tensors = [*(activation(name, (2, 6), 3.0, 0) for name in "tu"), numbers("oblong", [2, 6])]
    tensors.append(constant("zero3", np.zeros((), np.int8), per_tensor(3.0, 0)))
    nodes = (
        *graph.nodes[:4],
        Node("RESHAPE", "unfold", ("m", "oblong"), ("t",)),
        Node("ADD", "second", ("t", "zero3"), ("u",), {"fused_activation": "NONE"}),
        *graph.nodes[4:],
        Node("RELU", "end", ("u",), ("v",)),
    )
    tensors.append(activation("v", (2, 6), 3.0, 0))
    longer = replace(
        graph, nodes=nodes, tensors={**graph.tensors, **{t.name: t for t in tensors}}, outputs=("y", "z", "v")
    )
    assert [node.op for node in kept_apart(longer).nodes].count("MAXIMUM") == 2


def test_a_copy_is_made_only_where_something_is_read_later():
    graph = behind_a_sum()
    assert [node.op for node in kept_apart(graph).nodes].count("MAXIMUM") == 1
    earlier = (*graph.nodes[:2], graph.nodes[4], *graph.nodes[2:4], graph.nodes[5])
    assert [node.op for node in kept_apart(replace(graph, nodes=earlier)).nodes].count("MAXIMUM") == 0


def test_a_middle_that_is_an_output_stays():
    made = kept_apart(replace(row(), outputs=("y", "r")))
    assert [node.inputs[0] for node in made.nodes if node.op == "RESHAPE"] == ["h", "h"]
