"""What happens where a kernel cannot change the scale, where a clamp was trained, and where nothing was."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import Limits, Node, per_tensor
from bridge.exact.passes.rescale import rescale
from tests.builders import activation, float_constant, graph_of, notes, ops, single_node, weight

X = activation("x", (1, 4), 0.5, 3)
OTHER = per_tensor(0.25, -7)
Y = activation("y", (1, 4), 0.25, -7)


def rescaled(op, *operands, output=Y, allow_float=False, **attrs):
    return rescale(single_node(op, *operands, output=output, **attrs), allow_float=allow_float)


def chain(graph):
    return [(node.op, graph.output(node).qparams) for node in graph.nodes]


@pytest.mark.parametrize("op", ["MaxPool", "Reshape", "Slice", "Pad", "Gather", "Resize"])
def test_a_kernel_that_shares_its_scale_is_followed_by_a_quantize(op):
    graph = rescaled(op, X, value=0.0)
    assert chain(graph) == [(op, X.q), ("Quantize", OTHER)]
    assert graph.outputs == ("y",)
    assert len(notes(graph, "requantized")) == 1


def test_an_average_with_a_trained_scale_of_its_own_is_rounded_once():
    coarser = rescaled("AveragePool", X, output=activation("y", (1, 4), 1.0), pads=[0, 0, 0, 0])
    assert ops(coarser) == ops(rescaled("AveragePool", X, pads=[0, 0, 0, 0])) == ["AveragePool"]  # a convolution then


def test_an_average_that_leaves_its_padding_out_is_rounded_twice_and_said():
    graph = rescaled("AveragePool", X, output=activation("y", (1, 4), 1.0), pads=[1, 1, 1, 1])
    assert ops(graph) == ["AveragePool", "Quantize"]
    assert [note.off for note in notes(graph, "twice")] == [float(X.q.scale) / 2]


def test_a_limit_is_applied_at_the_scale_of_the_output():
    graph = rescaled("Limit", X, within=(0.0, 6.0))
    assert chain(graph) == [("Quantize", OTHER), ("Limit", OTHER)]


@pytest.mark.parametrize(
    ("low", "high", "made"),
    [
        (0.0, np.inf, ["MaxPool", "Quantize"]),  # code 3
        (-np.inf, 5.0, ["MaxPool", "Quantize"]),  # code 13
        (-500.0, 500.0, ["MaxPool", "Quantize"]),  # beyond the codes on its own side
        (70.0, np.inf, ["MaxPool", "Quantize", "Limit"]),  # beyond the last code, 62
        (-np.inf, -70.0, ["MaxPool", "Quantize", "Limit"]),
        (-np.inf, 5.1, ["MaxPool", "Quantize", "Limit"]),  # between two codes
    ],
)
def test_limits_of_what_is_rescaled_are_kept_where_they_are_codes_of_it(low, high, made):
    assert ops(rescaled("MaxPool", X, within=(low, high))) == made


def test_a_limit_where_the_output_saturates_is_only_a_change_of_scale():
    graph = rescaled("Limit", X, output=activation("y", (1, 4), 0.25, -128), within=(0.0, float("inf")))
    assert ops(graph) == ["Quantize"]


def test_a_kernel_that_shares_its_scale_stays_alone_where_training_did_the_same():
    assert ops(rescaled("MaxPool", X, output=activation("y", (1, 4), 0.5, 3))) == ["MaxPool"]


@pytest.mark.parametrize("op", ["Conv", "Add", "Mul", "Mean", "LeakyRelu"])
def test_a_kernel_that_rescales_itself_is_left_alone(op):
    operands = [X, weight("w", [[1]], 0.5)] if op == "Conv" else [X]
    assert ops(rescaled(op, *operands)) == [op]


def test_softmax_at_a_trained_scale_is_rescaled_from_the_prescribed_one():
    assert chain(rescaled("Softmax", X)) == [("Softmax", per_tensor(1 / 256, -128)), ("Quantize", OTHER)]


@pytest.mark.parametrize("op", ["Concat", "Min", "Max"])
def test_operands_of_other_scales_are_brought_to_that_of_the_output(op):
    graph = rescaled(op, X, activation("z", (1, 4), 0.25, -7))
    quantize, joined = graph.nodes
    assert (quantize.op, quantize.inputs) == ("Quantize", ("x",))
    assert joined.inputs == (quantize.outputs[0], "z")
    assert {graph.tensors[name].q for name in (*joined.inputs, *joined.outputs)} == {OTHER}


@pytest.mark.parametrize("op", ["Concat", "Min", "Max"])
def test_a_constant_operand_becomes_codes_at_the_scale_of_the_output(op):
    graph = rescaled(op, activation("x", (1, 4), 0.25, -7), float_constant("k", [0.5]))
    k = graph.operands(graph.nodes[0])[1]
    assert k.q == OTHER
    assert k.values.tolist() == [-5]  # 0.5 / 0.25 - 7


def test_each_output_of_a_split_is_rescaled_on_its_own():
    graph = rescaled("Split", X, output=[activation("y", (1, 2), 0.5, 3), activation("z", (1, 2), 0.25)])
    assert ops(graph) == ["Split", "Quantize"]
    assert graph.nodes[1].outputs == ("z",)


CLAMPED = activation("h", (1, 4), 0.5, 0, 0, 127)
AFTER = activation("y", (1, 4), 0.5)


def into(node, h, y=AFTER, more=()):
    """x -> node -> h -> LeakyRelu -> y: the clamped tensor is not an output."""
    nodes = [node, Node("LeakyRelu", "after", ("h",), ("y",))]
    return rescale(graph_of(nodes, [X, h, y, *more], ["y"]))


def test_saturation_and_relu_keep_a_seven_bit_clamp_at_no_cost():
    graph = into(Node("LeakyRelu", "node", ("x",), ("h",), limits=Limits(low=0.0)), CLAMPED)
    assert ops(graph) == ["LeakyRelu", "LeakyRelu"]
    assert [note.what for note in notes(graph, "clamped")] == ["at 0 and 127, at no cost"]


def test_a_lower_clamp_without_relu_gets_an_operator_of_its_own():
    graph = into(Node("LeakyRelu", "node", ("x",), ("h",)), CLAMPED)
    assert ops(graph) == ["LeakyRelu", "Clamp", "LeakyRelu"]
    before = graph.output(graph.nodes[0])
    assert before.q == per_tensor(0.5, 0)
    assert [note.what for note in notes(graph, "clamped")] == ["at 0 and 127, by an operator of its own"]


@pytest.mark.parametrize(("zero_point", "made"), [(64, []), (0, []), (-1, ["Clamp"])])
def test_relu_is_a_lower_clamp_where_the_zero_point_is_not_below_it(zero_point, made):
    h = activation("h", (1, 4), 0.5, zero_point, 0, 127)
    graph = into(Node("LeakyRelu", "node", ("x",), ("h",), limits=Limits(low=0.0)), h)
    assert ops(graph) == ["LeakyRelu", *made, "LeakyRelu"]


def test_a_limit_outside_a_clamp_that_its_input_has_too_leaves_it():
    """Codes up to 100 whose zero point is 110: a ReLU writes 110, training clamped that to 100."""
    x, y = (activation(name, (1, 4), 0.5, 110, -128, 100) for name in ("x", "y"))
    assert ops(rescaled("Limit", x, output=y, within=(0.0, np.inf))) == ["Limit", "Clamp"]
    assert ops(rescaled("Limit", x, output=y, within=(-10.0, np.inf))) == ["Limit"]
    assert ops(rescaled("Pad", x, output=y, value=0.0)) == ["Pad", "Clamp"]
    assert ops(rescaled("Pad", x, output=y, value=-10.0)) == ["Pad"]


def test_each_output_of_a_split_is_clamped_on_its_own():
    x = activation("x", (1, 4), 0.5)
    y, z = activation("y", (1, 2), 0.5, 0, -128, 100), activation("z", (1, 2), 0.5)
    graph = rescale(graph_of([Node("Split", "node", ("x",), ("y", "z"))], [x, y, z], ["y", "z"]))
    split, clamp = graph.nodes
    assert (split.outputs[1], clamp.outputs) == ("z", ("y",))
    assert graph.tensors[split.outputs[0]].q == per_tensor(0.5, 0)


def test_an_upper_clamp_below_127_gets_an_operator_of_its_own():
    graph = into(Node("LeakyRelu", "node", ("x",), ("h",)), activation("h", (1, 4), 0.5, 0, -128, 100))
    assert ops(graph) == ["LeakyRelu", "Clamp", "LeakyRelu"]


def test_what_only_moves_clamped_codes_needs_no_second_clamp():
    graph = rescaled("Reshape", CLAMPED, output=activation("y", (4, 1), 0.5, 0, 0, 127))
    assert ops(graph) == ["Reshape"]


def test_a_concatenation_is_clamped_only_when_all_its_inputs_are():
    y = activation("y", (1, 8), 0.5, 0, 0, 127)
    alike = activation("z", (1, 4), 0.5, 0, 0, 127)
    assert ops(rescaled("Concat", CLAMPED, alike, output=y)) == ["Concat"]
    assert ops(rescaled("Concat", CLAMPED, activation("z", (1, 4), 0.5), output=y)) == ["Concat", "Clamp"]


def test_a_clamp_at_a_model_output_is_kept_too():
    graph = rescaled("LeakyRelu", X, output=activation("y", (1, 4), 0.5, 0, 0, 127))
    assert ops(graph) == ["LeakyRelu", "Clamp"]
    assert graph.outputs == ("y",)


def test_a_tensor_without_a_scale_is_refused_by_operator_and_tensor_and_count():
    with pytest.raises(BridgeError, match=r"LeakyRelu 'node', tensor 'y': has no trained scale \(1 tensor of"):
        rescaled("LeakyRelu", X, output=activation("y", (1, 4)))


def test_a_model_without_any_pair_is_told_so():
    with pytest.raises(BridgeError, match="there is no Q/DQ pair in this model"):
        rescaled("LeakyRelu", activation("x", (1, 4)), output=activation("y", (1, 4)))


def test_a_weight_without_a_scale_is_refused():
    with pytest.raises(BridgeError, match="Conv 'node', tensor 'w': has no trained scale") as refused:
        rescaled("Conv", X, float_constant("w", [[1]]), float_constant("b", [0]))
    assert refused.value.remedy.startswith("It is a weight: give it a fake-quant of its own")


def test_an_operator_left_in_float_stands_between_dequantize_and_quantize():
    nodes = [Node("LeakyRelu", "a", ("x",), ("t",)), Node("LeakyRelu", "b", ("t",), ("y",))]
    graph = rescale(graph_of(nodes, [X, activation("t", (1, 4)), Y], ["y"]), allow_float=True)
    assert ops(graph) == ["Dequantize", "LeakyRelu", "LeakyRelu", "Quantize"]
    assert [note.where for note in notes(graph, "float")] == ["LeakyRelu 'a'", "LeakyRelu 'b'"]
    assert graph.tensors["y"].q == OTHER


def test_a_float_operator_behind_a_trained_rounding_reads_what_was_rounded():
    """Not what the float operator before computed: training rounded that, and limited it, in between."""
    h, z = activation("h", (1, 4), 0.5), activation("z", (1, 4))
    nodes = [Node("LeakyRelu", "a", ("x",), ("h",)), Node("LeakyRelu", "b", ("h",), ("z",))]
    graph = rescale(graph_of(nodes, [activation("x", (1, 4)), h, z], ["z"]), allow_float=True)
    assert ops(graph) == ["LeakyRelu", "Quantize", "Dequantize", "LeakyRelu"]
    assert [node.inputs for node in graph.nodes[2:]] == [("h",), graph.nodes[2].outputs]


def test_constants_of_a_float_operator_are_dequantized_now():
    graph = rescaled(
        "Mul", activation("x", (1, 2)), weight("w", [[1, 2]], 0.5), output=activation("y", (1, 2)), allow_float=True
    )
    assert ops(graph) == ["Mul"]
    assert graph.operands(graph.nodes[0])[1].values.tolist() == [[0.5, 1.0]]


def test_a_tensor_read_by_two_float_operators_is_dequantized_once():
    nodes = [Node("LeakyRelu", "a", ("x",), ("s",)), Node("LeakyRelu", "b", ("x",), ("t",))]
    graph = graph_of(nodes, [X, activation("s", (1, 4)), activation("t", (1, 4))], ["s", "t"])
    assert ops(rescale(graph, allow_float=True)).count("Dequantize") == 1
