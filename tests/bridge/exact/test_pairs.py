"""A Q/DQ pair behind operators that only rearrange belongs to the tensor before them: the same codes, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bridge.exact.convert import convert
from bridge.exact.graph import Node, per_tensor
from bridge.exact.passes.inherit import inherit
from tests.bridge.exact.graphs import Builder, Model, Seeded, Unusable
from tests.builders import activation, graph_of, notes, ops

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

Made = Callable[[Builder, str], str]


def _conv(b: Builder, x: str) -> str:
    weight, _ = b.weight(b.normal(3, b.shape(x)[1], 1, 1), axis=0)
    return str(b.add("Conv", [x, weight]))


def _batch_norm(b: Builder, x: str) -> str:
    count = b.shape(x)[1]
    numbers = [np.abs(b.normal(count)) + 0.5, b.normal(count), b.normal(count), np.abs(b.normal(count)) + 0.5]
    return str(b.add("BatchNormalization", [x, *(b.constant(each) for each in numbers)]))


_WINDOW: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [1, 1]}
_LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}

PRODUCERS: dict[str, Made] = {
    "GlobalAveragePool": lambda b, x: str(b.add("GlobalAveragePool", [x])),
    "ReduceMean": lambda b, x: str(b.add("ReduceMean", [x], axes=[b.one_of(1, 2, 3)], keepdims=1)),
    "AveragePool": lambda b, x: str(b.add("AveragePool", [x], **_WINDOW)),
    "Resize, linear": lambda b, x: str(b.add("Resize", [x, "", b.constant([1, 1, 2, 2])], **_LINEAR)),
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "Add": lambda b, x: str(b.add("Add", [x, x])),
    "LeakyRelu": lambda b, x: str(b.add("LeakyRelu", [x], alpha=0.3)),
    "Softmax": lambda b, x: str(b.add("Softmax", [x], axis=1)),
    "Sigmoid": lambda b, x: str(b.add("Sigmoid", [x])),
    "MaxPool": lambda b, x: str(b.add("MaxPool", [x], **_WINDOW)),
}


def _reshape(b: Builder, x: str) -> str:
    n, *rest = b.shape(x)
    return str(b.add("Reshape", [x, b.constant([n, 1, -1, rest[-1]], np.int64)]))


def _split(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    size = b.shape(x)[rank - 1]
    if size % 2:
        return _transpose(b, x)
    return str(b.add("Split", [x, b.constant([size // 2] * 2, np.int64)], 2, axis=rank - 1)[b.one_of(0, 1)])


def _transpose(b: Builder, x: str) -> str:
    return str(b.add("Transpose", [x], perm=[0, *(int(a) + 1 for a in b.random.permutation(len(b.shape(x)) - 1))]))


def _slice(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    numbers = [[0], [b.one_of(1, 2**31)], [b.source.integer(1, rank - 1)]]
    return str(b.add("Slice", [x, *(b.constant(each, np.int64) for each in numbers)]))


def _gather(b: Builder, x: str) -> str:
    axis = b.source.integer(1, len(b.shape(x)) - 1)
    return str(b.add("Gather", [x, b.constant([0, b.shape(x)[axis] - 1, 0], np.int64)], axis=axis))


def _pad(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    return str(b.add("Pad", [x, b.constant([0] * (rank - 1) + [1] + [0] * (rank - 1) + [2], np.int64)]))


def _max_pool(b: Builder, x: str) -> str:
    if len(b.shape(x)) != 4:
        return _transpose(b, x)
    return str(b.add("MaxPool", [x], kernel_shape=[1, 1], strides=[1, 1]))


REARRANGING: dict[str, Made] = {
    "Reshape": _reshape,
    "Flatten": lambda b, x: str(b.add("Flatten", [x])),
    "Unsqueeze": lambda b, x: str(b.add("Unsqueeze", [x, b.constant([1], np.int64)])) if len(b.shape(x)) < 4 else x,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Pad": _pad,
    "Relu": lambda b, x: str(b.add("Relu", [x])),
    "MaxPool": _max_pool,
    "Concat": lambda b, x: str(b.add("Concat", [x, x], axis=1)),
    "Max": lambda b, x: str(b.add("Max", [x, str(b.add("Relu", [x]))])),
}


def drawn(seed: int, producer: str, *, behind: bool) -> Model:
    """`producer`, one to three rearrangements, and one pair: behind all of them, or right behind the producer."""
    b = Builder(Seeded(seed), 17)
    channels, size = b.source.integer(2, 5), b.source.integer(2, 5)
    x = b.quantize(b.input(2, channels, size, size + 1, magnitude=4.0))
    y = PRODUCERS[producer](b, x)
    low, high = min(0.0, float(b.values[y].min())), max(0.0, float(b.values[y].max()))
    if low == high:
        raise Unusable("only zeros")
    scale = np.float32((high - low) / b.one_of(255, 170, 420))
    pair = scale, np.clip(np.rint(-128 - low / scale), -128, 127).astype(np.int8)
    if not behind:
        y = b.requantize(y, pair)
    for _ in range(b.source.integer(1, 3)):
        y = REARRANGING[b.one_of(*REARRANGING)](b, y)
    if behind:
        y = b.requantize(y, pair)
    return b.finish([y])


def codes(model: Model, kernels: Any) -> np.ndarray:
    from bridge.verifying.litert import Runner

    conversion = convert(model.proto)
    (x,), (y,) = conversion.graph.inputs, conversion.graph.outputs
    given = np.random.default_rng(0).integers(-128, 128, conversion.graph.tensors[x].shape).astype(np.int8)
    return Runner(conversion.tflite, kernels)({x: given})[y]


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_a_pair_behind_rearrangements_gives_the_codes_of_a_pair_before_them(producer, kernels):
    compared = 0
    for seed in range(30):
        try:
            behind, before = drawn(seed, producer, behind=True), drawn(seed, producer, behind=False)
        except Unusable:
            continue
        np.testing.assert_array_equal(codes(behind, kernels), codes(before, kernels), err_msg=f"seed {seed}")
        compared += 1
    assert compared >= 15


MEAN = Node("Mean", "mean", ("x",), ("m",), {"axes": [2, 3], "keepdims": True})
X, M, Y, Z = (
    activation("x", (1, 2, 2, 2), 0.5),
    activation("m", (1, 2, 1, 1)),
    activation("y", (1, 2), 0.125, 3),
    activation("z", (2, 1), 0.125, 3),
)


def test_readers_that_rearrange_to_the_same_parameters_agree():
    nodes = [MEAN, Node("Reshape", "a", ("m",), ("y",)), Node("Transpose", "b", ("m",), ("z",))]
    graph = inherit(graph_of(nodes, [X, M, Y, Z], ["y", "z"]))
    assert graph.tensors["m"].q == per_tensor(0.125, 3)
    assert notes(graph, "inherited") == []


def test_a_pair_of_its_own_beside_a_reshape_to_the_same_parameters_changes_nothing():
    nodes = [MEAN, Node("Quantize", "q", ("m",), ("z",)), Node("Reshape", "a", ("m",), ("y",))]
    graph = inherit(graph_of(nodes, [X, M, Y, Z], ["y", "z"]))
    assert graph.tensors["m"].q == per_tensor(0.125, 3)
    assert ops(graph) == ["Mean", "Reshape", "Reshape"]


def test_readers_that_disagree_leave_an_average_at_the_scale_of_its_input():
    other = activation("z", (2, 1), 0.25, 3)
    nodes = [MEAN, Node("Reshape", "a", ("m",), ("y",)), Node("Transpose", "b", ("m",), ("z",))]
    assert inherit(graph_of(nodes, [X, M, Y, other], ["y", "z"])).tensors["m"].q == per_tensor(0.5, 0)


def test_parts_of_a_split_that_agree_hand_their_parameters_to_the_whole():
    split = Node("Split", "s", ("m",), ("y", "z"), {"axis": 1})
    graph = inherit(graph_of([MEAN, split], [X, M, Y, Z], ["y", "z"]))
    assert graph.tensors["m"].q == per_tensor(0.125, 3)
