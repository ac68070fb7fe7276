"""What a weight, a bias or an activation can take over; what a trained rounding forbids."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.exact.graph import Limits, Node
from bridge.exact.passes.fuse import fuse
from tests.builders import activation, float_constant, graph_of, int32_codes, notes, ops, weight

X, Y = activation("x", (1, 2), 0.5), activation("y", (1, 2), 0.25)
B = float_constant("b", [1, 2])


def chain(*steps, between=(), w=None, bias=B, extra=(), outputs=("y",)):
    """x -> Gemm -> steps -> y; a step is (operator, constant operands, limits) of a node named like its operator."""
    w = w or weight("w", [[10, 20], [30, 40]], [0.5, 0.25])
    nodes, last = [Node("Gemm", "dense", ("x", w.name, bias.name), ("t0",))], "t0"
    for index, (op, operands, limits) in enumerate(steps):
        target = "y" if index == len(steps) - 1 else f"t{index + 1}"
        nodes.append(Node(op, op, (last, *operands), (target,), limits=limits))
        last = target
    open_tensors = [activation(f"t{index}", (1, 2)) for index in range(len(steps))]
    tensors = {tensor.name: tensor for tensor in (X, w, bias, Y, *open_tensors, *extra, *between)}
    return graph_of(nodes, list(tensors.values()), outputs)


def weight_and_bias(graph):
    (node,) = graph.nodes
    return graph.operands(node)[1:]


def affine(factor, offset):
    return [float_constant("f", factor), float_constant("o", offset)]


def test_a_factor_scales_the_scales_and_leaves_the_codes():
    graph = fuse(chain(("ChannelAffine", ("f", "o"), None), extra=affine([2, 4], [10, 20])))
    w, b = weight_and_bias(graph)
    assert_array_equal(w.values, [[10, 20], [30, 40]])
    assert_array_equal(w.q.scale, [1, 1])  # 0.5 * 2, 0.25 * 4
    assert_array_equal(b.values, [12, 28])  # 2 * 1 + 10, 4 * 2 + 20


def test_a_negative_factor_turns_the_codes():
    graph = fuse(chain(("ChannelAffine", ("f", "o"), None), extra=affine([-2, 1], [0, 0])))
    w, b = weight_and_bias(graph)
    assert_array_equal(w.values, [[-10, -20], [30, 40]])
    assert_array_equal(w.q.scale, [1, 0.25])
    assert_array_equal(b.values, [-2, 2])


def test_a_factor_of_zero_leaves_codes_of_zero():
    graph = fuse(chain(("ChannelAffine", ("f", "o"), None), extra=affine([0, 1], [5, 0])))
    w, b = weight_and_bias(graph)
    assert_array_equal(w.values, [[0, 0], [30, 40]])
    assert_array_equal(b.values, [5, 2])


def test_a_per_tensor_weight_becomes_per_channel_under_different_factors():
    graph = fuse(chain(("ChannelAffine", ("f", "o"), None), w=weight("w", [[1, 2], [3, 4]], 0.5), extra=affine([1, 2], [0, 0])))  # fmt: skip
    w, _ = weight_and_bias(graph)
    assert_array_equal(w.q.scale, [0.5, 1.0])
    assert w.q.axis == 0


@pytest.mark.parametrize(
    ("op", "scales", "bias"),
    [("Mul", [1, 0.5], [2, 4]), ("Div", [0.25, 0.125], [0.5, 1]), ("Add", [0.5, 0.25], [3, 4]), ("Sub", [0.5, 0.25], [-1, 0])],
)  # fmt: skip
def test_arithmetic_with_a_constant_is_taken_over(op, scales, bias):
    graph = fuse(chain((op, ("k",), None), extra=[float_constant("k", 2.0)]))
    w, b = weight_and_bias(graph)
    assert_array_equal(w.q.scale, scales)
    assert_array_equal(b.values, bias)


def test_a_division_undone_by_a_multiplication_leaves_the_scales_as_they_are():
    third = float_constant("k", 3.0)
    graph = fuse(chain(("ChannelAffine", ("f", "o"), None), extra=[*affine([1 + 1e-7, 1], [0, 0]), third]))
    w, b = weight_and_bias(graph)
    assert (w.name, b.name) == ("w", "b")


def test_limits_join_the_operator_before():
    graph = fuse(chain(("Limit", (), Limits(0.0, 6.0))))
    (node,) = graph.nodes
    assert (node.op, node.limits, node.outputs) == ("Gemm", Limits(0.0, 6.0), ("y",))
    assert [(note.where, note.what) for note in notes(graph, "fused")] == [("Limit 'Limit'", "into Gemm 'dense'")]


def test_two_limits_become_the_narrower_one():
    graph = fuse(chain(("Limit", (), Limits(0.0, np.inf)), ("Limit", (), Limits(-1.0, 1.0))))
    (node,) = graph.nodes
    assert node.limits == Limits(0.0, 1.0)


def test_a_factor_after_a_limit_is_not_taken_over():
    graph = fuse(chain(("Limit", (), Limits(0.0, np.inf)), ("Mul", ("k",), None), extra=[float_constant("k", 2.0)]))  # fmt: skip
    assert ops(graph) == ["Gemm", "Mul"]


def test_a_trained_rounding_in_between_is_never_removed():
    rounded = activation("t0", (1, 2), 0.125)
    graph = fuse(chain(("Limit", (), Limits(0.0, np.inf)), between=[rounded]))
    assert ops(graph) == ["Gemm", "Limit"]


def test_a_tensor_with_two_readers_is_not_taken_over():
    graph = chain(("Limit", (), Limits(0.0, np.inf)), outputs=("y", "t0"))
    assert ops(fuse(graph)) == ["Gemm", "Limit"]


def test_a_constant_that_differs_along_another_axis_is_left_alone():
    x, t, y = activation("x", (1, 2, 2), 0.5), activation("t", (1, 2, 2)), activation("y", (1, 2, 2), 0.5)
    w, k = weight("w", [[1, 2], [3, 4]], 0.5), float_constant("k", [[[1], [2]]])
    nodes = [Node("Gemm", "dense", ("x", "w", "b"), ("t",)), Node("Mul", "mul", ("t", "k"), ("y",))]
    assert ops(fuse(graph_of(nodes, [x, t, y, w, k, B], ["y"]))) == ["Gemm", "Mul"]


def test_scales_along_the_inputs_are_left_for_the_lowering_to_refuse():
    w = weight("w", [[1, 2], [3, 4]], [0.5, 0.25], axis=1)
    assert ops(fuse(chain(("Mul", ("k",), None), w=w, extra=[float_constant("k", 2.0)]))) == ["Gemm", "Mul"]


def test_an_int32_bias_keeps_its_codes_under_a_mere_limit():
    bias = int32_codes("b", [7, 8], [0.25, 0.125])
    graph = fuse(chain(("Limit", (), Limits(0.0, np.inf)), bias=bias))
    _, b = weight_and_bias(graph)
    assert b.dtype == np.int32
