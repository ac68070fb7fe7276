"""Codes of -128 in weights: what cannot overflow stays, the rest is made safe, kept or refused, and said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Graph, Node, QParams, constant, per_tensor
from bridge.exact.names import reserved
from bridge.exact.pair_sums import pairs, with_weights
from tests.builders import Pair, activation, graph_of, notes, ops, qdq_model, weight

TWO_IN_CHANNEL_1 = [[-128, 5, 7], [-128, -128, 9], [1, -128, 3]]


def dense(codes, x=None, op="FULLY_CONNECTED") -> Graph:
    """FULLY_CONNECTED of a weight (out, in)."""
    w = weight("w", codes, 0.5)
    x = x or activation("x", (1, w.shape[1]), 0.5)
    y = activation("y", (1, w.shape[0]), 0.5)
    bias = constant("b", np.zeros(w.shape[0], np.int32), per_tensor(0.25, 0))
    return graph_of([Node(op, "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})], [x, w, bias, y], ["y"])


def test_two_codes_in_a_channel_are_made_safe_and_named_with_tensor_channel_and_count():
    graph = with_weights("safe", dense(TWO_IN_CHANNEL_1))
    assert_array_equal(graph.tensors["w"].values, [[-128, 5, 7], [-127, -127, 9], [1, -128, 3]])
    (note,) = notes(graph, "weights")
    assert note.where == "FULLY_CONNECTED 'dense', weight 'w'"
    assert note.what.startswith("2 codes of -128 in channel 1 of 3, made -127: ")
    assert not any(found.overflows for found in pairs(graph))


def test_keep_changes_nothing_and_says_where_it_is_wrong():
    graph = with_weights("keep", dense(TWO_IN_CHANNEL_1))
    assert_array_equal(graph.tensors["w"].values, TWO_IN_CHANNEL_1)
    (note,) = notes(graph, "weights")
    assert note.what.startswith("2 codes of -128 in channel 1 of 3, kept as asked: LiteRT on ARM Cortex-A ")


def test_refuse_stops_with_the_numbers_and_the_ways_out():
    with pytest.raises(BridgeError, match=r"2 codes of -128 in channel 1 of 3; .*\n.*quant_min=-127.*--weights keep"):
        with_weights("refuse", dense(TWO_IN_CHANNEL_1))


@pytest.mark.parametrize("choice", ["safe", "keep", "refuse"])
def test_one_code_in_a_channel_is_harmless_and_stays(choice):
    graph = with_weights(choice, dense([[-128, 5], [3, -128]]))
    assert_array_equal(graph.tensors["w"].values, [[-128, 5], [3, -128]])
    (note,) = graph.notes
    assert (note.kind, note.what) == (
        "harmless",
        "2 of 4 codes are -128, kept as trained: there is one in an output channel at most",
    )


def test_an_input_that_never_reaches_minus_128_makes_any_code_harmless():
    raised = replace(activation("raised", (1, 3), 0.5))
    floor = constant("floor", np.array(-127, np.int8), per_tensor(0.5, 0))
    graph = dense(TWO_IN_CHANNEL_1)
    (node,) = graph.nodes
    nodes = (Node("MAXIMUM", "m", ("x", "floor"), ("raised",)), replace(node, inputs=("raised", "w", "b")))
    graph = replace(graph, nodes=nodes, tensors={**graph.tensors, "raised": raised, "floor": floor})
    kept = with_weights("safe", graph)
    assert_array_equal(kept.tensors["w"].values, TWO_IN_CHANNEL_1)
    (note,) = kept.notes
    assert note.what == "4 of 9 codes are -128, kept as trained: no code of its input is below -127"


def windows(op: str, padding: str, zero_point: int, low: int) -> Graph:
    """A 3x3 operator with weights of -128 on an input held at `low` and above."""
    x, raised = activation("x", (1, 4, 4, 1), 0.5, zero_point), activation("raised", (1, 4, 4, 1), 0.5, zero_point)
    floor = constant("floor", np.array(low, np.int8), per_tensor(0.5, zero_point))
    w = weight("w", np.full((1, 3, 3, 1), -128), 0.5)
    y, shape = activation("y", (1, 6, 6, 1), 0.5), constant("shape", np.array([1, 6, 6, 1], np.int32))
    inputs = ("shape", "w", "raised") if op == "TRANSPOSE_CONV" else ("raised", "w")
    nodes = [
        Node("MAXIMUM", "m", ("x", "floor"), ("raised",)),
        Node(op, "conv", inputs, ("y",), {"padding": padding}),
    ]
    return graph_of(nodes, [x, floor, raised, w, shape, y], ["y"])


@pytest.mark.parametrize(
    ("op", "padding", "zero_point", "low", "overflows"),
    [
        ("CONV_2D", "VALID", -128, -100, False),
        ("CONV_2D", "SAME", -128, -100, True),
        ("CONV_2D", "SAME", 0, -100, False),
        ("DEPTHWISE_CONV_2D", "SAME", -128, -100, True),
        ("DEPTHWISE_CONV_2D", "VALID", -128, -128, True),
        ("TRANSPOSE_CONV", "VALID", -128, -100, True),
        ("TRANSPOSE_CONV", "VALID", 0, -100, False),
    ],
)
def test_what_a_kernel_pads_with_is_the_zero_point_and_counts_as_input(op, padding, zero_point, low, overflows):
    (found,) = pairs(windows(op, padding, zero_point, low))
    assert found.overflows == overflows


@pytest.mark.parametrize("axis", [0, 3])
def test_channels_are_counted_along_the_axis_of_the_operator(axis):
    codes = np.ones((3, 3, 3, 3), np.int8) if axis == 0 else np.ones((1, 3, 3, 3), np.int8)
    np.moveaxis(codes, axis, 0)[2, 0, :2] = -128
    op = "CONV_2D" if axis == 0 else "DEPTHWISE_CONV_2D"
    tensors = [activation("x", (1, 4, 4, 3), 0.5), weight("w", codes, 0.5), activation("y", (1, 4, 4, 3), 0.5)]
    graph = graph_of([Node(op, "conv", ("x", "w"), ("y",), {"padding": "SAME"})], tensors, ["y"])
    (found,) = pairs(graph)
    assert found.channels == (2,)
    assert found.count == np.count_nonzero(codes == -128)
    assert not (with_weights("safe", graph).tensors["w"].values == -128).any()


def product(a=None, b=None) -> Graph:
    tensors = [
        a or activation("a", (2, 3), 0.5, -128), b or activation("b", (3, 4), 0.5), activation("y", (2, 4), 0.5)
    ]  # fmt: skip
    return graph_of([Node("BATCH_MATMUL", "product", ("a", "b"), ("y",))], tensors, ["y"])


def test_a_product_of_two_computed_tensors_gets_a_maximum_on_the_second():
    graph = with_weights("safe", product())
    maximum, multiply = graph.nodes
    assert ops(graph) == ["MAXIMUM", "BATCH_MATMUL"]
    assert multiply.inputs == ("a", maximum.outputs[0])
    assert graph.tensors[maximum.inputs[1]].values == -127
    assert graph.output(maximum).q == graph.tensors["b"].q
    assert not list(pairs(graph))
    (note,) = notes(graph, "weights")
    assert note.where == "BATCH_MATMUL 'product', operand 'b'"
    assert note.what.startswith("codes of -128, raised to -127: ")


def test_two_products_with_one_operand_share_its_maximum():
    graph = product()
    again = replace(graph.nodes[0], name="again", outputs=("z",))
    tensors = {**graph.tensors, "z": activation("z", (2, 4), 0.5)}
    graph = with_weights("safe", replace(graph, nodes=(*graph.nodes, again), tensors=tensors, outputs=("y", "z")))
    assert ops(graph) == ["MAXIMUM", "BATCH_MATMUL", "BATCH_MATMUL"]
    assert graph.nodes[1].inputs[1] == graph.nodes[2].inputs[1]


def test_names_of_the_maximum_never_meet_names_of_the_file():
    graph = product()
    taken = activation("b/above -128", (3, 4), 0.5)
    graph = replace(graph, tensors={**graph.tensors, taken.name: taken, "b/-127": activation("b/-127", (1,), 0.5)})
    with reserved(graph.tensors):
        made = with_weights("safe", graph)
    assert made.tensors[taken.name] is taken
    assert made.tensors["b/-127"] is graph.tensors["b/-127"]


def test_products_over_one_element_cannot_pair():
    graph = product(activation("a", (2, 1), 0.5), activation("b", (1, 4), 0.5))
    assert with_weights("safe", graph).nodes == graph.nodes


@pytest.mark.parametrize(("op", "seen"), [("FULLY_CONNECTED", True), ("CONV_2D", True), ("DEPTHWISE_CONV_2D", False)])
def test_hybrid_operators_quantize_their_input_themselves_and_reach_every_code(op, seen):
    """A file of somebody else: float32 in and out, int8 weights."""
    shape = (2, 4) if op == "FULLY_CONNECTED" else (1, 2, 2, 4)
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    w = constant(
        "w",
        np.full(shape, -128, np.int8),
        QParams(np.full(shape[axis], 0.5, np.float32), np.zeros(shape[axis], np.int32), axis),
    )
    x, y = activation("x", (1, 4) if len(shape) == 2 else (1, 4, 4, 4)), activation("y", (1, 2))
    graph = graph_of([Node(op, "node", ("x", "w"), ("y",), {})], [x, w, y], ["y"])
    assert [found.overflows for found in pairs(graph)] == ([True] if seen else [])


def test_products_with_int16_are_another_kernel():
    graph = dense(TWO_IN_CHANNEL_1)
    x = replace(graph.tensors["x"], dtype=np.dtype(np.int16))
    assert not list(pairs(replace(graph, tensors={**graph.tensors, "x": x})))


# The whole class: every operator, whatever the kernel pairs.

TABLE = {
    "CONV_2D": ((6, 2, 3, 4), 0),
    "DEPTHWISE_CONV_2D": ((1, 2, 3, 6), 3),
    "FULLY_CONNECTED": ((6, 24), 0),
    "TRANSPOSE_CONV": ((6, 2, 3, 4), 0),
}


@pytest.mark.parametrize("op", TABLE)
@pytest.mark.parametrize("seed", range(30))
def test_no_pairing_of_a_kernel_overflows_in_a_file_made_safe(op, seed):
    """Weights with -128 everywhere, inputs as low as they go, and the kernel may pair any two products of a channel."""
    random = np.random.default_rng(seed)
    shape, axis = TABLE[op]
    codes = random.choice(np.array([-128, -127, 0, 126, 127], np.int8), shape, p=[0.2, 0.2, 0.2, 0.2, 0.2])
    x = activation("x", (1, 5, 5, shape[-1]) if len(shape) == 4 else (1, shape[-1]), 0.5, -128)
    shape_operand = constant("shape", np.array([1, 5, 5, 6], np.int32))
    y = activation("y", (1, 5, 5, 6) if len(shape) == 4 else (1, 6), 0.5)
    inputs = ("shape", "w", "x") if op == "TRANSPOSE_CONV" else ("x", "w")
    node = Node(op, "node", inputs, ("y",), {"padding": "SAME"} if len(shape) == 4 else {})
    scales = QParams(np.full(6, 0.5, np.float32), np.zeros(6, np.int32), axis)
    graph = graph_of([node], [x, shape_operand, constant("w", codes, scales), y], ["y"])

    def overflowing(made: Graph) -> int:
        channels = np.moveaxis(made.tensors["w"].values.astype(np.int32), axis, 0).reshape(6, -1)
        products = -128 * channels  # the input that does most harm; any other gives smaller sums
        order = random.permutation(products.shape[1])
        sums = products[:, order].reshape(6, -1, 2).sum(-1)
        return int(np.count_nonzero(sums.astype(np.int16) != sums))

    assert overflowing(with_weights("safe", graph)) == 0
    assert (with_weights("safe", graph).tensors["w"].values == codes).mean() > 0.5
    if any(np.count_nonzero(channel == -128) > 9 for channel in np.moveaxis(codes, axis, 0)):
        assert overflowing(with_weights("keep", graph)) > 0  # more than half of a channel: two must meet


# Through the front door.


def model(second=-128):
    return qdq_model(
        ("Gemm", "x w", "y", {"transB": 1}),
        inputs={"x": (1, 2)},
        pairs={"x": Pair(0.5), "y": Pair(0.5)},
        outputs="y",
        constants=[weight("w", [[-128, second], [1, 2]], [0.5, 0.25])],
    )


@pytest.mark.parametrize(("choice", "expected"), [("safe", [-127, -127]), ("keep", [-128, -128])])
def test_the_option_reaches_the_file(choice, expected):
    conversion = convert(model(), Options(weights=choice))
    (node,) = conversion.graph.nodes
    assert_array_equal(conversion.graph.operands(node)[1].values[0], expected)
    assert [note.kind for note in conversion.notes if note.kind in ("weights", "harmless")] == ["weights"]


def test_refuse_stops_the_conversion_and_takes_what_is_harmless():
    with pytest.raises(BridgeError, match="codes of -128"):
        convert(model(), Options(weights="refuse"))
    convert(model(second=-127), Options(weights="refuse"))


@pytest.mark.parametrize("per_channel_dense", ["FULLY_CONNECTED", "CONV_2D"])
def test_a_dense_layer_written_as_a_convolution_is_made_safe_too(per_channel_dense):
    conversion = convert(model(), Options(per_channel_dense=per_channel_dense))
    weights = [tensor for tensor in conversion.graph.tensors.values() if tensor.is_constant and tensor.dtype == np.int8]
    assert not any((tensor.values == -128).any() for tensor in weights)
