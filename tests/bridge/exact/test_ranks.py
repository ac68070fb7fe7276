"""Operators with more axes than their kernels count: merged exactly, or refused; judged by numpy on both kernel sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Graph, Node, Tensor, constant, per_tensor
from bridge.exact.ranks import MOST, MOST_AXES, within_ranks
from bridge.exact.schema import OPERATORS
from bridge.exact.writer import write
from bridge.verifying.litert import KERNELS, Runner
from tests.bridge.exact.bounded import bounded
from tests.builders import Pair, float_constant, integers, qdq_model, weight
from tests.runtimes import litert_before

pytest.importorskip("ai_edge_litert")


def int8(name: str, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, shape, np.dtype(np.int8), None, per_tensor(1.0, 0))


def numbers(name: str, values: Any) -> Tensor:
    return constant(name, np.array(values, np.int32))


def one(op: str, *tensors: Tensor, **attrs: object) -> Graph:
    """A model of one operator; the last tensor is its output."""
    *operands, y = tensors
    node = Node(op, "node", tuple(tensor.name for tensor in operands), (y.name,), attrs)
    moving = tuple(tensor.name for tensor in operands if not tensor.is_constant)
    return Graph((node,), {tensor.name: tensor for tensor in tensors}, moving, (y.name,))


Case = tuple[Graph, dict[str, np.ndarray], np.ndarray]


def both_sets(graph: Graph, fed: dict[str, np.ndarray]) -> list[Any]:
    file = write(graph)
    return [bounded(lambda kernels=kernels: Runner(file, kernels)(fed)[graph.outputs[0]]) for kernels in KERNELS]


def small(draw: Callable[..., Any], shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.integers(-8, 8, shape, dtype=np.int8)


def shapes(draw: Callable[..., Any]) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.sampled_from([1, 1, 2, 2, 3]), min_size=1, max_size=MOST)))


ELEMENTWISE: dict[str, Any] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "PRELU": lambda x, slope: np.where(x < 0, x * slope, x),
}


@st.composite
def elementwise(draw: Callable[..., Any]) -> Case:
    op = draw(st.sampled_from(sorted(ELEMENTWISE)))
    shape = shapes(draw)
    other = tuple(1 if draw(st.booleans()) else size for size in shape)[draw(st.integers(0, len(shape) - 1)) :]
    x, z = small(draw, shape), small(draw, other)
    y = int8("y", shape)
    fixed = draw(st.booleans()) or op == "PRELU"
    second = constant("z", z, per_tensor(1.0, 0)) if fixed else int8("z", other)
    attrs = {"fused_activation": "NONE"} if op in ("ADD", "SUB", "MUL") else {}
    fed = {"x": x} if fixed else {"x": x, "z": z}
    return one(op, int8("x", shape), second, y, **attrs), fed, ELEMENTWISE[op](x.astype(int), z.astype(int))


@st.composite
def transposed(draw: Callable[..., Any]) -> Case:
    shape = shapes(draw)
    perm = draw(st.permutations(range(len(shape))))
    x = small(draw, shape)
    made = x.transpose(perm)
    return one("TRANSPOSE", int8("x", shape), numbers("p", perm), int8("y", made.shape)), {"x": x}, made


@st.composite
def padded(draw: Callable[..., Any]) -> Case:
    shape = shapes(draw)
    pads = [draw(st.sampled_from([(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)])) for _ in shape]
    value = draw(st.sampled_from([0, 5]))
    x = small(draw, shape)
    made = np.pad(x, pads, constant_values=value)
    filler = [constant("v", np.array(value, np.int8), per_tensor(1.0, 0))] if value else []
    op = "PADV2" if value else "PAD"
    return one(op, int8("x", shape), numbers("p", pads), *filler, int8("y", made.shape)), {"x": x}, made


@st.composite
def sliced(draw: Callable[..., Any]) -> Case:
    shape = shapes(draw)
    begin = [draw(st.sampled_from([0, 0, size - 1])) for size in shape]
    end = [draw(st.sampled_from([size, start + 1])) for size, start in zip(shape, begin, strict=True)]
    x = small(draw, shape)
    strided = draw(st.booleans())
    steps = [draw(st.sampled_from([1, 1, 2])) if strided else 1 for _ in shape]
    made = x[tuple(slice(*cut) for cut in zip(begin, end, steps, strict=True))]
    x_y = int8("x", shape), int8("y", made.shape)
    if strided:
        return one("STRIDED_SLICE", x_y[0], *map(numbers, "bes", (begin, end, steps)), x_y[1]), {"x": x}, made
    return one("SLICE", x_y[0], numbers("b", begin), numbers("s", made.shape), x_y[1]), {"x": x}, made


@st.composite
def multiplied(draw: Callable[..., Any]) -> Case:
    batch = shapes(draw)[: MOST - 2]
    other = tuple(1 if draw(st.booleans()) else size for size in batch)
    a, b = small(draw, (*batch, 2, 3)) // 3, small(draw, (*other, 3, 2)) // 3
    made = np.matmul(a.astype(int), b.astype(int))
    return one("BATCH_MATMUL", int8("a", a.shape), int8("b", b.shape), int8("y", made.shape)), {"a": a, "b": b}, made


@settings(max_examples=90, derandomize=True, deadline=None, database=None)
@given(case=st.one_of(elementwise(), transposed(), padded(), sliced(), multiplied()))
def test_a_drawn_operator_of_up_to_eight_axes_is_computed_by_both_kernel_sets_or_refused(case):
    graph, fed, expected = case
    try:
        graph = within_ranks(graph)
    except BridgeError as error:
        assert "axes, and the kernels of" in error.problem
        assert max(len(graph.tensors[name].shape) for name in graph.inputs) > MOST_AXES[graph.nodes[0].op]
        return
    for found in both_sets(graph, fed):
        np.testing.assert_array_equal(found, np.clip(expected, -128, 127))


since_mended = pytest.mark.skipif(not litert_before("2.1.6"), reason="LiteRT 2.1.6 counts more axes")

BEYOND: dict[str, tuple[Graph, dict[str, np.ndarray], str]] = {
    "PRELU": (
        one("PRELU", int8("x", (2,) * 5), constant("s", np.ones((2,) * 4, np.int8), per_tensor(1.0, 0)), int8("y", (2,) * 5)),
        {"x": np.ones((2,) * 5, np.int8)},
        "ended by SIGABRT",
    ),
    "MAXIMUM": (
        one("MAXIMUM", int8("x", (2,) * 6), int8("z", (1, 2) * 3), int8("y", (2,) * 6)),
        {"x": np.ones((2,) * 6, np.int8), "z": np.ones((1, 2) * 3, np.int8)},
        "ended by SIGABRT",
    ),
}  # fmt: skip


@since_mended
@pytest.mark.parametrize("op", BEYOND)
def test_without_merging_the_reference_kernels_end_the_process(op):
    graph, fed, happens = BEYOND[op]
    assert both_sets(graph, fed)[1] == happens


def test_a_transpose_of_seven_axes_is_refused():
    graph = one("TRANSPOSE", int8("x", (2,) * 7), numbers("p", range(7)[::-1]), int8("y", (2,) * 7))
    if litert_before("2.1.6"):
        with pytest.raises(BridgeError, match="Transpose op only supports 1D-6D input arrays"):
            both_sets(graph, {"x": np.ones((2,) * 7, np.int8)})
    with pytest.raises(
        BridgeError, match="TRANSPOSE 'node', output 'y': has 7 axes, and the kernels of TRANSPOSE count 6"
    ):
        within_ranks(graph)


def test_a_prelu_over_volumes_keeps_its_slopes_by_channel():
    model = qdq_model(
        ("PRelu", "x s", "y"), inputs={"x": (1, 3, 2, 2, 2)}, pairs={"x": Pair(1.0), "y": Pair(1.0)}, outputs="y",
        constants=[float_constant("s", np.array([1, 2, 4]).reshape(3, 1, 1, 1))],
    )  # fmt: skip
    done = convert(model)
    assert [node.op for node in done.graph.nodes] == ["RESHAPE", "PRELU", "RESHAPE"]
    x = np.full((1, 3, 2, 2, 2), -8, np.int8)
    for kernels in KERNELS:
        got = bounded(lambda kernels=kernels: Runner(done.tflite, kernels)({"x": x})["y"])
        np.testing.assert_array_equal(got[0, :, 0, 0, 0], [-8, -16, -32])


def test_two_operators_on_merged_axes_stay_merged_between():
    model = qdq_model(
        ("Clip", "x low high", "y"), inputs={"x": (1, 2, 2, 2, 2, 2)}, pairs={"x": Pair(1.0), "y": Pair(1.0)}, outputs="y",
        constants=[float_constant("low", -2.0), float_constant("high", 3.0)],
    )  # fmt: skip
    assert [node.op for node in convert(model).graph.nodes] == ["RESHAPE", "MAXIMUM", "MINIMUM", "RESHAPE"]


def test_limits_are_of_operators_that_we_write():
    assert set(MOST_AXES) <= set(OPERATORS)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_vector_through_a_dense_layer_comes_back_as_a_vector(kernels):
    model = qdq_model(
        ("MatMul", "x w", "y"),
        inputs={"x": (3,)},
        pairs={"x": Pair(1.0), "y": Pair(1.0)},
        outputs="y",
        constants=[weight("w", [[1, 4], [2, 5], [3, 6]], [1.0, 1.0], axis=1)],
    )
    done = convert(model)
    got = Runner(done.tflite, kernels)({"x": np.array([1, 2, -1], np.int8)})["y"]
    assert got.shape == (2,)
    assert got.tolist() == [2, 8]


def test_a_product_of_a_vector_and_a_matrix_of_activations_is_refused():
    model = qdq_model(
        ("MatMul", "x z", "y"),
        inputs={"x": (3,), "z": (3, 2)},
        pairs={"x": Pair(1.0), "z": Pair(1.0), "y": Pair(1.0)},
        outputs="y",
    )
    with pytest.raises(BridgeError, match="multiplies a vector"):
        convert(model)


@st.composite
def whole_models(
    draw: Callable[..., Any],
) -> tuple[Any, tuple[int, ...], np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """An operator between two others, so that XNNPACK has a graph to take over; and what it computes, by numpy."""
    shape = (1, *draw(st.lists(st.sampled_from([1, 2, 2]), min_size=5, max_size=MOST - 1)))
    rank = len(shape)
    axis = draw(st.integers(0, rank - 1))
    codes = draw(st.integers(0, 2**32 - 1))
    kind = draw(st.sampled_from(["Concat", "ReduceMean", "MatMul", "Gather", "Split"]))
    factors = np.random.default_rng(codes).integers(-1, 2, (shape[-1], 3))
    if kind == "Split":
        assume(shape[axis] > 1)
    steps: dict[str, Any] = {
        "Concat": (("Concat", "r r", "y", {"axis": axis}), [], lambda x: np.concatenate([x, x], axis)),
        "ReduceMean": (
            ("ReduceMean", "r", "y", {"axes": sorted({0, axis}), "keepdims": 1}), [],
            lambda x: x.mean(axis=tuple({0, axis}), keepdims=True),
        ),
        "MatMul": (("MatMul", "r w", "y"), [weight("w", factors, 1.0)], lambda x: x @ factors),
        "Gather": (("Gather", "r i", "y", {"axis": axis}), [integers("i", [0, 0])], lambda x: x.take([0, 0], axis)),
        "Split": (("Split", "r s", "y z", {"axis": axis}), [integers("s", [1, shape[axis] - 1])], lambda x: x.take([0], axis)),
    }  # fmt: skip
    step, constants, expected = steps[kind]
    model = qdq_model(
        ("Relu", "x", "r"), step, inputs={"x": shape}, pairs={"x": Pair(1.0), "r": Pair(1.0), "y": Pair(1.0)},
        outputs="y z" if kind == "Split" else "y", constants=constants,
    )  # fmt: skip
    return model, shape, np.random.default_rng(codes).integers(-8, 8, shape, dtype=np.int8), expected


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(drawn=whole_models())
def test_a_drawn_model_of_up_to_eight_axes_runs_on_both_kernel_sets_or_is_refused(drawn):
    model, shape, x, expected = drawn
    try:
        done = convert(model, Options(layout="nchw"))
    except BridgeError as error:
        assert "axes, and the kernels of" in error.problem
        assert len(shape) > 6
        return
    wanted = np.clip(np.rint(expected(np.maximum(x, 0).astype(np.float64))), -128, 127)
    for kernels in KERNELS:
        got = bounded(lambda kernels=kernels: Runner(done.tflite, kernels)({"x": x})["y"])
        assert not isinstance(got, str), got
        assert np.abs(got - wanted).max() <= (1 if "MEAN" in done.operators_out else 0)  # ties of an average
