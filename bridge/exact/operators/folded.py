"""Operators that leave nothing behind: Q/DQ, copies, and what is computed from constants while converting."""

from __future__ import annotations

import onnx

from bridge.exact.operators.reading import (
    AXIS,
    FLOAT_8_ONLY,
    ONE_INPUT,
    REDUCTION,
    TWO_INPUTS,
    USED,
    NoEffect,
    Only,
    Reading,
    Rule,
    reading,
)
from bridge.exact.operators.record import Operator, Vanishes

_NO_BLOCKS = Only(
    (0,),
    "has one scale for each block of elements; TFLite has them for a tensor or its channels",
    "Quantize per tensor or per channel.",
)
_REAL_NUMBERS_IN_FLOAT32 = Only(
    (0, int(onnx.TensorProto.FLOAT)),
    "computes in another type than float32",
    "Export the model in float32; the kernels compute its integers.",
)
_VALUES: dict[str, Rule] = dict.fromkeys(
    ("value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings", "sparse_value"),
    USED,
)  # fmt: skip

_OF_CONSTANTS: dict[str, Reading] = {
    **dict.fromkeys(("Abs", "Ceil", "Floor", "Neg", "Reciprocal", "Round", "Sqrt"), ONE_INPUT),
    **dict.fromkeys(("Equal", "Expand", "Pow"), TWO_INPUTS),
    "ConstantOfShape": reading(1, value=USED),
    "Mod": reading(
        2, fmod=Only((0,), "takes the sign of the dividend", "Only sizes are computed by Mod; they are positive.")
    ),
    "Range": reading(3, stash_type=NoEffect("it rules 16-bit floating point, which no kernel here has")),
    "ReduceProd": reading(2, 1, REDUCTION),
    "Shape": reading(1, start=USED, end=USED),
    "Where": reading(3),
}
"""On activations these are refused by name."""

OPERATORS = (
    Operator(
        name="QuantizeLinear",
        reads=reading(
            3,
            axis=AXIS,
            block_size=_NO_BLOCKS,
            output_dtype=USED,
            precision=_REAL_NUMBERS_IN_FLOAT32,
            saturate=FLOAT_8_ONLY,
        ),
        vanishes=Vanishes.PARAMETERS,
    ),
    Operator(
        name="DequantizeLinear",
        reads=reading(3, axis=AXIS, block_size=_NO_BLOCKS, output_dtype=_REAL_NUMBERS_IN_FLOAT32),
        vanishes=Vanishes.PARAMETERS,
    ),
    Operator(name="Identity", reads=ONE_INPUT, vanishes=Vanishes.COPY),
    Operator(
        name="Dropout",
        reads=reading(3, 2, seed=NoEffect("nothing is dropped at inference; training_mode is looked at")),
        vanishes=Vanishes.COPY,
    ),
    Operator(
        name="Cast",
        reads=reading(1, to=USED, saturate=FLOAT_8_ONLY, round_mode=FLOAT_8_ONLY),
        vanishes=Vanishes.CAST,
    ),
    Operator(name="Constant", reads=reading(0, 1, _VALUES), vanishes=Vanishes.CONSTANT),
    *(Operator(name=name, reads=how) for name, how in _OF_CONSTANTS.items()),
)
