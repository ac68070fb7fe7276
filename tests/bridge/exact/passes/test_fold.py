"""Constants are computed; codes and trained scales survive what only moves them."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.graph import Node, constant
from bridge.exact.passes.fold import fold
from tests.builders import activation, float_constant, graph_of, integers, ops, single_node, weight


def dequantized(codes, scale, zero, **attrs):
    """What a DequantizeLinear of these constants folds to."""
    graph = single_node(
        "DequantizeLinear",
        constant("codes", codes),
        float_constant("scale", scale),
        constant("zero", zero),
        output=activation("w", codes.shape),
        **attrs,
    )
    return fold(graph).tensors["w"]


def folded(op, *operands, **attrs):
    graph = fold(single_node(op, *operands, output=activation("y", (1,)), **attrs))
    assert graph.nodes == ()
    return graph.tensors["y"]


def test_a_weight_keeps_its_codes_and_its_scale_for_each_channel():
    w = dequantized(np.array([[1, -128], [3, 4]], np.int8), [0.5, 0.25], np.zeros(2, np.int8), axis=0)
    assert_array_equal(w.values, [[1, -128], [3, 4]])
    assert_array_equal(w.q.scale, [0.5, 0.25])
    assert w.q.axis == 0


def test_uint8_weights_become_int8_128_lower():
    w = dequantized(np.array([0, 128, 255], np.uint8), 0.5, np.array(128, np.uint8))
    assert w.dtype == np.int8
    assert_array_equal(w.values, [-128, 0, 127])
    assert w.q.zero_point == 0


def test_a_single_scale_in_a_list_is_per_tensor():
    w = dequantized(np.array([[1, 2]], np.int8), [0.5], np.zeros(1, np.int8), axis=0)
    assert w.q.axis is None


def test_an_int32_bias_keeps_its_codes():
    b = dequantized(np.array([70000, -5], np.int32), [0.5, 0.25], np.zeros(2, np.int32), axis=0)
    assert b.dtype == np.int32
    assert_array_equal(b.values, [70000, -5])


def test_a_float_weight_behind_both_nodes_is_quantized_half_to_even():
    operands = (float_constant("scale", 0.5), constant("zero", np.array(0, np.int8)))
    nodes = [
        Node("QuantizeLinear", "q", ("f", "scale", "zero"), ("codes",)),
        Node("DequantizeLinear", "dq", ("codes", "scale", "zero"), ("w",)),
    ]
    tensors = [float_constant("f", [0.25, 0.75, 100]), *operands, activation("codes", (3,)), activation("w", (3,))]
    w = fold(graph_of(nodes, tensors, ["w"])).tensors["w"]
    assert_array_equal(w.values, [0, 2, 127])


def test_int32_codes_have_no_zero_point():
    nodes = [Node("DequantizeLinear", "dq", ("codes", "scale", "zero"), ("b",))]
    tensors = [
        constant("codes", np.array([5, 6], np.int32)),
        float_constant("scale", 0.5),
        constant("zero", np.array(3, np.int32)),
        activation("b", (2,)),
    ]
    with pytest.raises(BridgeError, match="has zero point 3 for int32 codes; theirs is 0"):
        fold(graph_of(nodes, tensors, ["b"]))


def test_a_transpose_takes_the_channel_axis_along():
    y = folded("Transpose", weight("w", [[1, 2, 3], [4, 5, 6]], [0.5, 0.25]), perm=[1, 0])
    assert_array_equal(y.values, [[1, 4], [2, 5], [3, 6]])
    assert y.q.axis == 1


def test_a_reshape_keeps_codes_where_the_channels_stay_an_axis():
    y = folded("Reshape", weight("w", [[1, 2], [3, 4]], [0.5, 0.25]), integers("shape", [2, 2, 1]))
    assert_array_equal(y.values, [[[1], [2]], [[3], [4]]])
    assert y.q.axis == 0


def test_a_reshape_that_dissolves_the_channels_keeps_the_real_values():
    y = folded("Reshape", weight("w", [[1, 2], [3, 4]], [0.5, 0.25]), integers("shape", [4]))
    assert y.qparams is None
    assert_array_equal(y.values, [0.5, 1.0, 0.75, 1.0])


def test_the_shape_of_a_tensor_is_known():
    assert_array_equal(folded("Shape", activation("x", (1, 3, 4)), start=1).values, [3, 4])


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "expected"),
    [
        ("Div", [integers("a", -7), integers("b", 2)], {}, -3),
        ("Div", [float_constant("a", 7), float_constant("b", 2)], {}, 3.5),
        ("Slice", [integers("a", [1, 2, 3]), integers("b", [-1]), integers("e", [-9]), None, integers("s", [-1])], {}, [3, 2, 1]),
        ("Gather", [integers("a", [5, 6, 7]), integers("i", 1)], {"axis": 0}, 6),
        ("Concat", [integers("a", [1]), integers("b", [2])], {"axis": 0}, [1, 2]),
        ("Squeeze", [integers("a", [[1]]), integers("axes", [0])], {}, [1]),
        ("Unsqueeze", [integers("a", [1]), integers("axes", [-1])], {}, [[1]]),
        ("Reshape", [integers("a", [[1, 2]]), integers("s", [0, -1, 1])], {}, [[[1], [2]]]),
        ("Clip", [integers("a", [1, 9]), None, integers("high", 5)], {}, [1, 5]),
        ("Where", [constant("c", np.array([True, False])), integers("a", [1, 2]), integers("b", [3, 4])], {}, [1, 4]),
        ("Range", [integers("a", 0), integers("b", 6), integers("c", 2)], {}, [0, 2, 4]),
        ("ConstantOfShape", [integers("a", [2])], {"value": np.array([7])}, [7, 7]),
        ("Expand", [integers("a", [1]), integers("s", [2, 1])], {}, [[1], [1]]),
        ("Cast", [float_constant("a", 2.7)], {"to": 7}, 2),
        ("ReduceProd", [integers("a", [2, 3])], {"keepdims": 0}, 6),
        ("ReduceProd", [integers("a", [[2, 3], [4, 5]])], {"keepdims": 0, "axes": [1]}, [6, 20]),
        ("ReduceProd", [integers("a", [[2, 3], [4, 5]]), integers("axes", [0])], {"keepdims": 0}, [8, 15]),
        ("ReduceProd", [integers("a", [2, 3]), integers("axes", [])], {"noop_with_empty_axes": 1}, [2, 3]),
        ("Flatten", [integers("a", [[[1, 2]]])], {"axis": 1}, [[1, 2]]),
        ("Pow", [float_constant("a", 3), float_constant("b", 2)], {}, 9),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_constant_operands_give_a_constant(op, operands, attrs, expected):
    assert_array_equal(folded(op, *operands, **attrs).values, expected)


def test_an_operator_with_a_moving_operand_stays():
    graph = single_node("Add", activation("x", (1,)), float_constant("k", [1]), output=activation("y", (1,)))
    assert ops(fold(graph)) == ["Add"]


def test_constants_that_do_not_fit_together_are_refused_by_node():
    with pytest.raises(BridgeError, match="Add 'node': its constant operands do not fit together"):
        folded("Add", integers("a", [1, 2]), integers("b", [1, 2, 3]))


@pytest.mark.parametrize("scale", [0.0, -0.5, np.nan, np.inf])
def test_a_scale_that_is_not_positive_and_finite_is_refused_by_name(scale):
    with pytest.raises(BridgeError, match=f"DequantizeLinear 'node', scale 'scale': scale {scale} is not a positive"):
        dequantized(np.zeros(1, np.int8), scale, np.array(0, np.int8))


def test_sixteen_bit_codes_are_refused():
    with pytest.raises(BridgeError, match="quantizes to int16"):
        dequantized(np.zeros(1, np.int16), 0.5, np.array(0, np.int16))


def test_scales_that_do_not_fit_their_axis_are_refused_with_the_numbers():
    with pytest.raises(BridgeError, match=r"2 scales and 2 zero points on axis 1 do not fit shape \(2, 3\)"):
        dequantized(np.zeros((2, 3), np.int8), [0.5, 0.25], np.zeros(2, np.int8), axis=1)


def test_a_scale_computed_at_run_time_is_refused():
    graph = single_node(
        "QuantizeLinear", float_constant("f", [1]), activation("scale", ()), output=activation("y", (1,))
    )
    constants = single_node(
        "DequantizeLinear",
        constant("codes", np.zeros(1, np.int8)),
        activation("scale", ()),
        output=activation("w", (1,)),
    )
    assert ops(fold(graph)) == ["QuantizeLinear"]  # left for passes/qdq.py, which refuses it
    assert ops(fold(constants)) == ["DequantizeLinear"]


@pytest.mark.parametrize("value", [6.4e9, -6.4e9, 2.0**31, np.nan, np.inf])
def test_a_bias_outside_int32_is_refused_instead_of_wrapped(value):
    bias = float_constant("bias", [1.0, value])

    with pytest.raises(BridgeError, match=r"tensor 'bias': .* at index 1 does not fit int32[^$]*bridge\.convert"):
        folded("Cast", bias, to=onnx.TensorProto.INT32)


def test_real_numbers_that_fit_are_cut_off_by_a_cast():
    bias = float_constant("bias", [-(2.0**31), 2.5, -2.5])

    assert_array_equal(folded("Cast", bias, to=onnx.TensorProto.INT32).values, [-(2**31), 2, -2])
