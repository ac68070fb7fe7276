"""Averages with padding and ceil_mode: what PyTorch computes, whatever the opset; and where ONNX Runtime does otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.readers.opsets import newest_opset
from bridge.verifying import onnx_runtime
from bridge.verifying.litert import KERNELS, Runner
from tests.builders import Pair, notes, qdq_model
from tests.runtimes import onnx_runtime_before

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

SCALE = np.float32(0.125)
FINER, LSB = 3, 1
"""Bounds: 1 for the kernel's own rounding; an average on the grid of its input is rescaled to a finer one afterwards."""


def known(opsets: list[int]) -> list[int]:
    """Of those, what the installed onnx knows: 1.16 knows 21."""
    return [opset for opset in opsets if opset <= newest_opset()]


def averaged(x: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """torch.nn.AvgPool2d."""
    made: np.ndarray = torch.nn.functional.avg_pool2d(
        torch.from_numpy(x), attrs["kernel_shape"], attrs["strides"], attrs["pads"][:2], bool(attrs["ceil_mode"]),
        bool(attrs["count_include_pad"]),
    ).numpy()  # fmt: skip
    return made


@st.composite
def pools(draw: Any) -> tuple[tuple[int, int], dict[str, Any]]:
    size = draw(st.integers(2, 8)), draw(st.integers(2, 8))
    kernel = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    pads = [draw(st.integers(0, k // 2)) for k in kernel]
    assume(all(n + 2 * pad >= k for n, k, pad in zip(size, kernel, pads, strict=True)))
    return size, {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)), draw(st.integers(1, 3))],
        "pads": [*pads, *pads],
        "ceil_mode": draw(st.integers(0, 1)),
        "count_include_pad": draw(st.integers(0, 1)),
    }


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(drawn=pools(), opset=st.sampled_from(known([13, 17, 19, 21, 22])), scale=st.sampled_from([0.05, 0.125, 0.25]))
def test_a_drawn_average_is_pytorchs_at_every_opset_or_refused(drawn, opset, scale):
    size, attrs = drawn
    model = qdq_model(
        ("AveragePool", "x", "y", attrs), inputs={"x": (1, 2, *size)},
        pairs={"x": Pair(float(SCALE), 3), "y": Pair(scale, -5)}, outputs="y", opset=opset,
    )  # fmt: skip
    try:
        done = convert(model, Options(layout="nchw"))
    except BridgeError as error:
        assert "padding" in error.problem
        return
    codes = np.random.default_rng(0).integers(-128, 128, (1, 2, *size), np.int8)
    expected = averaged((codes - np.float32(3)) * SCALE, attrs)
    expected = np.clip(np.rint(expected / np.float32(scale)) - 5, -128, 127)
    for kernels in KERNELS:
        got = Runner(done.tflite, kernels)({"x": codes})["y"]
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= (FINER if scale < SCALE else LSB)


@pytest.mark.parametrize("opset", known([13, 17, 18, 19, 21, 22]))
@pytest.mark.parametrize(
    ("attrs", "differs", "until"),
    [
        ({"pads": [0, 0, 0, 0], "ceil_mode": 1, "count_include_pad": 1}, lambda opset: opset < 19, "1.30"),
        ({"pads": [1, 0, 1, 0], "ceil_mode": 0, "count_include_pad": 1}, lambda opset: opset >= 19, "1.26"),
        ({"pads": [1, 1, 1, 1], "ceil_mode": 0, "count_include_pad": 1}, lambda _: False, ""),
        ({"pads": [0, 0, 0, 0], "ceil_mode": 1, "count_include_pad": 0}, lambda _: False, ""),
    ],
    ids=["ceil_mode adds", "pads of the axes differ", "pads alike", "not counted"],
)
def test_a_note_says_where_onnx_runtime_counts_other_elements(attrs, differs, until, opset):
    attrs = {"kernel_shape": [3, 3], "strides": [2, 2], **attrs}
    size = (6, 6) if attrs["ceil_mode"] else (5, 7)
    x = np.random.default_rng(0).normal(size=(1, 2, *size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("AveragePool", ["x"], ["y"], **attrs)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, averaged(x, attrs).shape)],
    )  # fmt: skip
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    (said,) = onnx_runtime.session(alone).run(None, {"x": x})
    still = differs(opset) and onnx_runtime_before(until)  # ONNX Runtime 1.24 and 1.28 still do, 1.26 and 1.30 do not
    assert (np.abs(said - averaged(x, attrs)).max() > 1e-3) == still

    model = qdq_model(
        ("AveragePool", "x", "y", attrs), inputs={"x": x.shape}, pairs={"x": Pair(0.125, 3), "y": Pair(0.125, 3)},
        outputs="y", opset=opset,
    )  # fmt: skip
    found = [note.what for note in notes(convert(model).graph, "pytorch")]
    assert bool(found) == any(differs(each) for each in (13, 19))
    if differs(opset):
        assert f"{'below' if opset < 19 else 'from'} opset 19" in found[0]
