"""M07: torch.onnx.export's default exporter cannot write what eager quantization makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import qat_model
from compare.mismatches.parts.torch_exports import line_with, refused_export
from compare.mismatches.parts.two_forms import converted
from compare.subjects.case import Case

_FREEZE = "Freeze the model first (torch_side.export.freeze): constants instead of tensors."
MESSAGES = {
    "does not have a field with name '__obj_flatten__'": "Export a converted model with dynamo=False, opset_version=17.",
    "_fused_moving_avg_obs_fq_helper": _FREEZE,
    "Could not guard on data-dependent expression": _FREEZE,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _FREEZE,
}
"""What the exporter says, in that order: of a converted model, of fused fake-quant, of plain fake-quant (torch 2.13, and
older), and what to do."""


def detect(case: Case) -> Iterator[Sighting]:
    """The default exporter must not be given a prepared or a converted model.

    The guard message can be about anything that depends on data; it counts only beside a model with fake-quant.
    """
    for message, remedy in MESSAGES.items():
        if message not in case.log:
            continue
        if message.startswith("Could not guard") and not _has_fake_quant(case.torch_model):
            continue
        yield Sighting(where="torch.onnx.export", fact=f"'{line_with(case.log, message)}'", remedy=remedy)
        return


def _has_fake_quant(model: Any) -> bool:
    return model is not None and any(hasattr(module, "fake_quant_enabled") for module in model.modules())


@cache
def _refusal() -> tuple[Any, str]:
    engine = converted(qat_model("qnnpack"), "qnnpack")
    return engine, refused_export(engine)


def reproduce() -> Case:
    """One converted convolution, exported with default arguments."""
    engine, log = _refusal()
    return Case(torch_model=engine, log=log)


def repair(case: Case) -> Case:
    """A model with fake-quant frozen, a converted one with the TorchScript exporter."""
    if _has_fake_quant(case.torch_model):
        from torch_side.export import freeze

        frozen = freeze(case.torch_model)
        return replace(case, torch_model=frozen, log=refused_export(frozen))
    return replace(case, log=refused_export(case.torch_model, dynamo=False, opset_version=17))


def measure(broken: Case, repaired: Case) -> float:
    """Exports that fail."""
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M07",
    name="the default exporter cannot write quantized models",
    side="PyTorch",
    severity="fault",
    versions="torch 2.9 to 2.13 (dynamo=True is the default from 2.9 on)",
    source="pytorch#167063, #106748, #143474, ao#3392; reproduced with 2.13",
    cause="torch.onnx.export goes through torch.export by default. That cannot flatten the packed weights of a converted "
    "model, has no ONNX function for fused fake-quant, and may not decide on the numbers that plain fake-quant keeps in "
    "tensors.",
    way_out="A converted model: dynamo=False, opset 13 or later. A QAT model: freeze it first, then either exporter works.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("exports that fail", 1.0),
    automatic=False,
)
