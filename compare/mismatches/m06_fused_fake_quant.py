"""M06: the fused fake-quant of PyTorch's default QAT qconfigs has no ONNX form."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import EXAMPLE, qat_model
from compare.subjects.case import Case


def _fused(model: Any) -> list[str]:
    """Paths of the fused fake-quants in a module."""
    if model is None:
        return []
    return [path for path, module in model.named_modules() if type(module).__name__ == "FusedMovingAvgObsFakeQuantize"]


def detect(case: Case) -> Iterator[Sighting]:
    """A model that a tool failed to export must hold no fused fake-quant."""
    if "fused_moving_avg_obs" not in case.log:
        return
    paths = _fused(case.torch_model)
    yield Sighting(
        where=f"{len(paths)} fake-quant modules, first '{paths[0]}'" if paths else "the exporter's message",
        fact=f"'{case.log.strip().splitlines()[0][:120]}'",
        remedy="Freeze the model before exporting (torch_side.export.freeze), or call bridge.convert on it.",
    )


def _failure(model: Any) -> str:
    """What the TorchScript exporter says of a model; empty when it exports."""
    from torch_side.export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        try:
            export_onnx(model, EXAMPLE, Path(folder) / "model.onnx")
        except BridgeError as error:
            return error.problem
    return ""


def reproduce() -> Case:
    """One convolution prepared with qconfig 'qnnpack', given to the exporter as it is."""
    model = qat_model("qnnpack")
    return Case(torch_model=model, log=_failure(model))


def repair(case: Case) -> Case:
    """Freeze it: plain fake-quant with the trained numbers as constants."""
    from torch_side.export import freeze

    frozen = freeze(case.torch_model)
    return replace(case, torch_model=frozen, log=_failure(frozen))


def measure(broken: Case, repaired: Case) -> float:
    """Exports that fail."""
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M06",
    name="fused fake-quant has no ONNX form",
    side="PyTorch",
    severity="fault",
    versions="torch 2.13, opsets 9 to 17, both exporters",
    source="pytorch#68638, #102694, #108828, #108834, #144464",
    cause="The default QAT qconfigs use one fused operator that observes and quantizes. Neither exporter knows it, and "
    "switching the observer off does not change the operator.",
    way_out="Replace each fused module by plain fake-quant with the same scale and zero point before exporting.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("exports that fail", 1.0),
    automatic=False,
)
