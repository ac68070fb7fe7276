"""Operators between QuantizeLinear and DequantizeLinear see codes: moved codes are right, arithmetic on them is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from tests.bridge.exact.graphs import Builder, Model, Seeded, Unusable
from tests.bridge.exact.judging import apart

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

Codes = tuple[str, tuple[str, str]]
"""A tensor of codes, and the names of the scale and zero point that they were written with."""


def coded(b: Builder, name: str, dtype: type) -> Codes:
    """QuantizeLinear alone."""
    lowest = int(np.iinfo(dtype).min)
    scale = b.constant(b.one_of(0.02, 0.03, 0.05))
    zero = b.constant(lowest + b.source.integer(0, 255), dtype)
    return str(b.add("QuantizeLinear", [name, scale, zero])), (scale, zero)


def zero_as(b: Builder, codes: str, value: int) -> str:
    return b.constant(value, b.values[codes].dtype)


def whole(b: Builder, *numbers: int) -> str:
    return b.constant(numbers, np.int64)


Step = Callable[[Builder, Codes, Codes], list[str]]
"""Operators on codes: of one tensor, or of a second one with a meaning of its own; the codes they give."""

MOVES: dict[str, Step] = {
    "MaxPool": lambda b, x, _: [b.add("MaxPool", [x[0]], kernel_shape=[2, 2], pads=[1, 0, 0, 1])],
    "Reshape": lambda b, x, _: [b.add("Reshape", [x[0], whole(b, 1, 2, 16, 1)])],
    "Flatten": lambda b, x, _: [b.add("Flatten", [x[0]])],
    "Transpose": lambda b, x, _: [b.add("Transpose", [x[0]], perm=[0, 2, 3, 1])],
    "Unsqueeze": lambda b, x, _: [b.add("Squeeze", [b.add("Unsqueeze", [x[0], whole(b, 0)]), whole(b, 0)])],
    "Slice": lambda b, x, _: [b.add("Slice", [x[0], whole(b, 1), whole(b, 3), whole(b, 2)])],
    "Gather": lambda b, x, _: [b.add("Gather", [x[0], whole(b, 1, 0)], axis=1)],
    "Split": lambda b, x, _: b.add("Split", [x[0], whole(b, 1, 3)], outputs=2, axis=3),
    "Concat with itself": lambda b, x, _: [b.add("Concat", [x[0], x[0]], axis=1)],
    "Pad": lambda b, x, _: [b.add("Pad", [x[0], whole(b, 0, 0, 1, 0, 0, 0, 0, 2)])],
    "Pad with a code": lambda b, x, _: [
        b.add("Pad", [x[0], whole(b, 0, 0, 1, 0, 0, 0, 0, 2), zero_as(b, x[0], b.source.integer(0, 127))])
    ],
    "Pad by reflection": lambda b, x, _: [b.add("Pad", [x[0], whole(b, 0, 0, 1, 0, 0, 0, 0, 2)], mode="reflect")],
    "Resize": lambda b, x, _: [
        b.add(
            "Resize",
            [x[0], "", "", whole(b, 1, 2, 8, 8)],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    ],
    "Clip": lambda b, x, _: [clip(b, x[0])],
    "Clip twice": lambda b, x, _: [clip(b, clip(b, x[0]))],
    "Clip, moved, Clip": lambda b, x, _: [clip(b, str(b.add("Transpose", [clip(b, x[0])], perm=[0, 1, 3, 2])))],
    "MaxPool, Clip": lambda b, x, _: [clip(b, str(b.add("MaxPool", [x[0]], kernel_shape=[2, 2])))],
    "Identity": lambda b, x, _: [b.add("Identity", [x[0]])],
    "Cast to its own type": lambda b, x, _: [
        b.add("Cast", [x[0]], to=helper.np_dtype_to_tensor_dtype(b.values[x[0]].dtype))
    ],
}
COMPUTES: dict[str, Step] = {
    "Add": lambda b, x, z: [b.add("Add", [x[0], z[0]])],
    "Add to itself": lambda b, x, _: [b.add("Add", [x[0], x[0]])],
    "Sub": lambda b, x, z: [b.add("Sub", [x[0], z[0]])],
    "Mul": lambda b, x, z: [b.add("Mul", [x[0], z[0]])],
    "Mul by a constant": lambda b, x, _: [b.add("Mul", [x[0], zero_as(b, x[0], 3)])],
    "Relu": lambda b, x, _: [b.add("Relu", [x[0]])],
    "Min": lambda b, x, z: [b.add("Min", [x[0], z[0]])],
    "Max": lambda b, x, z: [b.add("Max", [z[0], x[0]])],
    "Concat": lambda b, x, z: [b.add("Concat", [x[0], z[0]], axis=1)],
    "Concat with a constant": lambda b, x, _: [b.add("Concat", [x[0], zero_as(b, x[0], 3 * np.ones((1, 2, 4, 4)))], axis=1)],
    "Where": lambda b, x, z: [b.add("Where", [b.constant(True, np.bool_), x[0], z[0]])],
    "Neg": lambda b, x, _: [b.add("Neg", [x[0]])],
    "Abs": lambda b, x, _: [b.add("Abs", [x[0]])],
    "Resize by interpolation": lambda b, x, _: [b.add("Resize", [x[0], "", "", whole(b, 1, 2, 8, 8)], mode="linear")],
    "Clip, Concat with its source": lambda b, x, _: [b.add("Concat", [clip(b, x[0]), x[0]], axis=1)],
}  # fmt: skip


def clip(b: Builder, codes: str) -> str:
    lowest = int(np.iinfo(b.values[codes].dtype).min)
    low = lowest + b.source.integer(0, 100)
    limits = [low if b.odds(2) else lowest, low + b.source.integer(1, 255 - (low - lowest))]
    given = [zero_as(b, codes, limit) if b.odds(2) else "" for limit in limits]
    return str(b.add("Clip", [codes, *given]))


def between_pairs(kind: Step, seed: int) -> Model:
    """x -> Q -> the operator -> DQ, with the parameters of the first Q; as real numbers, and once as codes."""
    b = Builder(Seeded(seed))
    dtype = b.one_of(np.int8, np.uint8)
    x, z = (
        coded(b, str(b.add("MaxPool", [b.input(1, 2, 4, 4, magnitude=2.0)], kernel_shape=[1, 1])), dtype)
        for _ in range(2)
    )
    made = kind(b, x, z)
    real = [str(b.add("DequantizeLinear", [codes, *x[1]])) for codes in made]
    kept = str(b.add("DequantizeLinear", [z[0], *z[1]]))
    as_codes = [made[0]] if b.odds(3) else []
    return b.finish([*real, *as_codes, kept])


@pytest.mark.parametrize("kind", MOVES)
def test_moved_codes_are_right(kind):
    drawn = 0
    for seed in range(24):
        try:
            model = between_pairs(MOVES[kind], seed)
        except Unusable:  # ONNX Runtime computes some operators on one of the two types only
            continue
        try:
            assert apart(model.proto, model.inputs) == 0, f"seed {seed}"
        except BridgeError as error:
            assert "leaves one code only" in error.problem
            continue
        drawn += 1
    assert drawn > 4


@pytest.mark.parametrize("kind", COMPUTES)
def test_arithmetic_on_codes_is_refused(kind):
    drawn = refused = 0
    for seed in range(12):
        try:
            model = between_pairs(COMPUTES[kind], seed)
        except Unusable:
            continue
        drawn += 1
        try:
            convert(model.proto)
        except BridgeError as error:
            assert "computes on the codes of" in error.problem or "cannot write this operator" in error.problem
            refused += 1
        else:  # a Clip that clips nothing
            assert apart(model.proto, model.inputs) == 0, f"seed {seed}"
    assert drawn == 0 or refused > drawn / 4  # ONNX Runtime computes Min and Max of neither type


@pytest.mark.parametrize("kind", [*MOVES, *COMPUTES])
def test_codes_that_are_dequantized_with_another_scale_are_refused(kind):
    """What an operator on codes gives keeps their meaning, on each of its outputs."""
    for seed in range(12):
        b = Builder(Seeded(seed))
        x, z = (coded(b, b.input(1, 2, 4, 4, magnitude=2.0), np.int8) for _ in range(2))
        try:
            made = {**MOVES, **COMPUTES}[kind](b, x, z)
            other = b.constant(0.07)
            last = b.add("DequantizeLinear", [made[-1], other, x[1][1]])
            model = b.finish([str(last), str(b.add("DequantizeLinear", [z[0], *z[1]]))])
        except Unusable:
            continue
        with pytest.raises(BridgeError):
            convert(model.proto)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_the_type_of_codes_that_only_an_attribute_says_is_read(dtype):
    b = Builder(Seeded(3), opset=21)
    x, scale = b.add("Relu", [b.input(1, 8, magnitude=2.0)]), b.constant(0.02)
    codes = b.add("QuantizeLinear", [x, scale], output_dtype=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    y = b.add("DequantizeLinear", [codes, scale])
    w, _ = b.weight(b.normal(3, 8), 0)
    model = b.finish([b.quantize(b.add("Gemm", [y, w], transB=1), at_least=0.02), y, codes])
    assert apart(model.proto, model.inputs) <= 1


def test_codes_from_outside_and_codes_to_outside_keep_their_meaning():
    for dtype in (np.int8, np.uint8):
        b = Builder(Seeded(5))
        name = b.input(1, 2, 4, 4, magnitude=2.0)
        b.values[name] = np.random.default_rng(0).integers(-128, 128, (1, 2, 4, 4)).astype(np.int8).view(dtype)
        scale, zero = b.constant(0.02), b.constant(7, dtype)
        real = b.add("DequantizeLinear", [name, scale, zero])
        y = b.add("QuantizeLinear", [b.add("MaxPool", [real], kernel_shape=[2, 2]), scale, zero])
        graph = b.finish([y]).proto
        assert apart(graph, {name: b.values[name]}) == 0
        assert apart(graph, {name: b.values[name]}, Options(layout="nchw"), "reference") == 0


def model_of(nodes: list[onnx.NodeProto], shape: tuple[int, ...], kind: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "codes",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("s", TensorProto.FLOAT, (), [0.5]), helper.make_tensor("z", TensorProto.INT8, (), [3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    "nodes",
    [
        [("Relu", ["x"], ["r"]), ("DequantizeLinear", ["r", "s", "z"], ["y"])],
        [("Add", ["x", "x"], ["r"]), ("DequantizeLinear", ["r", "s", "z"], ["y"])],
        [("DequantizeLinear", ["x", "s", "z"], ["r"]), ("DequantizeLinear", ["r", "s", "z"], ["y"])],
        [("DequantizeLinear", ["x", "s", "z"], ["y"]), ("Relu", ["x"], ["r"])],
        [("Identity", ["x"], ["i"]), ("Relu", ["i"], ["r"]), ("DequantizeLinear", ["r", "s", "z"], ["y"])],
    ],
    ids=str,
)
@pytest.mark.parametrize("allow_float", [False, True])
def test_arithmetic_on_an_integer_input_is_refused(nodes, allow_float):
    model = model_of([helper.make_node(*node) for node in nodes], (1, 4), TensorProto.INT8)
    with pytest.raises(BridgeError, match=r"on the codes|real numbers|no QuantizeLinear has quantized"):
        convert(model, Options(allow_float=allow_float))


@pytest.mark.parametrize("limits", [(5, 5), (9, 2)])
def test_a_clip_that_leaves_one_code_is_refused(limits):
    b = Builder(Seeded(3))
    x, pair = coded(b, b.input(1, 2, 4, 4, magnitude=2.0), np.int8)
    clipped = b.add("Clip", [x, *(b.constant(limit, np.int8) for limit in limits)])
    model = b.finish([b.add("DequantizeLinear", [clipped, *pair])])
    with pytest.raises(BridgeError, match=r"leaves one code only"):
        convert(model.proto)
