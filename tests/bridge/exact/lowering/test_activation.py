"""Limits: fused where that is exact, an operator of their own where not."""

import numpy as np
import pytest

from bridge.exact.graph import Limits
from bridge.exact.lowering.activation import fused_activation, limit
from tests.builders import activation, single_node

INF = np.inf


def activation_of(low, high, y):
    graph = single_node("Limit", activation("x", (1, 4), 0.5), output=y, within=(low, high))
    return fused_activation(graph.nodes[0], y)


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0.0, INF, "RELU"), (0.0, 6.0, "RELU6"), (-1.0, 1.0, "RELU_N1_TO_1"), (-INF, INF, "NONE")],
)
def test_limits_that_tflite_has_a_name_for_are_fused(low, high, name):
    assert activation_of(low, high, activation("y", (1, 4))) == name


def test_limits_that_saturation_keeps_need_nothing():
    assert activation_of(-64.0, 63.5, activation("y", (1, 4), 0.5)) == "NONE"


def test_other_limits_are_fused_where_the_codes_are_the_same():
    # 6.0 and 6.1 are both the code 12 at scale 0.5.
    assert activation_of(0.0, 6.1, activation("y", (1, 4), 0.5)) == "RELU6"


def test_an_upper_limit_above_the_largest_code_is_a_plain_relu():
    assert activation_of(0.0, 100.0, activation("y", (1, 4), 0.5)) == "RELU"


def test_other_limits_have_no_activation():
    assert activation_of(0.0, 3.0, activation("y", (1, 4), 0.5)) is None
    assert activation_of(0.0, 3.0, activation("y", (1, 4))) is None


X, Y = activation("x", (1, 4), 0.5, 1), activation("y", (1, 4), 0.5, 1)


def bounds(lowered):
    constants = {tensor.name: tensor.values.item() for tensor in lowered.tensors if tensor.is_constant}
    return [(node.op, constants[node.inputs[1]]) for node in lowered.nodes]


def test_limits_become_codes():
    assert bounds(limit("n", X, Y, Limits(-2.0, 3.0))) == [("MAXIMUM", -3), ("MINIMUM", 7)]  # -2 / 0.5 + 1, 3 / 0.5 + 1


def test_a_limit_that_saturation_keeps_is_left_out():
    assert bounds(limit("n", X, Y, Limits(-1000.0, 3.0))) == [("MINIMUM", 7)]


def test_limits_of_a_float_tensor_stay_real():
    assert bounds(limit("n", activation("x", (1,)), activation("y", (1,)), Limits(-INF, 3.0))) == [("MINIMUM", 3.0)]


def test_no_limit_at_all_copies():
    assert [node.op for node in limit("n", X, Y, Limits(-INF, INF)).nodes] == ["RESHAPE"]


def test_the_bound_is_on_the_grid_of_the_tensor():
    (bound,) = [tensor for tensor in limit("n", X, Y, Limits(-INF, 3.0)).tensors if tensor.is_constant]
    assert bound.q == Y.q


@pytest.mark.parametrize(
    ("low", "high", "fine", "name"),
    [(0.0, 6.0, 2.0**-28, "RELU"), (-1.0, 1.0, 2.0**-31, "NONE")],
    ids=["6", "1"],
)
def test_a_limit_of_more_steps_than_its_kernel_counts_is_left_away(low, high, fine, name):
    assert activation_of(low, high, activation("y", (1, 4), fine)) == name
    assert activation_of(low, high, activation("y", (1, 4), 4 * fine)) != name
