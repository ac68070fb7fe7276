"""Channels last without moving an element that need not move; every case is held against numpy by running it."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.verifying.litert import Runner
from tests.builders import Pair, constant, float_constant, integers, notes, ops, qdq_model, weight

SCALE = Pair(1.0)
"""Codes are the numbers themselves."""


def converted(*steps, shape, constants=(), outputs="y", pairs=("x",), **options):
    model = qdq_model(
        *steps, inputs={"x": shape}, pairs=dict.fromkeys(pairs, SCALE), outputs=outputs, constants=constants
    )
    return convert(model, Options(**options))


def counting(*shape):
    """0, 1, 2, ... as int8 codes in the ONNX order."""
    return np.arange(np.prod(shape), dtype=np.int8).reshape(shape)


def run(conversion, x):
    return Runner(conversion.tflite, "reference")({"x": np.ascontiguousarray(x)})["y"]


def nhwc(array):
    return array.transpose(0, 2, 3, 1)


SHUFFLE = [
    ("Reshape", "x apart", "a"),
    ("Transpose", "a", "b", {"perm": [0, 2, 1, 3, 4]}),
    ("Reshape", "b together", "y"),
]
SHUFFLE_SHAPES = [integers("apart", [1, 2, 3, 2, 2]), integers("together", [1, 6, 2, 2])]


def test_a_channel_shuffle_is_reshape_transpose_reshape_in_nhwc():
    done = converted(*SHUFFLE, shape=(1, 6, 2, 2), constants=SHUFFLE_SHAPES)
    assert ops(done.graph) == ["RESHAPE", "TRANSPOSE", "RESHAPE"]
    assert [done.graph.tensors[name].shape for name in (*done.graph.inputs, *done.graph.outputs)] == [(1, 2, 2, 6)] * 2
    x = counting(1, 6, 2, 2)
    shuffled = x.reshape(1, 2, 3, 2, 2).transpose(0, 2, 1, 3, 4).reshape(1, 6, 2, 2)
    assert_array_equal(run(done, nhwc(x)), nhwc(shuffled))


def test_transposes_that_cancel_vanish():
    done = converted(
        ("Transpose", "x", "a", {"perm": [0, 2, 3, 1]}),
        ("Relu", "a", "b"),
        ("Transpose", "b", "y", {"perm": [0, 3, 1, 2]}),
        shape=(1, 3, 2, 2),
    )
    assert ops(done.graph) == ["RELU"]
    assert notes(done.graph, "transposed") == []
    assert_array_equal(run(done, nhwc(counting(1, 3, 2, 2))), nhwc(counting(1, 3, 2, 2)))


def test_a_transpose_to_channels_last_in_the_model_itself_costs_nothing():
    done = converted(
        ("Transpose", "x", "a", {"perm": [0, 3, 1, 2]}), ("Relu", "a", "y"), shape=(1, 2, 2, 3), layout="nchw"
    )
    assert ops(done.graph) == ["RELU", "TRANSPOSE"]  # the ONNX output is NCHW and stays so
    assert_array_equal(run(done, counting(1, 2, 2, 3)), counting(1, 2, 2, 3).transpose(0, 3, 1, 2))


def test_a_transpose_that_is_left_over_gets_a_note_with_both_shapes():
    done = converted(("Flatten", "x", "y"), shape=(1, 3, 2, 2))
    (note,) = notes(done.graph, "transposed")
    assert note.what == "(1, 2, 2, 3) to (1, 3, 2, 2)"
    assert_array_equal(run(done, nhwc(counting(1, 3, 2, 2))), counting(1, 12))


def test_a_dense_layer_after_a_flatten_has_its_weight_permuted_instead():
    codes = np.arange(24).reshape(2, 12) - 12
    done = converted(
        ("Flatten", "x", "f"),
        ("Gemm", "f w", "y", {"transB": 1}),
        shape=(1, 3, 2, 2),
        constants=[weight("w", codes, 1.0)],
        pairs=("x", "y"),
    )
    assert ops(done.graph) == ["RESHAPE", "FULLY_CONNECTED"]
    kernel = done.graph.operands(done.graph.nodes[1])[1]
    assert_array_equal(kernel.values, codes.reshape(2, 3, 2, 2).transpose(0, 2, 3, 1).reshape(2, 12))
    x = np.eye(12, dtype=np.int8)[5].reshape(1, 3, 2, 2)
    assert_array_equal(run(done, nhwc(x)), codes[:, 5][None])


@pytest.mark.parametrize(
    ("between", "pairs"),
    [
        ([("Reshape", "x s", "f")], "xy"),
        ([("Flatten", "x", "a"), ("Relu", "a", "f")], "xy"),
        ([("Flatten", "x", "a"), ("Dropout", "a", "f")], "xy"),
        ([("Flatten", "x", "f")], "xfy"),
    ],
    ids=["reshape", "relu between", "dropout between", "pair between"],
)
def test_other_ways_to_flatten_before_a_dense_layer_need_no_transpose(between, pairs):
    codes = np.arange(24).reshape(2, 12) - 12
    done = converted(
        *between,
        ("Gemm", "f w", "y", {"transB": 1}),
        shape=(1, 3, 2, 2),
        constants=[weight("w", codes, 1.0), integers("s", [1, -1])],
        pairs=pairs,
    )
    assert "TRANSPOSE" not in ops(done.graph)
    x = np.eye(12, dtype=np.int8)[7].reshape(1, 3, 2, 2)
    assert_array_equal(run(done, nhwc(x)), codes[:, 7][None])


def test_nchw_transposes_at_the_border_and_keeps_the_onnx_shapes():
    step = ("MaxPool", "x", "y", {"kernel_shape": [2, 2]})
    done = converted(step, shape=(1, 3, 4, 4), layout="nchw")
    assert ops(done.graph) == ["TRANSPOSE", "MAX_POOL_2D", "TRANSPOSE"]
    assert done.graph.tensors["x"].shape == (1, 3, 4, 4)
    assert done.graph.tensors["y"].shape == (1, 3, 3, 3)
    assert_array_equal(run(done, counting(1, 3, 4, 4)), counting(1, 3, 4, 4)[:, :, 1:, 1:])


def test_by_default_images_are_channels_last_and_other_ranks_stay():
    done = converted(("ReduceMean", "x", "y", {"axes": [2, 3], "keepdims": 0}), shape=(1, 3, 4, 4))
    assert done.graph.tensors["x"].shape == (1, 4, 4, 3)
    assert done.graph.tensors["y"].shape == (1, 3)


PADS = integers("p", [0, 1, 0, 0, 0, 0, 0, 2])
BOUNDS = [integers("from", [1, 0]), integers("to", [3, 1]), integers("axes", [1, 3])]
PER_CHANNEL = float_constant("k", np.array([1, 2, 3], np.float32).reshape(3, 1, 1))

ON_AXES = {
    "Concat": ([("Concat", "x x", "y", {"axis": 1})], [], lambda x: np.concatenate([x, x], 1)),
    "Slice": ([("Slice", "x from to axes", "y")], BOUNDS, lambda x: x[:, 1:3, :, :1]),
    "Pad": ([("Pad", "x p", "y")], [PADS], lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 2)))),
    "Gather": ([("Gather", "x i", "y", {"axis": 1})], [integers("i", [2, -3])], lambda x: x[:, [2, 0]]),
    "Gather one": ([("Gather", "x i", "y", {"axis": 1})], [integers("i", 1)], lambda x: x[:, 1]),
    "Gather table": (
        [("Gather", "x i", "g", {"axis": 1}), ("Flatten", "g", "y")],
        [integers("i", [[0, 1], [2, 0]])],
        lambda x: x[:, [[0, 1], [2, 0]]].reshape(1, -1),
    ),
    "Split": ([("Split", "x s", "y z", {"axis": 1})], [integers("s", [1, 2])], lambda x: x[:, :1]),
    "Squeeze": ([("Squeeze", "x a", "y")], [integers("a", [0])], lambda x: x[0]),
    "Unsqueeze": ([("Unsqueeze", "x a", "y")], [integers("a", [1])], lambda x: x[:, None]),
    "Max per channel": ([("Max", "x k", "y")], [PER_CHANNEL], lambda x: np.maximum(x, [[[1]], [[2]], [[3]]])),
    "merge spatial": ([("Reshape", "x s", "y")], [integers("s", [1, 3, 4])], lambda x: x.reshape(1, 3, 4)),
    "tokens": (
        [("Reshape", "x s", "t"), ("Transpose", "t", "y", {"perm": [0, 2, 1]})],
        [integers("s", [1, 3, 4])],
        lambda x: x.reshape(1, 3, 4).transpose(0, 2, 1),
    ),
    "split channels": ([("Reshape", "x s", "y")], [integers("s", [3, 2, 2])], lambda x: x.reshape(3, 2, 2)),
    "mix": ([("Reshape", "x s", "y")], [integers("s", [2, 6])], lambda x: x.reshape(2, 6)),
}
"""Operators with axes: what they do to an NCHW array, by numpy."""


@pytest.mark.parametrize("name", ON_AXES)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_axes_of_the_onnx_model_mean_the_same_elements_afterwards(name, layout):
    steps, constants, by_numpy = ON_AXES[name]
    outputs = "y z" if name == "Split" else "y"
    pairs = ("x", "y") if name == "Max per channel" else ("x",)
    done = converted(*steps, shape=(1, 3, 2, 2), constants=constants, outputs=outputs, pairs=pairs, layout=layout)
    x = counting(1, 3, 2, 2)
    got = run(done, x if layout == "nchw" else nhwc(x))
    y = done.graph.tensors["y"]
    assert_array_equal(got, y.origin.arrange(by_numpy(x), y.shape) if y.origin else by_numpy(x))


def test_softmax_runs_over_the_axis_the_model_says():
    done = converted(("Softmax", "x", "y", {"axis": 1}), shape=(1, 3, 2, 2))
    assert ops(done.graph) == ["SOFTMAX"]  # channels are the last axis already


def test_an_operand_of_lower_rank_is_broadcast_as_onnx_does():
    k = constant("k", np.array([10, 20], np.float32))  # along the width
    done = converted(("Max", "x k", "y"), shape=(1, 3, 2, 2), constants=[k], pairs=("x", "y"))
    x = counting(1, 3, 2, 2)
    assert_array_equal(run(done, nhwc(x)), nhwc(np.maximum(x, [10, 20])))


def test_a_model_whose_two_branches_want_one_copy_gets_one_transpose():
    done = converted(
        ("Flatten", "x", "f"), ("Relu", "x", "r"), ("Flatten", "r", "g"), ("Concat", "f g", "y", {"axis": 1}),
        shape=(1, 3, 2, 2),
    )  # fmt: skip
    x = counting(1, 3, 2, 2)
    assert_array_equal(run(done, nhwc(x)), np.concatenate([x.reshape(1, 12)] * 2, 1))


def test_slicing_backwards_is_refused_with_the_step():
    backwards = [*(integers(name, [value]) for name, value in (("a", -1), ("b", -9), ("c", 3), ("d", -1)))]
    refused = partial(converted, ("Slice", "x a b c d", "y"), shape=(1, 3, 2, 2), constants=backwards)
    with pytest.raises(BridgeError, match=r"Slice 'y': slices backwards \(step -1\)"):
        refused()
