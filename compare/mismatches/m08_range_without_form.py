"""M08: the TorchScript exporter refuses weights in -127..127, and any opset below 13 for what QAT makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.torch_exports import line_with, refused_export
from compare.mismatches.parts.two_forms import trained
from compare.subjects.case import Case

_FREEZE = (
    "Freeze the model first (torch_side.export.freeze): weights already clamped to -127 are exported with -128..127."
)
_OPSET = "Export with opset_version=13 or later; 17 is what this project uses."
_NO_FLOAT = "'torch._C.Value' object has no attribute 'float'"
"""Opsets 10 to 12 read the scale of fake-quant as a number, and a module keeps it in a tensor. Other operators can fail
in the same words: it counts only beside a model with fake-quant."""

MESSAGES = {
    "ONNX allows only (0, 127), (0, 255) and (-128, 127)": _FREEZE,
    "not supported, requires opset 13 Clip": _OPSET,
    "ONNX export of DequantizeLinear in opset": _OPSET,
    "ONNX export of QuantizeLinear in opset": _OPSET,
    _NO_FLOAT: _OPSET,
    "'aten::fake_quantize_per_tensor_affine' to ONNX opset": _OPSET,
    "'aten::fake_quantize_per_channel_affine' to ONNX opset": _OPSET,
}
"""What the exporter says, and what to do (torch/onnx/_internal/torchscript_exporter, symbolic_opset10.py and 13)."""

_WRITABLE = {(0, 127), (0, 255), (-128, 127)}
"""symbolic_opset13.py, fake_quantize_per_tensor_affine."""


def detect(case: Case) -> Iterator[Sighting]:
    """Every range must be one that the exporter writes, and the opset 13 or later."""
    for message, remedy in MESSAGES.items():
        modules = list(trained(case.torch_model)) if message in case.log else []
        if message in case.log and (modules or message != _NO_FLOAT):
            ranges = [(each.path, each.limits) for each in modules if each.limits not in _WRITABLE]
            narrow = bool(ranges) and remedy is _FREEZE
            yield Sighting(
                where=f"fake-quant '{ranges[0][0]}'" if narrow else "torch.onnx.export",
                fact=f"uses {ranges[0][1][0]}..{ranges[0][1][1]}; '{line_with(case.log, message, 80)}'"
                if narrow
                else f"'{line_with(case.log, message, 100)}'",
                remedy=remedy,
            )
            return


@cache
def _model() -> Any:
    """One convolution with ReLU, plain fake-quant: int8 activations, weights in -127..127."""
    import torch
    from torch import nn
    from torch.ao import quantization as tq

    from torch_side.training import expected_warnings

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(0)
        layers = nn.Sequential(tq.QuantStub(), nn.Conv2d(2, 4, 3), nn.ReLU(), tq.DeQuantStub()).train()
        fused: Any = tq.fuse_modules_qat(layers, [["1", "2"]])
        fused.qconfig = tq.QConfig(
            activation=tq.FakeQuantize.with_args(
                observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
            ),
            weight=tq.FakeQuantize.with_args(
                observer=tq.MovingAverageMinMaxObserver,
                quant_min=-127,
                quant_max=127,
                dtype=torch.qint8,
                qscheme=torch.per_tensor_symmetric,
            ),
        )
        prepared: Any = tq.prepare_qat(fused)
        prepared(torch.rand(16, 2, 6, 6))
        prepared.apply(tq.disable_observer)
    return prepared.eval()


def reproduce() -> Case:
    """One convolution with TFLite's own weight range, exported as it is with opset 17."""
    return Case(torch_model=_model(), log=refused_export(_model(), dynamo=False, opset_version=17))


def repair(case: Case) -> Case:
    """Freeze it, and export with opset 17."""
    from torch_side.export import freeze

    frozen = freeze(case.torch_model)
    return replace(case, torch_model=frozen, log=refused_export(frozen, dynamo=False, opset_version=17))


def measure(broken: Case, repaired: Case) -> float:
    """Exports that fail."""
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M08",
    name="weights in -127..127 and old opsets are refused",
    side="PyTorch",
    severity="fault",
    versions="torch 2.13, TorchScript exporter",
    source="pytorch PR#39738, PR#52430, PR#75697, nncf PR#1816, super-gradients#1515; reproduced",
    cause="QuantizeLinear saturates at the ends of its type: -127..127, the range TFLite wants for weights, has no ONNX "
    "form, and the exporter refuses it. One scale per channel, and the Clip that 0..127 needs, came with opset 13; plain "
    "fake-quant with its scale in a tensor came then too.",
    way_out="Clamp the weights to -127 before exporting and say -128..127 (freeze does); opset 13 or later.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("exports that fail", 1.0),
    automatic=False,
)
