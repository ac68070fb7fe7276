"""Rows of RESHAPEs: LiteRT overwrites the middle one too early, so the bridge writes none."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.graph import Graph, Node, constant, per_tensor
from bridge.exact.reshapes import from_their_root
from bridge.exact.writer import write
from bridge.verifying.litert import KERNELS, Runner
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


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("kernels", KERNELS)
def test_the_middle_of_a_row_keeps_its_codes(op, kernels):
    assert Runner(write(from_their_root(row(op))), kernels)({"x": X})["z"].item() == 28  # 27.5


def test_litert_still_overwrites_the_middle_of_a_row():
    """When this fails, LiteRT has mended it: `from_their_root` can go."""
    assert Runner(write(row()), "reference")({"x": X})["z"].item() != 28


def test_every_reshape_reads_the_root_and_a_middle_that_nobody_reads_is_gone():
    graph = row()
    unread = replace(graph, nodes=tuple(node for node in graph.nodes if node.op != "MEAN"), outputs=("y",))
    made = from_their_root(unread)
    assert [(node.op, node.inputs[0]) for node in made.nodes] == [
        ("RELU", "x"),
        ("RESHAPE", "h"),
        ("ADD", "s"),
        ("RELU", "m"),
    ]
    assert "r" not in made.tensors


def test_a_middle_that_is_an_output_stays():
    made = from_their_root(replace(row(), outputs=("y", "r")))
    assert [node.inputs[0] for node in made.nodes if node.op == "RESHAPE"] == ["h", "h"]
