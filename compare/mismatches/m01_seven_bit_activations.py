"""M01: activations trained on 7 bits, for a limit that TFLite's kernels do not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.clipped_pairs import clips
from compare.mismatches.parts.models import conv_relu
from compare.subjects.case import Case

_REMEDY = "Train with qconfig 'tflite' or 'qnnpack'; an existing model keeps its clamp through python -m bridge."


def detect(case: Case) -> Iterator[Sighting]:
    """An activation fake-quant must use all 256 codes."""
    for path, codes in _narrow_modules(case.torch_model):
        yield Sighting(where=f"fake-quant '{path}'", fact=f"uses {codes} of 256 codes", remedy=_REMEDY)
    pairs = _clipped(case)
    if pairs:
        yield Sighting(
            where=f"{pairs} Q/DQ pairs",
            fact="a Clip at 127 between quantize and dequantize: 128 of 256 codes are used",
            remedy=_REMEDY,
        )


def _clipped(case: Case) -> int:
    return 0 if case.onnx_model is None else len(list(clips(case.onnx_model)))


def _narrow_modules(model: Any) -> Iterator[tuple[str, int]]:
    """Activation fake-quants of a prepared module that clamp to 7 bits."""
    if model is None:
        return
    for path, module in model.named_modules():
        observer = getattr(module, "activation_post_process", None)
        limits = getattr(observer, "quant_min", None), getattr(observer, "quant_max", None)
        if hasattr(module, "fake_quant_enabled") and limits == (0, 127):
            yield path, 128


def reproduce() -> Case:
    """One convolution trained with `reduce_range`, as PyTorch's default qconfigs on x86 export it."""
    return Case(onnx=conv_relu(seven_bit=True))


def repair(case: Case) -> Case:  # noqa: ARG001 - training cannot be repaired afterwards
    """The same convolution trained on 8 bits."""
    return Case(onnx=conv_relu())


def measure(broken: Case, repaired: Case) -> float:
    """Q/DQ pairs that lose half of their codes."""
    return float(_clipped(broken) - _clipped(repaired))


MISMATCH = Mismatch(
    id="M01",
    name="7-bit activations (reduce_range)",
    side="PyTorch",
    severity="note",
    versions="torch 2.13, qconfigs 'fbgemm' and 'x86'",
    source="pytorch#44939 (vpmaddubsw saturates), pytorch#50720, executorch PR#13284",
    cause="PyTorch's default qconfigs on x86 train activations on 0..127, because one x86 instruction saturates. "
    "TFLite's kernels have no such limit: one bit of every activation is lost for nothing.",
    way_out="Train with 8-bit activations: qconfig 'tflite', or 'qnnpack'.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("activations that use half of their codes", 2.0),
    automatic=False,
)
