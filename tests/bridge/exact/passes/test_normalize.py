"""Every spelling of an operator leaves as the same one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.graph import Limits
from bridge.exact.passes.normalize import normalize
from tests.builders import activation, float_constant, integers, ops, single_node, weight

X = activation("x", (1, 2), 0.5)
Y = activation("y", (1, 3), 0.5)
IMAGE = activation("x", (1, 2, 5, 5), 0.5)
OUT_IN = [[1, 2], [3, 4], [5, 6]]
IN_OUT = [[1, 3, 5], [2, 4, 6]]
KERNEL = weight("w", np.ones((3, 2, 3, 3)), 0.5)


def normalized(op, *operands, output=Y, **attrs):
    return normalize(single_node(op, *operands, output=output, **attrs))


def dense(graph):
    (node,) = graph.nodes
    assert node.op == "Gemm"
    assert node.attrs == {}
    return graph.operands(node)[1:]


@pytest.mark.parametrize(
    ("op", "codes", "axis", "attrs"),
    [("Gemm", OUT_IN, 0, {"transB": 1}), ("Gemm", IN_OUT, 1, {}), ("MatMul", IN_OUT, 1, {})],
    ids=["Gemm transB", "Gemm", "MatMul"],
)
def test_a_dense_layer_has_its_weight_out_by_in_and_a_bias(op, codes, axis, attrs):
    w, b = dense(normalized(op, X, weight("w", codes, [0.5, 0.25, 0.125], axis=axis), **attrs))
    assert_array_equal(w.values, OUT_IN)
    assert w.q.axis == 0
    assert_array_equal(b.values, [0, 0, 0])


def test_beta_scales_the_bias():
    bias = float_constant("b", [1, 2, 3])
    _, b = dense(normalized("Gemm", X, weight("w", OUT_IN, 0.5), bias, transB=1, beta=0.5))
    assert_array_equal(b.values, [0.5, 1, 1.5])


def test_alpha_scales_the_scales_of_the_weight_and_keeps_its_codes():
    w, _ = dense(normalized("Gemm", X, weight("w", OUT_IN, [0.5, 0.25, 2.0]), transB=1, alpha=0.5))
    assert_array_equal(w.values, OUT_IN)
    assert_array_equal(w.q.scale, [0.25, 0.125, 1.0])


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_that_is_not_positive_is_refused(alpha):
    with pytest.raises(BridgeError, match=r"Gemm 'node': multiplies by .* alpha .*, which is not positive"):
        normalized("Gemm", X, weight("w", OUT_IN, 0.5), transB=1, alpha=alpha)


def test_a_transposed_input_is_a_transpose_before_the_layer():
    graph = normalized("Gemm", activation("x", (2, 1), 0.5), weight("w", OUT_IN, 0.5), transA=1, transB=1)
    turn, layer = graph.nodes
    assert (turn.op, turn.inputs, turn.attrs) == ("Transpose", ("x",), {"perm": [1, 0]})
    assert graph.operands(layer)[0].shape == (1, 2)


@pytest.mark.parametrize(
    "values", [7.0, [7.0], [[7.0]], [7, 7, 7], [[7, 7, 7]], [[7.0], [7.0]], [[7, 7, 7], [7, 7, 7]]]
)
def test_a_c_whose_rows_are_alike_is_a_bias(values):
    x, y = activation("x", (2, 2), 0.5), activation("y", (2, 3), 0.5)
    graph = normalized("Gemm", x, weight("w", OUT_IN, 0.5), float_constant("c", values), transB=1, beta=2.0, output=y)
    (node,) = graph.nodes
    assert_array_equal(graph.operands(node)[2].values, [14, 14, 14])


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [[1, 2, 3], [1, 2, 4]]])
def test_a_c_that_differs_from_row_to_row_is_refused(values):
    x, y = activation("x", (2, 2), 0.5), activation("y", (2, 3), 0.5)
    with pytest.raises(BridgeError, match=r"C 'c': has shape .* and adds other numbers to each row"):
        normalized("Gemm", x, weight("w", OUT_IN, 0.5), float_constant("c", values), transB=1, output=y)


def test_a_c_that_is_computed_or_does_not_broadcast_is_refused():
    with pytest.raises(BridgeError, match="C 'c': is computed when the model runs"):
        normalized("Gemm", X, weight("w", OUT_IN, 0.5), activation("c", (1, 3), 0.5), transB=1)
    with pytest.raises(BridgeError, match=r"C 'c': has shape \(2,\), which does not broadcast to \(1, 3\)"):
        normalized("Gemm", X, weight("w", OUT_IN, 0.5), float_constant("c", [1, 2]), transB=1)


def test_a_bias_that_has_not_one_number_for_each_channel_is_refused():
    with pytest.raises(BridgeError, match=r"bias 'b': has shape \(1,\); it must be a constant of 3 numbers"):
        normalized("Conv", IMAGE, KERNEL, float_constant("b", [1]), output=activation("y", (1, 3, 3, 3), 0.5))


def test_a_batch_norm_in_training_mode_is_refused():
    parameters = [float_constant(name, [1, 1]) for name in ("scale", "offset", "mean", "variance")]
    with pytest.raises(BridgeError, match="was exported in training mode"):
        normalized("BatchNormalization", IMAGE, *parameters, output=IMAGE, training_mode=1)


def test_a_squeeze_with_an_empty_list_of_axes_is_refused():
    with pytest.raises(BridgeError, match="axes 'axes': is an empty list"):
        normalized("Squeeze", IMAGE, integers("axes", []), output=IMAGE)


@pytest.mark.parametrize(("strides", "refused"), [([1, 2], True), ([2, 1], False)])
def test_an_output_padding_that_is_not_smaller_than_the_stride_is_refused(strides, refused):
    w = weight("w", np.ones((2, 3, 3, 3)), 0.5)
    if refused:
        with pytest.raises(
            BridgeError, match=r"has output_padding \[1, 0\]; it must be smaller than stride or dilation"
        ):
            normalized("ConvTranspose", IMAGE, w, output=IMAGE, strides=strides, output_padding=[1, 0])
    else:
        assert ops(normalized("ConvTranspose", IMAGE, w, output=IMAGE, strides=strides, output_padding=[1, 0]))


def test_a_kernel_shape_other_than_that_of_the_weight_is_refused():
    with pytest.raises(BridgeError, match=r"has shape \(3, 2, 3, 3\); the node says kernel_shape \[2, 3\]"):
        normalized("Conv", IMAGE, KERNEL, output=activation("y", (1, 3, 3, 3), 0.5), kernel_shape=[2, 3])


@pytest.mark.parametrize("noop", [0, 1])
def test_a_mean_over_no_axes_is_over_all_of_them_or_does_nothing(noop):
    y = activation("y", (1, 2, 5, 5) if noop else (1, 1, 1, 1), 0.5)
    graph = normalized("ReduceMean", IMAGE, integers("axes", []), output=y, noop_with_empty_axes=noop)
    assert ops(graph) == (["Reshape"] if noop else ["Mean"])
    if not noop:
        assert graph.nodes[0].attrs["axes"] == [0, 1, 2, 3]


def test_a_batched_weight_is_refused():
    with pytest.raises(BridgeError, match="weight 'w': has 3 dimensions"):
        normalized("MatMul", X, weight("w", [IN_OUT], 0.5))


def test_a_constant_on_the_left_is_refused():
    with pytest.raises(BridgeError, match="operand 'k': is a constant multiplied from the left"):
        normalized("MatMul", float_constant("k", OUT_IN), activation("x", (2, 1), 0.5), output=activation("y", (3, 1)))


def test_a_product_of_two_activations_stays():
    graph = normalized("MatMul", X, activation("z", (2, 3), 0.5))
    assert ops(graph) == ["MatMul"]


def test_a_convolution_without_bias_gets_zeros_and_all_its_attributes():
    graph = normalized("Conv", IMAGE, KERNEL, output=activation("y", (1, 3, 3, 3), 0.5))
    (node,) = graph.nodes
    assert_array_equal(graph.operands(node)[2].values, [0, 0, 0])
    assert (node.attrs["strides"], node.attrs["pads"], node.attrs["dilations"]) == ([1, 1], [0, 0, 0, 0], [1, 1])


@pytest.mark.parametrize(("auto", "pads"), [("SAME_UPPER", [0, 0, 1, 1]), ("SAME_LOWER", [1, 1, 0, 0])])
def test_automatic_padding_becomes_numbers(auto, pads):
    x = activation("x", (1, 2, 6, 6), 0.5)  # 3 windows of 3 at stride 2 reach 7: one more than there is
    y = activation("y", (1, 3, 3, 3), 0.5)
    (node,) = normalized("Conv", x, KERNEL, output=y, auto_pad=auto, strides=[2, 2]).nodes
    assert node.attrs["pads"] == pads


def test_a_convolution_over_three_axes_is_refused():
    x = activation("x", (1, 2, 5, 5, 5), 0.5)
    with pytest.raises(BridgeError, match="convolves over 3 axes"):
        normalized("Conv", x, weight("w", np.ones((3, 2, 3, 3, 3)), 0.5))


def test_a_weight_computed_at_run_time_is_refused():
    with pytest.raises(BridgeError, match="weight 'w': is computed when the model runs"):
        normalized("Conv", IMAGE, activation("w", (3, 2, 3, 3), 0.5))


def test_a_transposed_convolution_with_an_output_shape_is_refused():
    with pytest.raises(BridgeError, match=r"asks for output_shape \[9, 9\]"):
        normalized("ConvTranspose", IMAGE, weight("w", np.ones((2, 3, 3, 3)), 0.5), output_shape=[9, 9])


def test_a_pool_that_returns_indices_is_refused():
    outputs = [activation("y", (1, 2, 4, 4)), activation("i", (1, 2, 4, 4))]
    with pytest.raises(BridgeError, match="MaxPool 'node': pools over more than two axes, or asks for the indices"):
        normalized("MaxPool", IMAGE, output=outputs, kernel_shape=[2, 2])


def test_batch_normalization_becomes_a_factor_and_an_offset():
    parameters = [float_constant(n, v) for n, v in zip("gbmv", ([2, 2], [1, 1], [3, 0], [3, 0]), strict=True)]
    graph = normalized("BatchNormalization", IMAGE, *parameters, output=IMAGE, epsilon=1.0)
    (node,) = graph.nodes
    _, factor, offset = graph.operands(node)
    assert node.op == "ChannelAffine"
    assert_allclose(factor.values, [1, 2])  # 2 / sqrt(3 + 1), 2 / sqrt(0 + 1)
    assert_allclose(offset.values, [-2, 1])  # 1 - 3 * 1, 1 - 0


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "axes", "keepdims"),
    [
        ("GlobalAveragePool", (), {}, [2, 3], True),
        ("ReduceMean", (), {"axes": [-1], "keepdims": 0}, [3], False),
        ("ReduceMean", (integers("axes", [3, 2]),), {}, [2, 3], True),
        ("ReduceMean", (), {}, [0, 1, 2, 3], True),
    ],
    ids=["global", "attribute", "operand", "all"],
)
def test_means_have_sorted_positive_axes(op, operands, attrs, axes, keepdims):
    (node,) = normalized(op, IMAGE, *operands, output=activation("y", (1,)), **attrs).nodes
    assert node.op == "Mean"
    assert node.attrs == {"axes": axes, "keepdims": keepdims}


@pytest.mark.parametrize(
    ("op", "operands", "low", "high"),
    [
        ("Relu", (), 0, np.inf),
        ("Clip", (float_constant("a", 0), float_constant("b", 6)), 0, 6),
        ("Clip", (None, float_constant("b", 6)), -np.inf, 6),
        ("Clip", (float_constant("a", -1),), -1, np.inf),
    ],
    ids=["relu", "relu6", "upper", "lower"],
)
def test_relu_and_clip_become_a_limit(op, operands, low, high):
    (node,) = normalized(op, X, *operands).nodes
    assert node.op == "Limit"
    assert (node.attrs, node.limits) == ({}, Limits(low, high))


@pytest.mark.parametrize("op", ["Reshape", "Flatten", "Squeeze", "Unsqueeze"])
def test_what_only_changes_the_shape_is_a_reshape(op):
    (node,) = normalized(op, X, integers("n", [1])).nodes
    assert (node.op, node.inputs) == ("Reshape", ("x",))
