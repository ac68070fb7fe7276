"""The records: what always holds, equality by bits, and the check between passes."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Origin, QParams, Tensor, check, per_tensor, without_unused
from tests.builders import activation, float_constant, graph_of, single_node, weight

SCALES = np.array([0.5, 0.25], np.float32)
ZEROS = np.zeros(2, np.int32)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_must_be_positive_and_finite(scale):
    with pytest.raises(AssertionError, match="scale"):
        per_tensor(scale, 0)


def test_a_scale_must_be_float32():
    with pytest.raises(AssertionError, match="float64"):
        QParams(np.array(0.5), np.array(0, np.int32))


def test_per_channel_parameters_need_an_axis():
    with pytest.raises(AssertionError, match="axis None"):
        QParams(SCALES, ZEROS)


def test_a_range_needs_two_codes():
    with pytest.raises(AssertionError, match=r"5\.\.5"):
        per_tensor(0.5, 0, 5, 5)


def test_one_scale_for_each_channel_of_the_tensor():
    with pytest.raises(AssertionError, match="2 scales for 3 channels"):
        Tensor("w", (3, 2), np.dtype(np.int8), None, QParams(SCALES, ZEROS, 0))


def test_data_must_have_the_shape_the_tensor_says():
    with pytest.raises(AssertionError, match="Tensor 'w'"):
        Tensor("w", (3,), np.dtype(np.int8), np.zeros(2, np.int8))


def test_equality_compares_bits():
    nearest = np.nextafter(np.float32(0.1), np.float32(1))
    assert per_tensor(0.1, 3) == per_tensor(0.1, 3)
    assert per_tensor(0.1, 3) != per_tensor(nearest, 3)
    assert hash(per_tensor(0.1, 3)) == hash(per_tensor(0.1, 3))


def test_a_clamp_makes_parameters_differ_but_not_their_grid():
    whole, clamped = per_tensor(0.1, 0), per_tensor(0.1, 0, 0, 127)
    assert whole != clamped
    assert whole.same_grid(clamped)


def test_parameters_read_as_a_person_would_say_them():
    assert str(per_tensor(0.5, -3)) == "scale 0.5, zero point -3"
    assert str(QParams(SCALES, ZEROS, 0)) == "2 scales from 0.25 to 0.5 on axis 0"


def test_only_per_channel_parameters_move_with_their_axis():
    assert QParams(SCALES, ZEROS, 0).on_axis(3).axis == 3
    assert per_tensor(0.1, 0).on_axis(3).axis is None


def test_real_values_of_codes_use_the_scale_of_their_channel():
    w = weight("w", [[2, 4], [2, 4]], [0.5, 0.25])
    assert_array_equal(w.real, np.array([[1, 2], [0.5, 1]], np.float32))


def test_a_value_computed_at_run_time_is_no_constant():
    with pytest.raises(BridgeError, match="tensor 'x': must be a constant"):
        _ = activation("x", (1,)).values


def test_a_tensor_without_a_trained_scale_says_so():
    with pytest.raises(BridgeError, match="tensor 'x': has no trained scale"):
        _ = activation("x", (1,)).q


def test_an_origin_arranges_the_onnx_values_as_they_are_stored():
    nchw = np.arange(12).reshape(1, 3, 2, 2)
    assert_array_equal(Origin("x", (0, 2, 3, 1)).arrange(nchw, (1, 2, 2, 3)), nchw.transpose(0, 2, 3, 1))
    assert_array_equal(Origin("f", None, np.array([2, 0, 1])).arrange(np.array([[7, 8, 9]]), (1, 3)), [[9, 7, 8]])


def test_a_missing_operand_is_none_and_keeps_the_places_of_the_others():
    graph = single_node("Clip", activation("x", (1,)), None, float_constant("high", 6.0), output=activation("y", (1,)))
    (node,) = graph.nodes
    assert graph.operand(node, 1) is None
    assert graph.operand(node, 2).name == "high"
    assert graph.operand(node, 3) is None


def test_what_no_output_needs_is_dropped_and_inputs_stay():
    x, y, z = (activation(name, (1,)) for name in "xyz")
    graph = graph_of([Node("Relu", "a", ("x",), ("y",)), Node("Relu", "b", ("x",), ("z",))], [x, y, z], ["y"])
    kept = without_unused(graph)
    assert [node.name for node in kept.nodes] == ["a"]
    assert set(kept.tensors) == {"x", "y"}


def test_check_names_the_pass_that_reads_before_writing():
    x, y, z = (activation(name, (1,)) for name in "xyz")
    nodes = (Node("Relu", "b", ("y",), ("z",)), Node("Relu", "a", ("x",), ("y",)))
    with pytest.raises(AssertionError, match="after layout: 'y' is read before"):
        check(Graph(nodes, {"x": x, "y": y, "z": z}, ("x",), ("z",)), after="layout")


def test_check_names_the_pass_that_writes_a_tensor_twice():
    x, y = activation("x", (1,)), activation("y", (1,))
    nodes = (Node("Relu", "a", ("x",), ("y",)), Node("Relu", "b", ("x",), ("y",)))
    with pytest.raises(AssertionError, match="fuse: Relu 'b' writes 'y' a second time"):
        check(Graph(nodes, {"x": x, "y": y}, ("x",), ("y",)), after="fuse")
