"""Pools and means, and the padding each of them counts."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from tests.builders import activation, lowered, ops

X = activation("x", (1, 6, 6, 2), 0.5, 3)


def pool(op, size, pads=(0, 0, 0, 0), **attrs):
    y = activation("y", (1, size, size, 2), 0.5, 3)
    given = {"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [1, 1], "pads": list(pads), **attrs}
    return lowered(op, X, output=y, **given)


@pytest.mark.parametrize(("op", "tflite_op"), [("MaxPool", "MAX_POOL_2D"), ("AveragePool", "AVERAGE_POOL_2D")])
def test_a_pool_has_its_window_and_one_scale(op, tflite_op):
    graph = pool(op, 2)
    (node,) = graph.nodes
    assert node.op == tflite_op
    assert (node.attrs["filter_height"], node.attrs["stride_h"], node.attrs["padding"]) == (3, 2, "VALID")
    assert graph.tensors["x"].q == graph.tensors["y"].q


def test_a_maximum_is_padded_with_the_lowest_code():
    graph = pool("MaxPool", 3, pads=(1, 1, 1, 1))
    assert ops(graph) == ["PADV2", "MAX_POOL_2D"]
    assert graph.operands(graph.nodes[0])[2].values == -128


def test_a_maximum_behind_a_relu_is_padded_with_zero_which_is_the_lowest_code():
    """More NPUs take PAD than PADV2."""
    after_relu = activation("x", X.shape, 0.5, -128)
    graph = lowered(
        "MaxPool",
        after_relu,
        output=activation("y", (1, 3, 3, 2), 0.5, -128),
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        dilations=[1, 1],
        ceil_mode=0,
        auto_pad="NOTSET",
    )
    assert ops(graph) == ["PAD", "MAX_POOL_2D"]


def test_padding_of_an_average_that_same_gives_is_not_counted():
    (node,) = pool("AveragePool", 6, pads=(1, 1, 1, 1), strides=[1, 1]).nodes
    assert node.attrs["padding"] == "SAME"


def test_padding_of_an_average_that_counts_is_written_out():
    graph = pool("AveragePool", 6, pads=(1, 1, 1, 1), strides=[1, 1], count_include_pad=1)
    assert ops(graph) == ["PAD", "AVERAGE_POOL_2D"]
    assert graph.operands(graph.nodes[1])[0].shape == (1, 8, 8, 2)
    assert graph.nodes[1].attrs["padding"] == "VALID"


def test_what_ceil_mode_adds_to_counted_padding_is_not_counted():
    graph = pool("AveragePool", 4, pads=(1, 1, 1, 1), count_include_pad=1)
    assert ops(graph) == ["PAD", "AVERAGE_POOL_2D"]
    assert graph.operands(graph.nodes[1])[0].shape == (1, 8, 8, 2)  # the pads of the model and no more
    assert graph.nodes[1].attrs["padding"] == "SAME"


def test_uncounted_padding_that_same_does_not_give_is_refused():
    with pytest.raises(BridgeError, match=r"AveragePool 'node': leaves padding \[1, 1, 1, 1\]"):
        pool("AveragePool", 3, pads=(1, 1, 1, 1))


def test_a_dilated_maximum_is_refused_with_its_dilations():
    with pytest.raises(BridgeError, match=r"MaxPool 'node': has dilations \[2, 2\]"):
        pool("MaxPool", 1, dilations=[2, 2])


def test_an_average_to_a_scale_of_its_own_is_a_convolution_with_one_rounding():
    y = activation("y", (1, 2, 2, 2), 0.25)
    attrs = {"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
    graph = lowered("AveragePool", X, output=y, **attrs)
    (node,) = graph.nodes
    kernel = graph.operands(node)[1]
    assert node.op == "DEPTHWISE_CONV_2D"
    assert set(kernel.values.reshape(-1).tolist()) == {127}
    assert float(kernel.q.scale) * 127 * 9 == pytest.approx(1.0)


def test_a_limit_after_a_pool_is_fused():
    assert pool("MaxPool", 2, within=(0.0, np.inf)).nodes[0].attrs["fused_activation"] == "RELU"


def test_mean_has_its_axes_and_both_scales():
    graph = lowered("Mean", X, output=activation("y", (1, 2), 0.25), axes=[1, 2], keepdims=False)
    (node,) = graph.nodes
    assert (node.op, node.attrs) == ("MEAN", {"keep_dims": False})
    assert graph.operands(node)[1].values.tolist() == [1, 2]
