"""M21: litert-torch's QAT quantizer hands torch.export a function, which newer PyTorch refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import refusal
from compare.subjects.case import Case

MESSAGE = "Expected `mod` to be an instance of `torch.nn.Module`, got <class 'function'>"
"""torch/export/__init__.py, `export`."""
PATTERN = "_get_aten_graph_module_for_pattern"
"""torchao/quantization/pt2e/utils.py, called for every model by litert_torch/quantize/pt2e_quantizer_utils.py."""
REMEDY = (
    "Replace torchao's _get_aten_graph_module_for_pattern in litert_torch.quantize.pt2e_quantizer_utils by one that wraps "
    "the function in a torch.nn.Module; or train with qconfig 'tflite' and convert with python -m bridge."
)


def detect(case: Case) -> Iterator[Sighting]:
    """PyTorch's refusal; sure where the traceback leads through torchao's helper for patterns."""
    if MESSAGE in case.log:
        yield Sighting(where="prepare_qat_pt2e", fact=f"'{MESSAGE}'", remedy=REMEDY, sure=PATTERN in case.log)


def _pattern(x: Any) -> Any:
    import torch

    return torch.relu(x)


def _exported(*, wrapped: bool) -> str:
    """What torch.export says to a pattern, as torchao's helper passes it on, or to the same one as a module."""
    import torch

    class Wrapped(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return _pattern(x)

    pattern: Any = Wrapped() if wrapped else _pattern
    said = refusal(lambda: torch.export.export(pattern, (torch.zeros(1),), {}, strict=True))
    return f"in {PATTERN}\n{said}" if said else ""


def reproduce() -> Case:
    """torchao's call with a function; litert-torch and torchao themselves are not installed here."""
    return Case(log=_exported(wrapped=False))


def repair(case: Case) -> Case:  # noqa: ARG001 - another tool's source
    """The same call with the function in a module."""
    return Case(log=_exported(wrapped=True))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M21",
    name="litert-torch's QAT quantizer stops",
    side="litert-torch",
    severity="fault",
    versions="litert-torch 0.10.0, torchao 0.18.0, PyTorch 2.13.0 (compare.versions, route torch-litert-qat). The "
    "reproduction makes torchao's call",
    source="litert-torch#355; reproduced",
    cause="For is_qat=True litert-torch's quantizer always looks for convolutions with batch norm, by a pattern that it "
    "writes as a plain function. torchao exports the pattern with torch.export, which takes modules only by now: "
    "prepare_qat_pt2e fails for every model, with or without a batch norm.",
    way_out=REMEDY + " Quantization after training (is_qat=False) is not affected.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("preparations that fail", 1),
    automatic=False,
)
