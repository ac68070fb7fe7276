"""i.MX 8M Plus, second and third question: does the operator library accept the operator, and which engine runs it?

Engines, from fast to slow: NN (the MAC array), TP (tensor processor), SH (programmable shader), SW (CPU inside the driver).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compare.npu.rules import Operator, Rule, is_float, per_channel

LIBRARY = "tim-vx-imx lf-6.6.3_1.0.0 (720f0a4), OVXLIB 1.1.88"
SIMULATOR = "measured: VeriSilicon simulator of acuitylite 6.57.1, VIP8000NANOSI_PLUS_PID0X9F, compiled one by one"

Engine = Literal["NN", "TP", "SH", "SW", "unverified"]


def _hybrid_transpose_conv(operator: Operator) -> str | None:
    weight = operator.weight
    if operator.op == "TRANSPOSE_CONV" and is_float(operator.source) and weight is not None and not is_float(weight):
        return (
            "float activations with int8 weights: claimed by the delegate, refused by the library, the partition fails"
        )
    return None


def _bias_scale(operator: Operator) -> str | None:
    """Only where input, weight and bias are all quantized with one scale."""
    source, weight, bias = operator.source, operator.weight, operator.bias
    for tensor in (source, weight, bias):
        if tensor is None or tensor.qparams is None or tensor.qparams.axis is not None:
            return None
    assert source is not None  # noqa: S101 - the loop has looked
    assert weight is not None  # noqa: S101
    assert bias is not None  # noqa: S101
    wanted = float(source.q.scale) * float(weight.q.scale)
    ratio = float(bias.q.scale) / wanted
    return None if abs(ratio - 1) < 1e-3 else f"the bias scale is {ratio:.4g} times input scale x weight scale"


def _no_float_table(operator: Operator) -> str | None:
    boolean_only = operator.op in ("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT")
    if boolean_only and any(tensor.dtype != np.bool_ for tensor in operator.inputs):
        return "operands that are not bool"
    if operator.op in ("SCATTER_ND", "EMBEDDING_LOOKUP") and any(is_float(tensor) for tensor in operator.inputs):
        return "float operands, which its type table has not"
    return None


ACCEPTED: tuple[Rule, ...] = (
    Rule(_hybrid_transpose_conv, f"{LIBRARY}, op_check of deconv; {SIMULATOR} with TensorFlow 2.19's dynamic range"),
    Rule(_bias_scale, f"{LIBRARY}, utils/vsi_nn_dtype_util.c:368-445"),
    Rule(_no_float_table, f"{LIBRARY}, BEGIN_IO_TYPE_DECL of the operator"),
)
"""A refusal here is an error at the first inference, for the whole partition; not a fallback."""


@dataclass(frozen=True)
class Row:
    """A line of the measured table: which engine takes these operators, in 8 bits and in float."""

    ops: frozenset[str]
    fits: Callable[[Operator], bool]
    integer: Engine
    floating: Engine
    why: str = ""


def _row(
    ops: str, integer: Engine, floating: Engine, fits: Callable[[Operator], bool] | None = None, why: str = ""
) -> Row:
    return Row(frozenset(ops.split()), fits or (lambda _: True), integer, floating, why)


def _kernel(operator: Operator) -> tuple[int, int]:
    attrs = operator.node.attrs
    return int(attrs.get("filter_height", 0)), int(attrs.get("filter_width", 0))


def _stride(operator: Operator) -> tuple[int, int]:
    attrs = operator.node.attrs
    return int(attrs.get("stride_h", 0)), int(attrs.get("stride_w", 0))


def _spatial(operator: Operator) -> tuple[int, ...]:
    source = operator.input(0)
    return source.shape[1:3] if source is not None and len(source.shape) == 4 else ()


def _same_shape(operator: Operator) -> bool:
    return len({tensor.shape for tensor in operator.inputs}) == 1


def _doubles(operator: Operator) -> bool:
    source, target = operator.input(0), operator.output()
    return (
        source is not None and len(source.shape) == 4 and [2 * s for s in source.shape[1:3]] == list(target.shape[1:3])
    )


_WEIGHTED = "CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED TRANSPOSE_CONV"
TABLE: tuple[Row, ...] = (
    _row("CONV_2D FULLY_CONNECTED", "SW", "SH", lambda o: per_channel(o.weight) and o.bias is None,
         "a scale for each channel and no bias: runs in software inside the driver"),
    _row(_WEIGHTED, "SH", "SH", lambda o: per_channel(o.weight),
         "a scale for each channel: the MAC array takes one scale for all; runs on the shader"),
    _row(_WEIGHTED, "NN", "SH"),
    _row("ADD SUB", "NN", "SH", _same_shape),
    _row("ADD SUB", "SH", "SH", why="operands of different shapes"),
    _row("MUL DIV", "SH", "SH"),
    _row("RELU RELU6 LOGISTIC TANH HARD_SWISH LEAKY_RELU ABS SQUARE", "TP", "SH"),
    _row("ELU GELU LOG NEG", "TP", "unverified"),
    _row("RSQRT SQRT PRELU FLOOR SOFTMAX L2_NORMALIZATION RESIZE_BILINEAR SUM", "SH", "SH"),
    _row("MAX_POOL_2D", "NN", "SH", lambda o: _kernel(o) == (2, 2) and _stride(o) == (2, 2)),
    _row("MAX_POOL_2D", "TP", "SH", lambda o: _kernel(o) == (3, 3) and _stride(o) == (2, 2)),
    _row("AVERAGE_POOL_2D", "NN", "SH", lambda o: _kernel(o) == (2, 2)),
    _row("AVERAGE_POOL_2D", "SH", "SH", lambda o: _kernel(o) == (7, 7), "a global pool over 7x7"),
    _row("MEAN", "NN", "SH", lambda o: _spatial(o) == (7, 7)),
    _row("MEAN", "SH", "SH", lambda o: _spatial(o) == (16, 16), "a mean over 16x16"),
    _row("CONCATENATION SPLIT RESHAPE TRANSPOSE PAD SLICE STRIDED_SLICE DEPTH_TO_SPACE", "TP", "SH"),
    _row("RESIZE_NEAREST_NEIGHBOR", "NN", "SH", _doubles),
    _row("QUANTIZE DEQUANTIZE", "SH", "SH", lambda o: is_float(o.input(0)) or is_float(o.output())),
)  # fmt: skip
"""In order; the first that fits decides. Operators of any other kind or size were not measured."""


def engine(operator: Operator) -> tuple[Engine, str]:
    """Which engine the simulator gave such an operator, and why it is a slow one."""
    tensors = [operator.source, *operator.outputs]
    floating = any(is_float(tensor) for tensor in tensors)
    eight_bit = all(tensor is not None and tensor.dtype.itemsize == 1 for tensor in tensors)
    if not floating and not eight_bit:
        return "unverified", f"operands of type {', '.join(t.dtype.name for t in tensors if t is not None)}"
    for row in TABLE:
        if operator.op in row.ops and row.fits(operator):
            found = row.floating if floating else row.integer
            return found, (row.why or f"{'float' if floating else '8 bits'}: engine {found}")
    return "unverified", f"this kind or size of {operator.op} was not measured"
