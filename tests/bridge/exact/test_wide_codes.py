"""Constants of int32 codes: a bias where one is added in int32, the numbers they stand for anywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from tests.bridge.exact.checking import checked
from tests.bridge.exact.graphs import Builder, Model, Seeded

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

OPERANDS = {
    "Add": (4,),
    "Sub": (4,),
    "Mul": (4,),
    "Div": (4,),
    "Max": (4,),
    "Min": (4,),
    "PRelu": (4,),
    "Concat": (2, 4),
}
WEIGHTS = {"MatMul": (4, 5), "Gemm": (4, 5), "Conv": (5, 4, 1, 1), "ConvTranspose": (4, 5, 1, 1)}


def wide(b: Builder, shape: tuple[int, ...]) -> str:
    """Drawn codes beyond 8 bits, none of them 0, at a scale that makes numbers between -1.5 and 1.5 of them."""
    codes = np.array([b.one_of(-1, 1) * b.one_of(200, 700, 1500) for _ in range(int(np.prod(shape)))], np.int32)
    return str(b.add("DequantizeLinear", [b.constant(codes.reshape(shape), np.int32), b.constant(0.001)]))


def beside(op: str, shape: tuple[int, ...], *, first: bool = False) -> Model:
    b = Builder(Seeded(3))
    x = b.quantize(b.input(*((1, 4, 3, 3) if len(shape) == 4 else (2, 4)), magnitude=2.0))
    operands = [wide(b, shape), x] if first else [x, wide(b, shape)]
    attrs = {"axis": 1} if op == "Concat" else {}
    return b.finish([b.quantize(str(b.add(op, operands, **attrs)))])


@pytest.mark.parametrize("op", OPERANDS)
def test_an_operand_is_taken_for_the_numbers_that_its_codes_stand_for(tmp_path, op):
    outcome = checked(beside(op, OPERANDS[op]), tmp_path / "model.onnx")
    assert not outcome.refusal
    assert not outcome.too_far


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Concat"])
def test_on_the_left_too(tmp_path, op):
    outcome = checked(beside(op, OPERANDS[op], first=True), tmp_path / "model.onnx")
    assert not outcome.refusal
    assert not outcome.too_far


@pytest.mark.parametrize("op", WEIGHTS)
def test_a_weight_of_32_bits_is_refused_as_one_without_a_scale_for_8_and_stays_float_where_that_is_allowed(op):
    model = beside(op, WEIGHTS[op])
    with pytest.raises(BridgeError, match="has no trained scale"):
        convert(model.proto)
    assert convert(model.proto, Options(allow_float=True)).operators_out["DEQUANTIZE"] == 1


def test_a_bias_that_a_sum_reads_too_keeps_its_codes_in_the_layer_and_is_numbers_in_the_sum(tmp_path):
    b = Builder(Seeded(4))
    x = b.quantize(b.input(2, 4, magnitude=2.0))
    weight, _ = b.weight(b.normal(4, 4), 0)
    bias = wide(b, (4,))
    dense = b.quantize(str(b.add("Gemm", [x, weight, bias], transB=1)))
    outcome = checked(b.finish([dense, b.quantize(str(b.add("Add", [x, bias])))]), tmp_path / "model.onnx")
    assert not outcome.refusal
    assert not outcome.too_far


def test_an_output_of_such_codes_is_refused_by_name():
    b = Builder(Seeded(5))
    codes = wide(b, (4,))
    y = b.quantize(str(b.add("Relu", [b.quantize(b.input(2, 4, magnitude=2.0))])))
    with pytest.raises(BridgeError, match=f"'{codes}': is a constant of int32 codes"):
        convert(b.finish([y, codes]).proto)
