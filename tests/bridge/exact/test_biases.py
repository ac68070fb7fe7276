"""What is added to a dense layer or a convolution: every form of it that ONNX takes, also one that several layers share."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from tests.bridge.exact.checking import checked
from tests.bridge.exact.graphs import Builder, Model, Seeded

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

FORMS = ("(N,)", "(1, N)", "(1,)", "()", "(1, 1)", "(M, 1)", "(M, N)", "alike (M, 1)", "alike (M, N)")


def addend(b: Builder, form: str, rows: int, channels: int) -> np.ndarray:
    """A drawn C of a Gemm in one of `FORMS`; "alike": the same in each row."""
    shape = tuple({"M": rows, "N": channels, "1": 1}[size] for size in form if size in "MN1")
    drawn = b.normal(*shape, scale=3.0)
    return np.broadcast_to(drawn[:1], shape) if form.startswith("alike") else drawn


def dense_layers(seed: int, forms: tuple[str, ...]) -> tuple[Model, bool]:
    """One to three Gemms that read one x and share one C where it fits; and whether some C differs from row to row."""
    b = Builder(Seeded(seed))
    rows, features = b.one_of(1, 2, 3), b.one_of(2, 3, 5)
    real = b.input(rows, features, magnitude=2.0)
    turned = b.odds(3)
    x = b.quantize(b.add("Transpose", [real], perm=[1, 0]) if turned else real)
    outputs, refused, shared = [], False, {}
    for _ in range(b.one_of(1, 2, 3)):
        channels, form = b.one_of(1, 2, 3), b.one_of(*forms)
        value = addend(b, form, rows, channels)
        c = shared.get(value.shape)
        if c is None:
            c = shared[value.shape] = b.constant(value)
        refused = refused or bool((np.atleast_2d(b.constants[c]) != np.atleast_2d(b.constants[c])[:1]).any())
        outward = b.odds(2)
        real = b.normal(*((channels, features) if outward else (features, channels)))
        w, _ = b.weight(real, 0 if outward else 1)
        attrs = {"transA": int(turned), "transB": int(outward)}
        attrs |= {"alpha": b.one_of(0.5, 2.0, 0.3)} if b.odds(2) else {}
        attrs |= {"beta": b.one_of(0.5, 3.0, -1.0)} if b.odds(2) else {}
        outputs.append(b.quantize(str(b.add("Gemm", [x, w, c], **attrs)), at_least=0.01))
    return b.finish(outputs), refused


@pytest.mark.parametrize("seed", range(60))
def test_gemms_with_any_c_are_right_or_refused(tmp_path, seed):
    model, refused = dense_layers(seed, FORMS)
    if refused:
        with pytest.raises(BridgeError, match="adds other numbers to each row"):
            convert(model.proto)
        return
    outcome = checked(model, tmp_path / "model.onnx")
    assert not outcome.refusal
    assert not outcome.too_far


@pytest.mark.parametrize("seed", range(30))
def test_layers_of_every_kind_that_share_one_bias_are_right(tmp_path, seed):
    b = Builder(Seeded(seed))
    channels = b.one_of(2, 3)
    x = b.quantize(b.input(1, channels, 3, 3, magnitude=2.0))
    flat = b.add("GlobalAveragePool", [x])
    row = b.quantize(str(b.add("Flatten", [flat], axis=1)))
    c, outputs = b.constant(b.normal(channels, scale=3.0)), []
    for kind in [b.one_of("Conv", "ConvTranspose", "Gemm", "MatMul", "Depthwise") for _ in range(3)]:
        if kind in ("Gemm", "MatMul"):
            w, _ = b.weight(b.normal(channels, channels), 1)
            y = b.add("Gemm", [row, w, c], beta=b.one_of(1.0, 2.0)) if kind == "Gemm" else b.add("MatMul", [row, w])
            y = b.add("Add", [y, c]) if kind == "MatMul" else y
        elif kind == "Depthwise":
            w, _ = b.weight(b.normal(channels, 1, 2, 2), 0)
            y = b.add("Conv", [x, w, c], group=channels)
        else:
            w, _ = b.weight(b.normal(channels, channels, 2, 2), int(kind == "ConvTranspose"))
            y = b.add(kind, [x, w, c])
        outputs.append(b.quantize(str(y), at_least=0.01))
    outcome = checked(b.finish(outputs), tmp_path / "model.onnx")
    assert not outcome.refusal
    assert not outcome.too_far


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 2), (1, 1, 1, 1, 1), (2, 1, 1, 1)], ids=str)
def test_a_constant_that_broadcasts_a_convolution_is_not_taken_into_it(tmp_path, op, shape):
    """A convolution of one channel, and a constant that makes more of it."""
    b = Builder(Seeded(1))
    x = b.quantize(b.input(1, 2, 3, 1, magnitude=2.0))
    w, _ = b.weight(b.normal(1, 2, 1, 1), 0)
    y = b.add(op, [b.add("Conv", [x, w]), b.constant(np.abs(b.normal(*shape)) + 1)])
    model = b.finish([b.quantize(str(y), at_least=0.02)])
    try:
        outcome = checked(model, tmp_path / "model.onnx")
    except BridgeError as refusal:
        assert "has no trained scale" in refusal.problem
        assert shape != (1,)
    else:
        assert not outcome.too_far
