"""SAME, VALID, or a PAD operator: three ways to write one padding."""

import pytest
from numpy.testing import assert_array_equal

from bridge.exact.lowering.padding import padded
from tests.builders import activation, single_node


def padding(size, out, pads, kernel=3, stride=1, dilation=1, lowest=False, scale=0.5):
    """Of a window over the height; the width is one pixel under a window of one."""
    x, y = activation("x", (1, size, 1, 2), scale, 3), activation("y", (1, out, 1, 2), scale, 3)
    graph = single_node(
        "MaxPool", x, output=y, strides=[stride, 1], dilations=[dilation, 1], pads=[pads[0], 0, pads[1], 0]
    )
    before, source, name = padded(graph.nodes[0], x, graph, (kernel, 1), lowest)
    rows = [tensor.values[1].tolist() for tensor in before.tensors if tensor.name.endswith("/paddings")]
    return [node.op for node in before.nodes], source, name, rows


def test_no_padding_is_valid():
    assert padding(5, 3, (0, 0)) == ([], "x", "VALID", [])


def test_even_padding_of_an_odd_kernel_is_same():
    assert padding(5, 5, (1, 1)) == ([], "x", "SAME", [])


def test_the_larger_half_after_is_same():
    assert padding(6, 3, (0, 1), stride=2) == ([], "x", "SAME", [])


def test_the_larger_half_before_is_written_out():
    assert padding(6, 3, (1, 0), stride=2) == (["PAD"], "node/padded", "VALID", [[1, 0]])


def test_padding_that_no_window_reaches_is_left_out():
    # PyTorch's padding=1 at stride 2 over 6 pixels: the last window ends one before the padding does.
    assert padding(6, 3, (1, 1), stride=2) == (["PAD"], "node/padded", "VALID", [[1, 0]])


def test_dilation_widens_the_reach():
    assert padding(6, 6, (2, 2), dilation=2) == ([], "x", "SAME", [])


def test_what_ceil_mode_reaches_beyond_the_input_is_padded():
    assert padding(6, 3, (0, 0), stride=2) == ([], "x", "SAME", [])


@pytest.mark.parametrize(("scale", "value"), [(0.5, -128), (None, -3.4028235e38)], ids=["int8", "float"])
def test_a_maximum_is_padded_with_what_it_ignores(scale, value):
    x, y = activation("x", (1, 6, 1, 2), scale, 3), activation("y", (1, 3, 1, 2), scale, 3)
    graph = single_node("MaxPool", x, output=y, strides=[2, 1], dilations=[1, 1], pads=[1, 0, 1, 0])
    before, _, _ = padded(graph.nodes[0], x, graph, (3, 1), lowest=True)
    assert before.nodes[0].op == "PADV2"
    (floor,) = [tensor for tensor in before.tensors if tensor.name.endswith("/lowest")]
    assert_array_equal(floor.values, x.dtype.type(value))


def test_the_padded_copy_has_the_scale_of_its_source():
    x, y = activation("x", (1, 6, 1, 2), 0.5, 3), activation("y", (1, 3, 1, 2), 0.5, 3)
    graph = single_node("MaxPool", x, output=y, strides=[2, 1], dilations=[1, 1], pads=[1, 0, 1, 0])
    before, source, _ = padded(graph.nodes[0], x, graph, (3, 1))
    (copy,) = [tensor for tensor in before.tensors if tensor.name == source]
    assert copy.q == x.q
    assert copy.shape == (1, 7, 1, 2)
