"""Convolutions: what is kept, the one number that is derived, and what is refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from tests.builders import Pair, activation, float_constant, lowered, notes, ops, qdq_model, weight

ATTRS = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
X = activation("x", (1, 4, 4, 2), 0.5, -3)
Y = activation("y", (1, 2, 2, 3), 0.125, 7)
W = np.arange(3 * 2 * 3 * 3).reshape(3, 2, 3, 3)
B = float_constant("b", [1.0, -0.5, 0.0])


def conv(x=X, w=None, b=B, y=Y, **attrs):
    w = w or weight("w", W, [0.25, 0.125, 0.5])
    return lowered("Conv", x, w, b, output=y, **{**ATTRS, **attrs})


def test_conv_keeps_every_trained_scale_and_derives_only_the_bias_scale():
    graph = conv()
    (node,) = graph.nodes
    x, kernel, bias = graph.operands(node)
    assert node.op == "CONV_2D"
    assert x.q == X.q
    assert graph.tensors["y"].q == Y.q
    assert_array_equal(kernel.q.scale, [0.25, 0.125, 0.5])
    assert kernel.q.axis == 0
    assert_array_equal(bias.q.scale, [0.125, 0.0625, 0.25])  # 0.5 * weight scale
    assert_array_equal(bias.values, [8, -8, 0])  # 1.0 / 0.125, -0.5 / 0.0625


def test_conv_weights_are_ohwi():
    graph = conv()
    assert_array_equal(graph.operands(graph.nodes[0])[1].values, W.transpose(0, 2, 3, 1))


def test_strides_and_dilations_go_height_first():
    (node,) = conv(y=activation("y", (1, 1, 2, 3), 0.125), strides=[2, 1]).nodes
    assert (node.attrs["stride_h"], node.attrs["stride_w"]) == (2, 1)
    (node,) = conv(x=activation("x", (1, 6, 4, 2), 0.5), dilations=[2, 1]).nodes
    assert (node.attrs["dilation_h_factor"], node.attrs["dilation_w_factor"]) == (2, 1)


def test_groups_of_one_channel_are_depthwise_and_the_weight_is_1hwo():
    w = np.arange(4 * 9).reshape(4, 1, 3, 3)
    graph = conv(
        w=weight("w", w, [0.25, 0.125, 0.5, 1.0]),
        b=float_constant("b", [0, 0, 0, 0]),
        y=activation("y", (1, 2, 2, 4), 0.125),
        group=2,
    )
    (node,) = graph.nodes
    kernel = graph.operands(node)[1]
    assert node.op == "DEPTHWISE_CONV_2D"
    assert node.attrs["depth_multiplier"] == 2
    assert kernel.q.axis == 3
    assert_array_equal(kernel.values, w.transpose(1, 2, 3, 0))


def test_other_groups_are_a_convolution_with_a_shallower_filter():
    x, y = activation("x", (1, 4, 4, 4), 0.5), activation("y", (1, 2, 2, 6), 0.125)
    graph = conv(x=x, w=weight("w", np.ones((6, 2, 3, 3)), 0.25), b=float_constant("b", np.zeros(6)), y=y, group=2)
    assert ops(graph) == ["CONV_2D"]
    assert graph.operands(graph.nodes[0])[1].shape == (6, 3, 3, 2)


def test_relu_is_fused():
    (node,) = conv(within=(0.0, np.inf)).nodes
    assert node.attrs["fused_activation"] == "RELU"


def test_a_limit_without_an_activation_follows():
    assert ops(conv(within=(0.0, 3.0))) == ["CONV_2D", "MAXIMUM", "MINIMUM"]


def test_a_float_convolution_stays_float():
    graph = conv(x=activation("x", (1, 4, 4, 2)), w=float_constant("w", W), y=activation("y", (1, 2, 2, 3)))
    x, kernel, bias = graph.operands(graph.nodes[0])
    assert {tensor.dtype for tensor in (x, kernel, bias)} == {np.dtype(np.float32)}


UP = activation("y", (1, 8, 8, 3), 0.125)
IOHW = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)


def conv_transpose(size=2, y=UP, **attrs):
    w = weight("w", np.resize(IOHW, (2, 3, size, size)), [0.25, 0.125, 0.5], axis=1)
    return lowered("ConvTranspose", X, w, B, output=y, **{**ATTRS, "strides": [2, 2], **attrs})


def test_a_transposed_convolution_has_ohwi_weights_and_its_output_shape():
    graph = conv_transpose()
    (node,) = graph.nodes
    shape, kernel, x, bias = graph.operands(node)
    assert (node.op, node.attrs["padding"]) == ("TRANSPOSE_CONV", "VALID")
    assert_array_equal(shape.values, [1, 8, 8, 3])
    assert_array_equal(kernel.values, IOHW.transpose(1, 2, 3, 0))
    assert kernel.q.axis == 0
    assert x.name == "x"
    assert_array_equal(bias.values, [8, -8, 0])


def test_padding_that_same_gives_is_same():
    # Kernel 4, stride 2, padding 1: the whole is 10 wide, one pixel goes on each side.
    (node,) = conv_transpose(4, pads=[1, 1, 1, 1]).nodes
    assert node.attrs["padding"] == "SAME"


def test_padding_that_same_does_not_give_is_cut_out_of_the_whole():
    graph = conv_transpose(3, pads=[1, 1, 1, 1])  # 9 wide: one pixel goes before, none after
    assert ops(graph) == ["TRANSPOSE_CONV", "SLICE"]
    _, begin, size = graph.operands(graph.nodes[1])
    assert graph.output(graph.nodes[0]).shape == (1, 9, 9, 3)
    assert (begin.values.tolist(), size.values.tolist()) == ([0, 1, 1, 0], [1, 8, 8, 3])


@pytest.mark.parametrize("attrs", [{"group": 2}, {"dilations": [2, 2]}], ids=str)
def test_a_grouped_or_dilated_transposed_convolution_is_refused(attrs):
    with pytest.raises(BridgeError, match="ConvTranspose 'node': is a grouped or dilated transposed convolution"):
        conv_transpose(**attrs)


def test_an_output_beyond_the_whole_is_refused_with_both_sizes():
    with pytest.raises(BridgeError, match=r"its output \(9, 9\) reaches beyond what the kernel computes, \(8, 8\)"):
        conv_transpose(y=activation("y", (1, 9, 9, 3), 0.125))


def affine(shape, **attrs):
    factors, offsets = float_constant("f", [2.0, -4.0, 0.0]), float_constant("o", [1.0, 0.0, -1.0])
    x, y = activation("x", shape, 0.5), activation("y", shape, 0.125)
    return lowered("ChannelAffine", x, factors, offsets, output=y, **attrs)


def test_a_factor_per_channel_is_a_code_of_127_at_a_scale_that_loses_nothing():
    graph = affine((1, 4, 4, 3))
    (node,) = graph.nodes
    _, kernel, bias = graph.operands(node)
    assert node.op == "DEPTHWISE_CONV_2D"
    assert kernel.values.reshape(-1).tolist() == [127, -127, 0]
    assert_allclose(kernel.q.scale[:2] * 127, [2, 4], rtol=1e-7)  # float32's last bit
    assert_allclose(bias.values * bias.q.scale, [1, 0, -1], atol=0.5 * bias.q.scale.max())  # its own rounding


def test_a_factor_per_channel_on_a_matrix_is_reshaped_around():
    graph = affine((5, 3))
    assert ops(graph) == ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]
    assert graph.operands(graph.nodes[1])[0].shape == (5, 1, 1, 3)


def coarse(y_scale):
    """Sums in steps of 0.5 * 0.25 = 1/8; a bias between two of them."""
    return convert(
        qdq_model(
            ("Conv", "x w b", "y", {"kernel_shape": [1, 1]}),
            inputs={"x": (1, 1, 1, 1)},
            pairs={"x": Pair(0.5), "y": Pair(y_scale)},
            outputs="y",
            constants=[weight("w", [[[[2]]]], [0.25]), float_constant("b", [0.0625])],
        )
    )


def test_a_bias_rounded_to_coarser_steps_than_the_output_has_is_said_with_what_it_costs():
    (note,) = notes(coarse(0.03125).graph, "grid")
    assert (note.lsb, note.of) == (2.0, "y")  # half of 1/8, in steps of 1/32


def test_a_bias_rounded_to_finer_steps_than_the_output_has_is_not():
    assert not notes(coarse(0.25).graph, "grid")
