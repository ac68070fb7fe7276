"""M10: the prepared model exports Conv, Div, BatchNormalization, which quantizers do not fold as training did."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, load

from bridge.verifying.onnx_runtime import as_users_make_it
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import EXAMPLE, exported
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """Behind a convolution with fake-quantized weights there must be no division followed by BatchNormalization."""
    if case.onnx_model is None:
        return
    for convolution, normalization in _unfolded(case.onnx_model):
        yield Sighting(
            where=f"{normalization.op_type} '{normalization.name or normalization.output[0]}'",
            fact=f"divides what '{convolution.name or convolution.output[0]}' computed with quantized weights, and "
            f"normalises it again: 2 operators between convolution and its activation's scale",
            remedy="Fold before the export: torch_side.export.freeze does, and so does torch.ao.quantization.convert.",
        )


def _unfolded(model: ModelProto) -> Iterator[tuple[NodeProto, NodeProto]]:
    """(convolution, BatchNormalization) with a Div between them, and an Add where the convolution has a bias.

    The weight comes out of a DequantizeLinear.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        division = producer.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if division is not None and division.op_type == "Add":
            division = next((producer[name] for name in division.input if name in producer), None)
        if division is None or division.op_type != "Div":
            continue
        convolution = producer.get(division.input[0])
        if convolution is None or convolution.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        weight = producer.get(convolution.input[1])
        if weight is not None and weight.op_type == "DequantizeLinear":
            yield convolution, node


@cache
def _model() -> Any:
    """QuantStub, Conv2d + BatchNorm2d + ReLU, DeQuantStub, prepared with fake-quants that the exporter takes."""
    import torch
    from torch import nn
    from torch.ao import quantization as tq

    activation: Any = tq.FakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8, reduce_range=False
    )
    weight: Any = tq.FakeQuantize.with_args(
        observer=tq.MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric, ch_axis=0,
    )  # fmt: skip
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        layers = nn.Sequential(tq.QuantStub(), nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), tq.DeQuantStub())
        fused: Any = tq.fuse_modules_qat(layers.train(), [["1", "2", "3"]])
        fused.qconfig = tq.QConfig(activation=activation, weight=weight)
        prepared: Any = tq.prepare_qat(fused)
        for _ in range(20):
            prepared(torch.rand(16, 2, 6, 6))
        prepared.apply(tq.disable_observer)
    return prepared.eval()


@cache
def _exported_as_it_is() -> bytes:
    import torch

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            _model(), (torch.from_numpy(EXAMPLE),), str(path), dynamo=False, opset_version=17, input_names=["input"]
        )
        return path.read_bytes()


def reproduce() -> Case:
    """One convolution with BatchNorm, exported as prepare_qat left it."""
    return Case(torch_model=_model(), onnx=_exported_as_it_is())


def repair(case: Case) -> Case:
    """The same model frozen: the normalisation is in weights and bias, on the grid that training used."""
    from torch_side.export import freeze

    return replace(case, onnx=exported(freeze(case.torch_model)))


def measure(broken: Case, repaired: Case) -> float:
    """Convolutions that ONNX Runtime leaves in float."""
    return float(_float_convolutions(broken.onnx) - _float_convolutions(repaired.onnx))


def _float_convolutions(content: bytes | None) -> int:
    assert content is not None  # noqa: S101 - a measure knows its own reproduction
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        as_users_make_it(content, optimized=path)
        return sum(node.op_type == "Conv" for node in load(path).graph.node)


MISMATCH = Mismatch(
    id="M10",
    name="batch-norm folded in training, not in the file",
    side="ONNX",
    severity="risk",
    versions="torch 2.13, every eager QAT model with Conv + BatchNorm; ONNX Runtime 1.23",
    source="torch/ao/nn/intrinsic/qat/modules/conv_fused.py, _forward_approximate; reproduced",
    cause="QAT fake-quantizes the weight times gamma / deviation, then divides the convolution's output by the same factor and "
    "runs a real BatchNormalization. Exported as it is, the file has both: ONNX Runtime leaves the convolution in float, "
    "onnx2tf writes MUL and ADD with scales nobody trained, or folds once more in float and rounds the weights again.",
    way_out="Export a frozen model (bridge.convert does it), in which weights and bias are what training computed with; or "
    "convert the file with python -m bridge, which folds both on the trained grid.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("convolutions that ONNX Runtime leaves in float", 1.0),
    automatic=False,
)
