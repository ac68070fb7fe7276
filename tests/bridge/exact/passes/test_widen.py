"""Windows over one axis become windows over two."""

import numpy as np
import pytest

from bridge.exact.passes.widen import widen
from tests.builders import activation, float_constant, ops, single_node, weight

X, Y = activation("x", (1, 2, 5), 0.5), activation("y", (1, 3, 5), 0.5)
WINDOW = {"kernel_shape": [3], "strides": [1], "dilations": [1], "pads": [1, 2]}


def test_a_convolution_over_one_axis_becomes_one_over_two():
    w = weight("w", np.ones((3, 2, 3)), [0.5, 0.25, 0.125])
    graph = widen(single_node("Conv", X, w, float_constant("b", [0, 0, 0]), output=Y, **WINDOW))
    assert ops(graph) == ["Reshape", "Conv", "Reshape"]
    conv = graph.nodes[1]
    x, w, _ = graph.operands(conv)
    assert (x.shape, w.shape) == ((1, 2, 1, 5), (3, 2, 1, 3))
    assert w.q.axis == 0
    assert (conv.attrs["kernel_shape"], conv.attrs["pads"]) == ([1, 3], [0, 1, 0, 2])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_pool_over_one_axis_becomes_one_over_two(op):
    graph = widen(single_node(op, X, output=Y, **WINDOW))
    assert ops(graph) == ["Reshape", op, "Reshape"]
    assert graph.nodes[1].attrs["strides"] == [1, 1]


def test_reshapes_keep_the_trained_scales():
    graph = widen(single_node("MaxPool", X, output=Y, **WINDOW))
    assert {tensor.q for tensor in graph.tensors.values()} == {X.q}


def test_a_window_over_two_axes_stays():
    x, y = activation("x", (1, 2, 5, 5), 0.5), activation("y", (1, 2, 3, 3), 0.5)
    assert ops(widen(single_node("MaxPool", x, output=y, kernel_shape=[3, 3]))) == ["MaxPool"]
