"""Edge TPU: files that break exactly one rule of its documentation, their twins, and the one cut of the graph."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.exact.graph import Node, Tensor, constant
from compare import npu
from compare.mismatches.parts.files import codes, tflite_of
from tests.compare.npu import vela_files as files


def conv(height: int = 1, width: int = 1) -> bytes:
    return files.one("CONV_2D", [files.int8("x", 1, 9, 9, 4), files.ones("w", 4, 3, 3, 4), files.bias(4)],
                     files.int8("y", 1, 9, 9, 4), padding="SAME", stride_w=1, stride_h=1, dilation_h_factor=height,
                     dilation_w_factor=width)  # fmt: skip


def pool(activation: str) -> bytes:
    return files.one("MAX_POOL_2D", [files.int8("x", 1, 8, 8, 4)], files.int8("y", 1, 4, 4, 4), padding="VALID", stride_w=2,
                     stride_h=2, filter_height=2, filter_width=2, fused_activation=activation)  # fmt: skip


def joined(values: Any, activation: str = "NONE") -> bytes:
    tensors = [files.int8("x", 1, 4), codes("c", values, 0.5)]
    return files.one("CONCATENATION", tensors, files.int8("y", 1, 8), axis=1, fused_activation=activation)


def dense(rows: int) -> bytes:
    operands = [files.int8("x", rows, 16), files.ones("w", 4, 16), files.bias(4)]
    return files.one("FULLY_CONNECTED", operands, files.int8("y", rows, 4), keep_num_dims=False)


def mean(*axes: int, depth: int = 4) -> bytes:
    shape = [1, 8, 8, depth]
    reduced = [1 if place in axes else size for place, size in enumerate(shape)]
    return files.one("MEAN", [files.int8("x", *shape), files.integers("axes", *axes)], files.int8("y", *reduced),
                     keep_dims=True)  # fmt: skip


def pad(batch: int) -> bytes:
    amounts = constant("amounts", np.array([[batch, 0], [1, 1], [0, 0]], np.int32))
    return files.one("PAD", [files.int8("x", 1, 4, 4), amounts], files.int8("y", 1 + batch, 6, 4))


def prelu(*shape: int) -> bytes:
    slopes = codes("slopes", np.ones(shape), 0.25)
    return files.one("PRELU", [files.int8("x", 1, 4, 4, 4), slopes], files.int8("y", 1, 4, 4, 4))


def relu(*shape: int) -> bytes:
    return files.one("RELU", [files.int8("x", *shape)], files.int8("y", *shape))


CASES = (
    ("data are 8 bits", "not 8-bit", partial(files.float_conv, constant("w", np.ones((4, 3, 3, 4), np.float32))), conv),
    ("weights are 8 bits", "not 8-bit", files.int16_weight, conv),
    ("every size is constant", "not constant", lambda: files.open_dimension(conv(), 0), conv),
    ("three dimensions above one", "3 innermost", partial(relu, 2, 4, 4, 4), partial(relu, 1, 4, 4, 4)),
    ("parameters are constant", "is not constant", files.fed_weight_conv, conv),
    ("dilations are alike", "dilations 2 and 1 differ", partial(conv, 2, 1), partial(conv, 2, 2)),
    ("a pool has no fused activation", "fused activation RELU", partial(pool, "RELU"), partial(pool, "NONE")),
    ("a joined constant is zero", "which is not zero", partial(joined, [[1, 2, 3, 4]]), partial(joined, [[0, 0, 0, 0]])),
    ("a concatenation has no fused activation", "fused activation", partial(joined, [[0] * 4], "RELU"), partial(joined, [[0] * 4])),
    ("a dense layer gives a vector", "not one-dimensional", partial(dense, 3), partial(dense, 1)),
    ("a mean leaves the batch alone", "along the batch", partial(mean, 0, 1), partial(mean, 1, 2)),
    ("a mean over depth takes multiples of four", "multiple of 4", partial(mean, 3, depth=6), partial(mean, 3, depth=8)),
    ("a pad leaves the batch alone", "pads the batch", partial(pad, 1), partial(pad, 0)),
    ("slopes are a vector", "innermost", partial(prelu, 4, 4, 4), partial(prelu, 1, 1, 4)),
    ("the operation is supported", "ROUND is not a supported", lambda: files.as_operator(relu(1, 8), "ROUND"), partial(relu, 1, 8)),
)  # fmt: skip


def judged(content: bytes) -> Any:
    (verdict,) = npu.judge(content, "file", ("edgetpu",), Path("unused"))
    return verdict


@pytest.mark.parametrize(
    ("rule", "reason", "broken", "repaired"), CASES, ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_broken_rule_is_named_and_the_repaired_twin_is_fast(rule, reason, broken, repaired):
    (operator,) = judged(broken()).operators

    assert operator.placement == "cpu-fallback", rule
    assert reason in operator.reason
    assert judged(repaired()).passes


def chain(*ops: str) -> bytes:
    nodes = [Node(op, f"{op}{place}", (f"t{place}",), (f"t{place + 1}",)) for place, op in enumerate(ops)]
    tensors: list[Tensor] = [files.int8(f"t{place}", 1, 8) for place in range(len(ops) + 1)]
    return tflite_of(nodes, tensors, ["t0"], [f"t{len(ops)}"])


def test_everything_behind_the_first_unsupported_operator_stays_on_the_cpu():
    first, culprit, *rest = judged(chain("RELU", "HARD_SWISH", "RELU", "TANH")).operators

    assert (first.placement, culprit.placement) == ("npu-fast", "cpu-fallback")
    assert {each.placement for each in rest} == {"cpu-fallback"}
    assert all("comes after HARD_SWISH 't2', where the graph is cut" in each.reason for each in rest)


def test_a_quantize_at_a_float_input_does_not_cut_the_graph():
    quantize = Node("QUANTIZE", "quantize", ("x",), ("q",))
    relu_node = Node("RELU", "relu", ("q",), ("y",))
    tensors = [files.floats("x", 1, 8), files.int8("q", 1, 8), files.int8("y", 1, 8)]
    placements = [each.placement for each in judged(tflite_of([quantize, relu_node], tensors, ["x"], ["y"])).operators]

    assert placements == ["cpu-fallback", "npu-fast"]


def test_what_the_documentation_leaves_open_is_unverified_and_not_fast():
    (operator,) = judged(files.one("TRANSPOSE", [files.int8("x", 1, 2, 4), files.integers("perm", 0, 2, 1)],
                                   files.int8("y", 1, 4, 2))).operators  # fmt: skip
    assert operator.placement == "unverified"
