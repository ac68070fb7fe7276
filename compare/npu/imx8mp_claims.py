"""i.MX 8M Plus, first question: does the VX delegate claim the operator? What it does not claim runs on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from compare.npu.rules import Operator, Rule, is_eight_bit, is_float, per_channel

DELEGATE = "tflite-vx-delegate-imx lf-6.6.3_1.0.0 (44aab8a), op_map.cc"
"""nxp-imx/tflite-vx-delegate-imx; the numbers behind it are lines of that file."""


def _rule(lines: str, broken: Callable[[Operator], str | None]) -> Rule:
    return Rule(broken, f"{DELEGATE}:{lines}")


def _when(condition: Callable[[Operator], bool], reason: str) -> Callable[[Operator], str | None]:
    return lambda operator: reason if condition(operator) else None


def _any_input(condition: Callable[[Operator], list[str]], reason: str) -> Callable[[Operator], str | None]:
    def broken(operator: Operator) -> str | None:
        names = condition(operator)
        return f"{reason}: '{names[0]}'" if names else None

    return broken


EVERY: tuple[Rule, ...] = (
    _rule("311-315", _any_input(
        lambda o: [t.name for t in o.inputs if t.dtype == np.int64 and o.op != "BROADCAST_TO"], "an input is int64")),
    _rule("321-327", _any_input(lambda o: [t.name for t in o.inputs if len(t.shape) > 6], "an input has more than 6 dimensions")),
    _rule("328-341", _any_input(lambda o: [t.name for t in o.inputs if 0 in t.shape], "an input has an empty dimension")),
    _rule("328-341", _any_input(
        lambda o: [t.name for t in o.inputs if any(size > 65535 for size in t.shape[1:])],
        "an input has a dimension above 65535")),
    _rule("343-352", _any_input(lambda o: [t.name for t in o.outputs if t.dtype == np.int16], "an output is int16")),
    _rule("343-352", _any_input(lambda o: [t.name for t in o.outputs if t.dtype == np.int64], "an output is int64")),
    _rule("353-360", _any_input(lambda o: [t.name for t in o.outputs if 0 in t.shape], "an output has an empty dimension")),
)  # fmt: skip
"""OpMapperBase::IsSupported."""

REGISTERED: frozenset[str] = frozenset(
    [
        "SOFTMAX",
        "MAX_POOL_2D",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "LOCAL_RESPONSE_NORMALIZATION",
        "L2_NORMALIZATION",
        "ABS",
        "SIN",
        "EXP",
        "LOG",
        "SQRT",
        "RSQRT",
        "SQUARE",
        "FLOOR",
        "FLOOR_DIV",
        "GREATER",
        "GREATER_EQUAL",
        "LESS",
        "LESS_EQUAL",
        "NOT_EQUAL",
        "EQUAL",
        "LOGICAL_NOT",
        "LOGICAL_AND",
        "LOGICAL_OR",
        "HARD_SWISH",
        "MINIMUM",
        "MAXIMUM",
        "ADD_N",
        "SQUEEZE",
        "PRELU",
        "GELU",
        "ELU",
        "RELU",
        "RELU_N1_TO_1",
        "RELU6",
        "LOGISTIC",
        "NEG",
        "TANH",
        "LEAKY_RELU",
        "RNN",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "GATHER",
        "GATHER_ND",
        "UNPACK",
        "HASHTABLE_LOOKUP",
        "BROADCAST_TO",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "CONV_3D",
        "TRANSPOSE_CONV",
        "DEQUANTIZE",
        "QUANTIZE",
        "ADD",
        "SUB",
        "MUL",
        "DIV",
        "POW",
        "RESHAPE",
        "STRIDED_SLICE",
        "SLICE",
        "PAD",
        "MIRROR_PAD",
        "TRANSPOSE",
        "ARG_MAX",
        "ARG_MIN",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SPLIT",
        "SPLIT_V",
        "SPACE_TO_DEPTH",
        "DEPTH_TO_SPACE",
        "BATCH_TO_SPACE_ND",
        "SPACE_TO_BATCH_ND",
        "BATCH_MATMUL",
        "SUM",
        "MEAN",
        "REDUCE_MIN",
        "REDUCE_MAX",
        "REDUCE_ANY",
        "REDUCE_PROD",
        "EXPAND_DIMS",
        "REVERSE_V2",
        "PACK",
        "SELECT",
        "SELECT_V2",
        "ONE_HOT",
        "SHAPE",
        "CAST",
        "SQUARED_DIFFERENCE",
        "SCATTER_ND",
        "EMBEDDING_LOOKUP",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
    ]
)
REGISTRY = f"{DELEGATE}:3685-3847"


def _hybrid(operator: Operator) -> str | None:
    source, weight = operator.source, operator.weight
    if source is None or weight is None or source.dtype == weight.dtype:
        return None
    return f"the input is {source.dtype}, the weight {weight.dtype} (hybrid)"


def _computed(*places: int, what: str) -> Callable[[Operator], str | None]:
    """Inputs that must be constant, where they are there at all."""

    def broken(operator: Operator) -> str | None:
        missing = [place for place in places if operator.input(place) is not None and not operator.constant(place)]
        return f"{what} is computed when the model runs" if missing else None

    return broken


def _scalar_output(operator: Operator) -> bool:
    return not operator.output().shape


def _unquantized_eight_bit(operator: Operator) -> bool:
    return any(is_eight_bit(tensor) and tensor.qparams is None for tensor in operator.inputs if not tensor.is_constant)


def _refused_quantize(operator: Operator) -> bool:
    source, target = operator.input(0), operator.output()
    if source is None:
        return False
    kinds = (source.dtype.name, target.dtype.name)
    refused = {("int32", "int8"), ("int32", "uint8"), ("int16", "int8"), ("int16", "uint8"), ("int16", "int32")}
    return kinds in refused or (is_float(source) and per_channel(target))


def _refused_dequantize(operator: Operator) -> bool:
    source = operator.input(0)
    if source is None or source.qparams is None:
        return False
    return source.dtype.name in ("int16", "float16") or (is_eight_bit(source) and per_channel(source))


def _narrowing(operator: Operator) -> bool:
    source = operator.input(0)
    return source is not None and source.dtype == np.int16 and is_eight_bit(operator.output())


def _grouped(operator: Operator) -> bool:
    source, weight = operator.input(0), operator.weight
    return source is not None and weight is not None and len(weight.shape) == 4 and source.shape[-1] != weight.shape[-1]


_CONSTANT_AXES = (_rule("2925-2940", _computed(1, what="the axis")),)
_QUANTIZED = _when(_unquantized_eight_bit, "an 8-bit input has no scale")
EXTRA: Mapping[str, tuple[Rule, ...]] = {
    "CONV_2D": (
        _rule("942", _hybrid),
        _rule("949", _when(
            lambda o: _grouped(o) and (o.input(0) is not None and o.inputs[0].shape[:1] != (1,)),
            "a grouped convolution with a batch above 1")),
    ),
    "DEPTHWISE_CONV_2D": (_rule("1135-1148", _hybrid),),
    "FULLY_CONNECTED": (
        _rule("815", _hybrid),
        _rule("820", _when(lambda o: o.inputs[0].dtype == np.int16, "the input is int16")),
    ),
    "CONV_3D": (_rule("3430-3456", _hybrid), _rule("3430-3456", _computed(1, what="the weight"))),
    "TRANSPOSE_CONV": (_rule("1032-1043", _when(_scalar_output, "the output shape is not known")),),
    "DEQUANTIZE": (_rule("542-576", _when(_refused_dequantize, "an int16 or per-channel source")),),
    "QUANTIZE": (_rule("578-627", _when(_refused_quantize, "a conversion that the delegate has not")),),
    **{op: (_rule("628-660", _when(_narrowing, "int16 in, 8 bits out")),) for op in ("ADD", "SUB", "MUL", "DIV")},
    "POW": (_rule("522-541", _when(lambda o: all(t.dtype == np.int32 for t in o.inputs), "both operands are int32")),),
    "RESHAPE": (
        _rule("1266-1285", _computed(1, what="the shape")),
        _rule("1266-1285", _when(_scalar_output, "the output shape is not known")),
    ),
    "STRIDED_SLICE": (
        _rule("1344-1375", _computed(1, 2, 3, what="begin, end or strides")),
        _rule("1344-1375", _when(
            lambda o: bool(o.node.attrs.get("new_axis_mask") or o.node.attrs.get("ellipsis_mask")),
            "new_axis_mask or ellipsis_mask is set")),
    ),
    "SLICE": (_rule("3029-3057", _computed(1, 2, what="begin or size")),),
    **{op: (_rule("1509, 1556", _when(_scalar_output, "the output shape is not known")),)
       for op in ("PAD", "MIRROR_PAD", "TRANSPOSE", "ARG_MAX", "ARG_MIN")},
    **{op: (_rule("1634-1668", _computed(1, what="the size")), _rule("1634-1668", _QUANTIZED))
       for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")},
    **{op: (_rule("1736-1763", _QUANTIZED),) for op in ("SPLIT", "SPLIT_V")},
    **{op: (_rule("1826-1910", _QUANTIZED),
            _rule("1826-1910", _when(lambda o: o.inputs[0].dtype == np.int32, "the input is int32")))
       for op in ("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")},
    **{op: (_rule("2780-2856", _when(lambda o: len(o.inputs[0].shape) != 4, "the input has not 4 dimensions")),)
       for op in ("BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND")},
    "BATCH_MATMUL": (
        _rule("1978-2005", _when(lambda o: o.output().dtype == np.int32, "the output is int32")),
        _rule("1978-2005", _when(
            lambda o: is_eight_bit(o.input(0)) and is_float(o.input(1)), "an 8-bit matrix times a float one")),
    ),
    **dict.fromkeys(("SUM", "MEAN", "REDUCE_MIN", "REDUCE_MAX", "REDUCE_ANY", "REDUCE_PROD", "EXPAND_DIMS", "REVERSE_V2"), _CONSTANT_AXES),
    "PACK": (
        _rule("3285-3296", _when(lambda o: o.inputs[0].dtype == np.int32, "the inputs are int32")),
        _rule("3285-3296", _when(
            lambda o: is_eight_bit(o.inputs[0]) and len(o.inputs[0].shape) == 1, "8-bit vectors are packed")),
    ),
    **{op: (_rule("3165-3197", _when(
        lambda o: any(is_eight_bit(t) or t.dtype == np.bool_ for t in (*o.inputs[1:], *o.outputs)),
        "operands or output are 8-bit or bool")),) for op in ("SELECT", "SELECT_V2")},
    "ONE_HOT": (_rule("3339-3355", _computed(1, what="the depth")),),
    "CAST": (_rule("3524-3546", _when(
        lambda o: any(t.dtype.name in ("complex64", "uint32", "uint16") for t in (*o.inputs, *o.outputs)),
        "a type that the delegate has not")),),
    "SQUARED_DIFFERENCE": (_rule("3576-3599", _when(
        lambda o: len({t.dtype for t in (*o.inputs, *o.outputs)}) > 1, "operands of different types")),),
    "SCATTER_ND": (_rule("3652-3663", _computed(2, what="the shape")),),
    "EMBEDDING_LOOKUP": (_rule("3216-3229", _when(
        lambda o: o.inputs[-1].dtype == np.uint8 and o.output().dtype == np.int8, "uint8 weights, int8 output")),),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        _rule("2392-2419", _when(lambda o: not is_eight_bit(o.input(0)), "the input is not 8-bit")),
    ),
}  # fmt: skip
"""What an operator's own mapper asks beyond `EVERY`."""
