"""i.MX 8M Plus: files that break exactly one rule of claim, acceptance or engine, each with a twin that breaks none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.exact.graph import QParams, Tensor, constant
from compare import npu
from compare.mismatches.parts.files import activation, codes
from compare.npu.imx8mp_claims import REGISTERED
from compare.tflite.graph import open_tflite
from compare.tflite.macs import macs
from tests.compare.npu import vela_files as files


@dataclass(frozen=True)
class Case:
    """A rule, what becomes of an operator that breaks it, and the same file repaired."""

    rule: str
    placement: str
    reason: str
    broken: Callable[[], bytes]
    repaired: Callable[[], bytes]


def conv(scales: int = 1, *, with_bias: bool = True) -> bytes:
    operands = [files.int8("x", 1, 9, 9, 4), files.ones("w", 4, 3, 3, 4, scales=scales)]
    operands += [files.bias(4, scales)] if with_bias else []
    return files.one("CONV_2D", operands, files.int8("y", 1, 9, 9, 4), padding="SAME", stride_w=1, stride_h=1)


def dense(*, with_bias: bool = True, scales: int = 1) -> bytes:
    operands = [files.int8("x", 1, 16), files.ones("w", 4, 16, scales=scales)]
    operands += [files.bias(4, scales)] if with_bias else []
    return files.one("FULLY_CONNECTED", operands, files.int8("y", 1, 4), keep_num_dims=False)


def depthwise(scales: int) -> bytes:
    weight = files.ones("w", 1, 3, 3, 4, scales=scales, axis=3)
    return files.one("DEPTHWISE_CONV_2D", [files.int8("x", 1, 8, 8, 4), weight, files.bias(4, scales)],
                     files.int8("y", 1, 8, 8, 4), padding="SAME", stride_w=1, stride_h=1, depth_multiplier=1)  # fmt: skip


def bias_at(scale: float) -> bytes:
    bias = codes("b", np.zeros(4), scale, dtype=np.int32)
    return files.one("CONV_2D", [files.int8("x", 1, 9, 9, 4), files.ones("w", 4, 3, 3, 4), bias],
                     files.int8("y", 1, 9, 9, 4), padding="SAME", stride_w=1, stride_h=1)  # fmt: skip


def transpose_conv_of(x: Tensor, y: Tensor, bias: Tensor) -> bytes:
    operands = [files.integers("size", 1, 8, 8, 4), files.ones("w", 4, 3, 3, 4), x, bias]
    content = files.one("TRANSPOSE_CONV", operands, y, fed=3, padding="SAME", stride_w=2, stride_h=2)
    return files.edited(content, lambda model: setattr(model.subgraphs[0], "inputs", [2]))


def reshape(*, computed: bool) -> bytes:
    shape = Tensor("shape", (2,), np.dtype(np.int32)) if computed else files.integers("shape", 1, 16)
    return files.one("RESHAPE", [files.int8("x", 1, 4, 4), shape], files.int8("y", 1, 16), fed=1 + computed)


def unary(op: str, *shape: int) -> bytes:
    return files.one(op, [files.int8("x", *shape)], files.int8("y", *shape))


def typed(content: bytes, name: str, kind: str) -> bytes:
    """One tensor that is fed or computed, with another type."""
    import tflite

    return files.with_tensor(content, name, lambda tensor: setattr(tensor, "type", getattr(tflite.TensorType, kind)))


def shaped(content: bytes, name: str, shape: list[int]) -> bytes:
    return files.with_tensor(content, name, lambda tensor: setattr(tensor, "shape", shape))


def pool(op: str, kernel: int, stride: int) -> bytes:
    out = (15 - kernel) // stride + 1
    return files.one(op, [files.int8("x", 1, 15, 15, 4)], files.int8("y", 1, out, out, 4), padding="VALID",
                     stride_w=stride, stride_h=stride, filter_height=kernel, filter_width=kernel)  # fmt: skip


def mean(side: int) -> bytes:
    return files.one("MEAN", [files.int8("x", 1, side, side, 4), files.integers("axes", 1, 2)],
                     files.int8("y", 1, 1, 1, 4), keep_dims=True)  # fmt: skip


def add(*shape: int) -> bytes:
    return files.one("ADD", [files.int8("x", 1, 8, 8, 4), files.int8("z", *shape)], files.int8("y", 1, 8, 8, 4), fed=2)


def resize(*, computed: bool) -> bytes:
    size = Tensor("size", (2,), np.dtype(np.int32)) if computed else files.integers("size", 8, 8)
    return files.one("RESIZE_NEAREST_NEIGHBOR", [files.int8("x", 1, 4, 4, 4), size], files.int8("y", 1, 8, 8, 4),
                     fed=1 + computed, align_corners=False, half_pixel_centers=False)  # fmt: skip


def quantize(source: Tensor) -> bytes:
    return files.one("QUANTIZE", [source], files.int8("y", 1, 8))


def softmax_of_floats() -> bytes:
    return files.one("LOGISTIC", [files.floats("x", 1, 8)], files.floats("y", 1, 8))


float_conv = partial(files.float_conv, constant("w", np.ones((4, 3, 3, 4), np.float32)))
hybrid_conv = partial(files.float_conv, files.ones("w", 4, 3, 3, 4))
hybrid_transpose = partial(
    transpose_conv_of,
    files.floats("x", 1, 4, 4, 4),
    files.floats("y", 1, 8, 8, 4),
    constant("b", np.zeros(4, np.float32)),
)
whole_transpose = partial(transpose_conv_of, files.int8("x", 1, 4, 4, 4), files.int8("y", 1, 8, 8, 4), files.bias(4))
CASES = (
    Case("a weight has one scale", "npu-slow", "a scale for each channel", partial(conv, 4), conv),
    Case("a depthwise weight has one scale", "npu-slow", "a scale for each channel", partial(depthwise, 4), partial(depthwise, 1)),
    Case("a dense weight has one scale", "npu-slow", "a scale for each channel", partial(dense, scales=4), dense),
    Case("per-channel weights have a bias", "driver-cpu", "no bias", partial(conv, 4, with_bias=False), conv),
    Case("per-channel dense weights have a bias", "driver-cpu", "no bias", partial(dense, scales=4, with_bias=False), dense),
    Case("activations are integers", "npu-slow", "float", float_conv, conv),
    Case("weights have the type of the input", "cpu-fallback", "hybrid", hybrid_conv, conv),
    Case("a hybrid transposed convolution is an error", "fails", "partition fails", hybrid_transpose, whole_transpose),
    Case("a bias is at input x weight scale", "fails", "the bias scale is 2", partial(bias_at, 0.25), partial(bias_at, 0.125)),
    Case("a shape is constant", "cpu-fallback", "computed when the model runs", partial(reshape, computed=True),
         partial(reshape, computed=False)),
    Case("a size is constant", "cpu-fallback", "computed when the model runs", partial(resize, computed=True),
         partial(resize, computed=False)),
    Case("the operator is registered", "cpu-fallback", "does not register ROUND",
         lambda: files.as_operator(unary("RELU", 1, 8), "ROUND"), partial(unary, "RELU", 1, 8)),
    Case("no input is int64", "cpu-fallback", "an input is int64", lambda: typed(unary("RELU", 1, 8), "x", "INT64"),
         partial(unary, "RELU", 1, 8)),
    Case("no output is int64", "cpu-fallback", "an output is int64", lambda: typed(unary("RELU", 1, 8), "y", "INT64"),
         partial(unary, "RELU", 1, 8)),
    Case("no output is int16", "cpu-fallback", "an output is int16", lambda: typed(unary("RELU", 1, 8), "y", "INT16"),
         partial(unary, "RELU", 1, 8)),
    Case("six dimensions at most", "cpu-fallback", "more than 6 dimensions", partial(unary, "RELU", 1, 1, 1, 1, 1, 2, 4),
         partial(unary, "RELU", 1, 1, 1, 1, 2, 4)),
    Case("no dimension above 65535", "cpu-fallback", "above 65535", partial(unary, "RELU", 1, 65536), partial(unary, "RELU", 1, 65535)),
    Case("no dimension is empty", "cpu-fallback", "empty dimension", lambda: shaped(unary("RELU", 1, 8), "x", [1, 0]),
         partial(unary, "RELU", 1, 8)),
    Case("int32 is not quantized to int8", "cpu-fallback", "a conversion that the delegate has not",
         lambda: quantize(Tensor("x", (1, 8), np.dtype(np.int32))), lambda: unary("RELU", 1, 8)),
    Case("the border is int8", "npu-slow", "float", lambda: quantize(files.floats("x", 1, 8)), lambda: unary("RELU", 1, 8)),
    Case("activation functions are integers", "npu-slow", "float", softmax_of_floats,
         lambda: files.one("LOGISTIC", [files.int8("x", 1, 8)], activation("y", (1, 8), 1 / 256, -128))),
    Case("operands have one shape", "npu-slow", "different shapes", partial(add, 1, 1, 1, 4), partial(add, 1, 8, 8, 4)),
    Case("a product is not for the MAC array", "npu-slow", "engine SH", lambda: files.binary("MUL"), lambda: files.binary("ADD")),
    Case("an average of 7x7 goes to the shader", "npu-slow", "7x7", partial(pool, "AVERAGE_POOL_2D", 7, 1),
         partial(pool, "AVERAGE_POOL_2D", 2, 2)),
    Case("a mean of 16x16 goes to the shader", "npu-slow", "16x16", partial(mean, 16), partial(mean, 7)),
    Case("a pool of another size was not measured", "unverified", "not measured", partial(pool, "MAX_POOL_2D", 5, 2),
         partial(pool, "MAX_POOL_2D", 3, 2)),
    Case("a maximum was not measured", "unverified", "not measured", lambda: files.binary("MAXIMUM"), lambda: files.binary("ADD")),
)  # fmt: skip


def judged(content: bytes) -> Any:
    (verdict,) = npu.judge(content, "file", ("imx8mp",), Path("unused"))
    return verdict


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_broken_rule_is_named_and_the_repaired_twin_is_fast(case):
    (operator,) = judged(case.broken()).operators

    assert operator.placement == case.placement
    assert case.reason in operator.reason
    assert operator.source
    assert judged(case.repaired()).passes


def test_every_verdict_says_that_no_board_has_seen_it():
    assert any("not confirmed on a board" in note for note in judged(conv()).notes)


def test_the_registry_has_the_ninety_odd_operators_of_the_delegate():
    assert 85 <= len(REGISTERED) <= 95


def test_multiply_accumulates_are_counted_per_output_and_weight():
    for content, expected in (
        (conv(), 9 * 9 * 4 * 36),
        (dense(), 64),
        (depthwise(1), 8 * 8 * 4 * 9),
        (unary("RELU", 1, 8), 0),
    ):
        graph = open_tflite(content).graph
        assert macs(graph, graph.nodes[0]) == expected


def test_a_scale_on_a_weight_axis_of_one_channel_is_per_tensor():
    weight = constant("w", np.ones((1, 3, 3, 4), np.int8), QParams(np.array(0.25, np.float32), np.array(0, np.int32)))
    content = files.one("CONV_2D", [files.int8("x", 1, 9, 9, 4), weight, files.bias(1)], files.int8("y", 1, 9, 9, 1),
                        padding="SAME", stride_w=1, stride_h=1)  # fmt: skip
    assert judged(content).passes
