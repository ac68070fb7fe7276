"""M41: PyTorch's exporter cuts the int32 biases of converted models off towards zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import EXAMPLE, exported, qat_model
from compare.subjects.case import Case


def _unrounded(case: Case) -> list[str]:
    """Biases that the ONNX model computes as Cast(Div(bias, scale)) without a Round in between."""
    assert case.onnx_model is not None  # noqa: S101 - the callers have looked
    producers = {node.output[0]: node for node in case.onnx_model.graph.node}
    found = []
    for node in case.onnx_model.graph.node:
        bias = producers.get(node.input[2]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
        cast = producers.get(bias.input[0]) if bias is not None and bias.op_type == "DequantizeLinear" else None
        if cast is not None and cast.op_type == "Cast":
            divided = producers.get(cast.input[0])
            if divided is not None and divided.op_type == "Div":
                found.append(node.name)
    return found


def _engine_biases(model: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Path, real bias and weight scales of every layer of a converted model."""
    for path, module in model.named_modules():
        if hasattr(module, "_weight_bias"):
            weight, bias = module._weight_bias()  # noqa: SLF001 - torch has no other way to ask
            per_channel = "per_channel" in str(weight.qscheme())
            scale = weight.q_per_channel_scales().numpy() if per_channel else np.array(weight.q_scale())
            yield path, bias.detach().numpy().astype(np.float64), scale.astype(np.float64)


def _constant_codes(model: onnx.ModelProto) -> list[tuple[np.ndarray, np.ndarray]]:
    """(int32 codes, scale) of every bias behind a DequantizeLinear whose codes are constants."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    return [
        (constants[node.input[0]], constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in constants
        and node.input[1] in constants
        and constants[node.input[0]].dtype == np.int32
    ]


def detect(case: Case) -> Iterator[Sighting]:
    """An int32 bias in the ONNX file of a converted model must be rounded, as the engine rounds it."""
    if case.onnx is None or (b"Div" not in case.onnx and case.torch_model is None):
        return
    for name in _unrounded(case):
        yield Sighting(
            where=f"bias of '{name}'",
            fact="'Div' goes straight into 'Cast': 112.9 becomes 112",
            remedy="Export with torch_side.export.export_onnx, which rounds, or with a float bias.",
        )
    if case.torch_model is None or case.onnx_model is None:
        return
    written = _constant_codes(case.onnx_model)
    for path, bias, _ in _engine_biases(case.torch_model):
        for codes, scale in written:
            if codes.shape != bias.shape:
                continue
            exact = bias / np.broadcast_to(scale.astype(np.float64), bias.shape)
            cut = np.trunc(exact)
            if np.array_equal(codes, cut) and not np.array_equal(cut, np.rint(exact)):
                yield Sighting(
                    where=f"bias of '{path}'",
                    fact=f"{int((cut != np.rint(exact)).sum())} of {bias.size} codes are cut off instead of rounded",
                    remedy="Export with torch_side.export.export_onnx, which rounds, or with a float bias.",
                )


def _stock_export(model: Any) -> bytes:
    """The ONNX file as torch alone writes it."""
    from contextlib import nullcontext
    from unittest import mock

    with mock.patch("torch_side.export.rounded_biases", nullcontext):
        return exported(model)


def reproduce() -> Case:
    """One converted convolution, exported by torch alone."""
    from torch_side.training import to_int8_engine

    engine = to_int8_engine(qat_model("qnnpack"), "qnnpack")
    return Case(torch_model=engine, onnx=_stock_export(engine))


def repair(case: Case) -> Case:
    """The same model exported with rounding."""
    return replace(case, onnx=exported(case.torch_model))


def _codes(case: Case) -> np.ndarray:
    """The int32 codes that the file's arithmetic yields for the convolution's bias."""
    assert case.onnx is not None  # noqa: S101 - a measure knows its own reproduction
    model = onnx.load_from_string(case.onnx)
    written = _constant_codes(model)
    if written:
        return written[0][0]
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    source = next(node for node in model.graph.node if conv.input[2] in node.output)
    cast = next(node for node in model.graph.node if source.input[0] in node.output)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(cast.input[0], onnx.TensorProto.FLOAT, None))
    for import_ in model.opset_import:
        import_.version = max(import_.version, 19)  # the evaluator knows DequantizeLinear from 19 on
    (real,) = ReferenceEvaluator(model).run(None, {"input": EXAMPLE})
    codes: np.ndarray = np.trunc(real).astype(np.int32)
    return codes


def measure(broken: Case, repaired: Case) -> float:
    """Bias codes that differ."""
    return float((_codes(broken) != _codes(repaired)).sum())


MISMATCH = Mismatch(
    id="M41",
    name="int32 biases cut off instead of rounded",
    side="PyTorch",
    severity="risk",
    versions="torch 2.13, TorchScript exporter",
    source="found here; torch/onnx symbolic_helper.py, requantize_bias_helper: Div, then Cast",
    cause="The exporter of converted int8 models divides the bias by its scale and casts to int32, and a cast cuts off. "
    "PyTorch's engine rounds. Every second bias is one code off: 1 LSB in two logits of a thousand on MNIST.",
    way_out="Put a Round between the division and the cast.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("bias codes that differ", 1.0),
    automatic=False,
)
