"""The table of operators against the generated schema (package `tflite`), and every operator in LiteRT."""

import numpy as np
import pytest
import tflite

from bridge.errors import BridgeError
from bridge.exact.graph import Node, constant, per_tensor
from bridge.exact.schema import ENUMS, OPERATORS, TENSOR_TYPES
from bridge.exact.sizes import refuse_other_sizes
from bridge.exact.writer import write
from bridge.verifying.litert import KERNELS, Runner
from tests.builders import activation, graph_of, int32_codes, weight


def names_by_number(enumeration):
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


OPTION_TABLES = names_by_number(tflite.BuiltinOptions)
ACCESSORS = {"fused_activation": "FusedActivationFunction"}
"""Our field names that are not the schema's own."""

X = activation("x", (1, 4, 4, 2), 0.5, 1)
FLOAT = activation("f", (1, 4, 4, 2))
ROW = activation("r", (1, 4), 0.5, 1)


def like(tensor, scale=None, zero_point=0, shape=None):
    return activation("y", shape or tensor.shape, scale or 0.5, 1 if scale is None else zero_point)


def numbers(name, *values):
    return constant(name, np.array(values, np.int32))


def scalar(name, value):
    return constant(name, np.array(value, np.int32))


def window(**more):
    return {"padding": "VALID", "stride_h": 1, "stride_w": 1, **more}


POOL = window(filter_height=2, filter_width=2)
RESIZED = [X, numbers("size", 8, 8)]
BIAS = int32_codes("b", [1, 2], [0.25, 0.25])
KERNEL = weight("k", np.ones((2, 1, 1, 2)), [0.5, 0.5])
PADDING = constant("p", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
PADDED = like(X, shape=(1, 6, 6, 2))
POOLED = like(X, shape=(1, 3, 3, 2))
ANOTHER = activation("z", (1, 4, 4, 2), 0.5, 1)
SIXTH = per_tensor(0.5, 1)
HALVES = [activation(name, (1, 4, 4, 1), 0.5, 1) for name in "ab"]

EXAMPLES = {
    "ADD": ([X, ANOTHER], like(X), {"fused_activation": "NONE"}),
    "AVERAGE_POOL_2D": ([X], POOLED, POOL),
    "BATCH_MATMUL": ([ROW, activation("z", (4, 3), 0.5)], like(ROW, shape=(1, 3)), {}),
    "CONCATENATION": ([X, ANOTHER], like(X, shape=(1, 4, 4, 4)), {"axis": 3}),
    "CONV_2D": ([X, KERNEL, BIAS], like(X), window()),
    "DEPTHWISE_CONV_2D": (
        [X, weight("k", np.ones((1, 1, 1, 2)), [0.5, 0.5], axis=3), BIAS],
        like(X),
        window(depth_multiplier=1),
    ),
    "DEQUANTIZE": ([X], activation("y", (1, 4, 4, 2)), {}),
    "FULLY_CONNECTED": ([ROW, weight("k", np.ones((2, 4)), [0.5, 0.5]), BIAS], like(ROW, shape=(1, 2)), {}),
    "GATHER": ([X, numbers("i", 1, 0)], like(X), {"axis": 3}),
    "HARD_SWISH": ([X], like(X), {}),
    "LEAKY_RELU": ([X], like(X), {"alpha": 0.1}),
    "LOGISTIC": ([X], like(X, 1 / 256, -128), {}),
    "MAXIMUM": ([X, ANOTHER], like(X), {}),
    "MAX_POOL_2D": ([X], POOLED, POOL),
    "MEAN": ([X, numbers("axes", 1, 2)], like(X, shape=(1, 2)), {"keep_dims": False}),
    "MINIMUM": ([X, ANOTHER], like(X), {}),
    "MIRROR_PAD": ([X, PADDING], PADDED, {"mode": "REFLECT"}),
    "MUL": ([X, ANOTHER], like(X), {"fused_activation": "NONE"}),
    "PAD": ([X, PADDING], PADDED, {}),
    "PADV2": ([X, PADDING, constant("v", np.array(-128, np.int8), SIXTH)], PADDED, {}),
    "PRELU": ([X, weight("k", np.ones((1, 1, 2)), 0.5)], like(X), {}),
    "QUANTIZE": ([FLOAT], like(X), {}),
    "RELU": ([X], like(X), {}),
    "RELU6": ([X], like(X), {}),
    "RELU_N1_TO_1": ([X], like(X), {}),
    "RESHAPE": ([X, numbers("shape", 1, 32)], like(X, shape=(1, 32)), {}),
    "RESIZE_BILINEAR": (RESIZED, like(X, shape=(1, 8, 8, 2)), {"half_pixel_centers": True}),
    "RESIZE_NEAREST_NEIGHBOR": (RESIZED, like(X, shape=(1, 8, 8, 2)), {}),
    "SLICE": ([X, numbers("b", 0, 1, 1, 0), numbers("s", 1, 3, 3, 2)], POOLED, {}),
    "SOFTMAX": ([X], like(X, 1 / 256, -128), {"beta": 1.0}),
    "SPLIT": ([scalar("axis", 3), X], HALVES, {"num_splits": 2}),
    "SPLIT_V": ([X, numbers("s", 1, 1), scalar("axis", 3)], HALVES, {"num_splits": 2}),
    "STRIDED_SLICE": (
        [X, numbers("b", 0, 0, 0, 0), numbers("e", 1, 3, 3, 2), numbers("s", 1, 1, 1, 1)],
        POOLED,
        {},
    ),
    "SUB": ([X, ANOTHER], like(X), {"fused_activation": "NONE"}),
    "TANH": ([X], like(X, 1 / 128, 0), {}),
    "TRANSPOSE": ([X, numbers("perm", 0, 3, 1, 2)], like(X, shape=(1, 2, 4, 4)), {}),
    "TRANSPOSE_CONV": ([numbers("shape", 1, 4, 4, 2), KERNEL, X, BIAS], like(X), window()),
}
"""One use of every operator: operands, output or outputs, options."""


def file_of(op, attrs=None):
    operands, output, options = EXAMPLES[op]
    outputs = output if isinstance(output, list) else [output]
    node = Node(op, "node", tuple(t.name for t in operands), tuple(t.name for t in outputs), attrs or options)
    return write(graph_of([node], [*operands, *outputs], node.outputs)), operands, outputs


def test_every_operator_of_the_table_has_an_example():
    assert sorted(EXAMPLES) == sorted(OPERATORS), "add one use of it to EXAMPLES"


@pytest.mark.parametrize("op", OPERATORS)
def test_the_code_is_the_schemas(op):
    assert OPERATORS[op].code == getattr(tflite.BuiltinOperator, op)


LOWEST_FOR_INT8 = {
    # tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc, GetBuiltinOperatorVersion: int8 in and out, up to four
    # axes, options as the bridge writes them. What it does not mention is version 1. Where LiteRT's reference kernels do
    # not have that version (DEPTH_TO_SPACE: it says 2, they have 1 alone), it is the highest that they have.
    **dict.fromkeys(("HARD_SWISH", "LEAKY_RELU", "PRELU", "QUANTIZE", "RELU_N1_TO_1", "RESHAPE"), 1),
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "BATCH_MATMUL"), 2),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "SOFTMAX", "LOGISTIC", "TANH", "RELU", "RELU6"), 2),
    **dict.fromkeys(("CONCATENATION", "GATHER", "PAD", "PADV2", "MIRROR_PAD", "TRANSPOSE"), 2),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "DEQUANTIZE"), 2),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 3),  # half_pixel_centers; 2 without
    "TRANSPOSE_CONV": 3,  # four operands: with a bias
    "FULLY_CONNECTED": 4,
}
"""A version below makes an old runtime load the file and take its int8 for something else, instead of refusing it."""


@pytest.mark.parametrize("op", OPERATORS)
def test_the_version_is_not_below_what_int8_needs(op):
    assert op in LOWEST_FOR_INT8, "look it up in op_version.cc, and add it here and in bridge/exact/schema.py"
    assert OPERATORS[op].version >= LOWEST_FOR_INT8[op], "bridge/exact/schema.py, the version"


@pytest.mark.parametrize("op", [op for op, operator in OPERATORS.items() if operator.options is not None])
def test_every_option_is_read_back_from_its_slot(op):
    options = OPERATORS[op].options
    # A value other than the default, different for each field; enumerations have four members at least.
    values = {
        name: True if field.type == "Bool" else 0.5 if field.type == "Float32" else 1 + place % 3
        for place, (name, field) in enumerate(options.fields.items())
    }
    content, _, _ = file_of(op, values)
    operator = tflite.Model.GetRootAsModel(content, 0).Subgraphs(0).Operators(0)
    assert operator.BuiltinOptionsType() == options.number
    table = getattr(tflite, OPTION_TABLES[options.number])()
    table.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
    for name, value in values.items():
        accessor = ACCESSORS.get(name, "".join(part.capitalize() for part in name.split("_")))
        assert getattr(table, accessor)() == value, name


def test_the_options_of_an_operator_are_those_the_schema_names_after_it():
    exceptions = {
        "AVERAGE_POOL_2D": "Pool2DOptions",
        "CONV_2D": "Conv2DOptions",
        "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
        "MAX_POOL_2D": "Pool2DOptions",
        "MAXIMUM": "MaximumMinimumOptions",
        "MEAN": "ReducerOptions",
        "MINIMUM": "MaximumMinimumOptions",
        "PADV2": "PadV2Options",
    }
    for op, operator in OPERATORS.items():
        if operator.options is not None:
            expected = exceptions.get(op, "".join(part.capitalize() for part in op.split("_")) + "Options")
            assert OPTION_TABLES[operator.options.number].lower() == expected.lower(), op


@pytest.mark.parametrize(
    ("enumeration", "names"),
    [
        (tflite.Padding, ["SAME", "VALID"]),
        (tflite.ActivationFunctionType, ["NONE", "RELU", "RELU_N1_TO_1", "RELU6"]),
        (tflite.MirrorPadMode, ["REFLECT", "SYMMETRIC"]),
    ],
    ids=["padding", "activation", "mirror"],
)
def test_enumerations_are_the_schemas(enumeration, names):
    assert {name: ENUMS[name] for name in names} == {name: getattr(enumeration, name) for name in names}


@pytest.mark.parametrize("dtype", TENSOR_TYPES, ids=str)
def test_tensor_types_are_the_schemas(dtype):
    assert TENSOR_TYPES[dtype] == getattr(tflite.TensorType, str(dtype).upper())


@pytest.mark.parametrize("op", OPERATORS)
def test_what_shape_an_operator_makes_is_known(op):
    operands, output, options = EXAMPLES[op]
    outputs = output if isinstance(output, list) else [output]
    node = Node(op, "node", tuple(t.name for t in operands), tuple(t.name for t in outputs), options)
    try:
        refuse_other_sizes(graph_of([node], [*operands, *outputs], node.outputs))
    except BridgeError as error:
        pytest.fail(f"bridge/exact/sizes.py has no rule for {op}, or a wrong one: {error}")


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("op", OPERATORS)
def test_litert_loads_and_runs_the_operator(op, kernels):
    content, operands, outputs = file_of(op)
    moving = {t.name: np.ones(t.shape, t.dtype) for t in operands if not t.is_constant}
    made = Runner(content, kernels)(moving)
    assert {name: array.shape for name, array in made.items()} == {t.name: t.shape for t in outputs}
