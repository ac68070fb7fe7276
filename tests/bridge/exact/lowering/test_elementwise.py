"""Sums, products, activations, and changes of scale."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.arithmetic import dequantize
from tests.builders import activation, float_constant, lowered, notes, ops, weight

X = activation("x", (1, 4), 0.5, 1)
Z = activation("z", (1, 4), 0.25, -7)
Y = activation("y", (1, 4), 0.125, 3)
INF = np.inf


def only(graph):
    (node,) = graph.nodes
    return node


@pytest.mark.parametrize(("op", "tflite_op"), [("Add", "ADD"), ("Sub", "SUB"), ("Mul", "MUL")])
def test_arithmetic_keeps_the_scale_of_each_operand(op, tflite_op):
    graph = lowered(op, X, Z, output=Y)
    node = only(graph)
    assert (node.op, node.inputs, node.attrs) == (tflite_op, ("x", "z"), {"fused_activation": "NONE"})
    assert [tensor.q for tensor in graph.operands(node)] == [X.q, Z.q]


def test_a_sum_fuses_its_relu():
    assert only(lowered("Add", X, Z, output=Y, within=(0.0, INF))).attrs["fused_activation"] == "RELU"


def test_a_float_constant_operand_that_8_bits_hold_becomes_codes_and_a_note():
    graph = lowered("Mul", X, float_constant("k", [1.27, -0.01]), output=Y)
    k = graph.operands(only(graph))[1]
    assert_array_equal(k.values, [127, -1])
    assert str(k.q) == "scale 0.0099999998, zero point 0"
    assert [note.off for note in notes(graph, "derived")] == [0.0]


@pytest.mark.parametrize(
    ("op", "first", "weight", "weights", "biases"),
    [
        ("Mul", False, 0.0, 1.0, 0.0),
        ("Add", False, 1.0, 0.0, 1.0),
        ("Sub", False, 1.0, 0.0, -1.0),
        ("Sub", True, -1.0, 0.0, 1.0),
    ],
)
def test_a_constant_that_8_bits_do_not_hold_goes_into_weights_and_int32_biases(op, first, weight, weights, biases):
    values = np.array([0.3, -1.0, 2.0, 0.7])
    k = float_constant("k", values)
    graph = lowered(op, *((k, X) if first else (X, k)), output=Y)
    conv = next(node for node in graph.nodes if node.op == "DEPTHWISE_CONV_2D")
    _, kernel, bias = graph.operands(conv)
    assert notes(graph, "derived") == []
    np.testing.assert_allclose(kernel.real.reshape(-1), weight + weights * values, rtol=1e-6)
    np.testing.assert_allclose(bias.real.reshape(-1), biases * values, atol=0.5 / 127 / 2)  # half an accumulator step


def test_a_constant_with_a_value_for_each_element_makes_each_a_channel():
    x, y = activation("x", (2, 3, 2), 0.5), activation("y", (2, 3, 2), 0.5)
    graph = lowered("Add", x, float_constant("k", [[0.3, 1.0], [2.0, 3.0], [4.0, 5.0]]), output=y)
    assert [node.op for node in graph.nodes] == ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]
    assert graph.operands(graph.nodes[1])[0].shape == (2, 1, 1, 6)


def test_a_large_constant_that_8_bits_do_not_hold_says_what_that_costs():
    x, y = activation("x", (1, 5000, 2), 0.5), activation("y", (1, 5000, 2), 0.5)
    values = np.linspace(0.0, 2.54, 10_000).reshape(5000, 2)
    (note,) = notes(lowered("Mul", x, float_constant("k", values), output=y), "derived")
    assert note.off == pytest.approx(2.54 / 255 / 2 * 64, rel=1e-2)  # half a step, times the largest |x|, 128 * 0.5


def test_a_constant_whose_biases_would_not_fit_int32_stays_an_operand():
    graph = lowered("Add", X, float_constant("k", [3e9, 1e9 + 1]), output=activation("y", (1, 2), 1e8))
    assert only(graph).op == "ADD"


def test_a_constant_operand_with_trained_codes_keeps_them():
    graph = lowered("Add", X, weight("k", [5], 0.5, zero_point=2), output=Y)
    k = graph.operands(only(graph))[1]
    assert (k.values.tolist(), str(k.q)) == ([5], "scale 0.5, zero point 2")
    assert notes(graph, "derived") == []


def test_division_by_a_constant_is_a_product_with_its_reciprocal():
    graph = lowered("Div", X, float_constant("k", [4.0, 2.0]), output=Y)  # 0.25 and 0.5
    node = only(graph)
    k = graph.operands(node)[1]
    assert node.op == "MUL"
    assert_array_equal(k.values, [1, 2])
    assert_array_equal(dequantize(k.values, k.q), [0.25, 0.5])


def test_division_by_an_activation_is_refused():
    with pytest.raises(BridgeError, match="tensor 'z': must be a constant"):
        lowered("Div", X, Z, output=Y)


def test_division_by_zero_is_refused_by_name():
    with pytest.raises(BridgeError, match="Div 'node', constant 'k': divides by zero"):
        lowered("Div", X, float_constant("k", [1.0, 0.0]), output=Y)


@pytest.mark.parametrize(("op", "tflite_op"), [("Min", "MINIMUM"), ("Max", "MAXIMUM")])
def test_extremes_take_two_operands_at_a_time(op, tflite_op):
    a, b, c = (activation(name, (1, 4), 0.5) for name in "abc")
    graph = lowered(op, a, b, c, output=activation("y", (1, 4), 0.5))
    first, second = graph.nodes
    assert (first.op, first.inputs) == (tflite_op, ("a", "b"))
    assert (second.op, second.inputs, second.outputs) == (tflite_op, (first.outputs[0], "c"), ("y",))


def test_an_extreme_of_one_operand_is_refused():
    with pytest.raises(BridgeError, match="Max 'node': has one operand"):
        lowered("Max", X, output=X)


@pytest.mark.parametrize(("limits", "op"), [((0.0, INF), "RELU"), ((0.0, 6.0), "RELU6"), ((-1.0, 1.0), "RELU_N1_TO_1")])
def test_limit_has_an_operator_where_tflite_has_one(limits, op):
    low, high = limits
    assert only(lowered("Limit", X, output=activation("y", (1, 4), 0.5, 1), within=(low, high))).op == op


def test_limit_by_other_numbers_is_maximum_and_minimum():
    graph = lowered("Limit", X, output=activation("y", (1, 4), 0.5, 1), within=(-2.0, 3.0))
    assert ops(graph) == ["MAXIMUM", "MINIMUM"]


def test_clamp_is_maximum_and_minimum_at_the_trained_codes():
    graph = lowered("Clamp", X, output=activation("y", (1, 4), 0.5, 1, -64, 63))
    assert ops(graph) == ["MAXIMUM", "MINIMUM"]
    assert [graph.operands(node)[1].values.item() for node in graph.nodes] == [-64, 63]


def test_clamp_leaves_out_what_saturation_keeps():
    assert ops(lowered("Clamp", X, output=activation("y", (1, 4), 0.5, 1, 0, 127))) == ["MAXIMUM"]


@pytest.mark.parametrize(
    ("op", "tflite_op"),
    [("Sigmoid", "LOGISTIC"), ("Tanh", "TANH"), ("HardSwish", "HARD_SWISH"), ("Quantize", "QUANTIZE"), ("Dequantize", "DEQUANTIZE")],
)  # fmt: skip
def test_operators_without_options_only_change_their_name(op, tflite_op):
    node = only(lowered(op, X, output=Y))
    assert (node.op, node.inputs, node.outputs, dict(node.attrs)) == (tflite_op, ("x",), ("y",), {})


def test_softmax_has_beta_one():
    node = only(lowered("Softmax", X, output=Y))
    assert (node.op, node.attrs) == ("SOFTMAX", {"beta": 1.0})


@pytest.mark.parametrize(("attrs", "alpha"), [({}, 0.01), ({"alpha": 0.2}, 0.2)], ids=["default", "given"])
def test_leaky_relu_has_onnx_alpha(attrs, alpha):
    node = only(lowered("LeakyRelu", X, output=Y, **attrs))
    assert (node.op, node.attrs) == ("LEAKY_RELU", {"alpha": alpha})


def test_prelu_has_a_slope_for_each_channel_last():
    x, y = activation("x", (1, 2, 2, 3), 0.5), activation("y", (1, 2, 2, 3), 0.5)
    graph = lowered("PRelu", x, float_constant("s", [[[[0.127, 0.0635, 0.001]]]]), output=y)
    slope = graph.operands(only(graph))[1]
    assert graph.nodes[0].op == "PRELU"
    assert slope.values.tolist() == [[[127, 64, 1]]]
    assert len(notes(graph, "derived")) == 1


def test_one_prelu_slope_for_all_channels_is_repeated():
    x, y = activation("x", (1, 2, 2, 3), 0.5), activation("y", (1, 2, 2, 3), 0.5)
    graph = lowered("PRelu", x, float_constant("s", [[[[0.127]]]]), output=y)
    assert graph.operands(only(graph))[1].values.tolist() == [[[127, 127, 127]]]


def test_hard_sigmoid_is_one_rounding_of_alpha_x_plus_beta():
    x, y = activation("x", (1, 2, 2, 3), 0.5), activation("y", (1, 2, 2, 3), 1 / 256, -128)
    graph = lowered("HardSigmoid", x, output=y, alpha=0.127, beta=0.5)
    node = only(graph)
    _, kernel, bias = graph.operands(node)
    assert (node.op, node.attrs["fused_activation"]) == ("DEPTHWISE_CONV_2D", "NONE")
    assert kernel.values.reshape(-1).tolist() == [127] * 3
    assert_array_equal(bias.values, [1000] * 3)  # 0.5 / (0.5 * 0.001)


def test_hard_sigmoid_at_another_scale_is_limited():
    x, y = activation("x", (1, 2, 2, 3), 0.5), activation("y", (1, 2, 2, 3), 1 / 64)
    assert ops(lowered("HardSigmoid", x, output=y)) == ["DEPTHWISE_CONV_2D", "MAXIMUM", "MINIMUM"]
