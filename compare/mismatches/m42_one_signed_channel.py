"""M42: a weight channel of one sign trains with a zero point, although the scheme is symmetric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import qat_model
from compare.subjects.case import Case


def _zero_points(model: Any) -> Iterator[tuple[str, int, int]]:
    """Weight fake-quants with a zero point other than 0: path, how many channels, of how many."""
    if model is None:
        return
    for path, module in model.named_modules():
        zero_point = getattr(module, "zero_point", None)
        if path.endswith("weight_fake_quant") and zero_point is not None and bool((zero_point != 0).any()):
            yield path, int((zero_point != 0).sum()), zero_point.numel()


def detect(case: Case) -> Iterator[Sighting]:
    """A symmetric weight fake-quant must have zero point 0 in every channel."""
    for path, count, channels in _zero_points(case.torch_model):
        yield Sighting(
            where=f"'{path}'",
            fact=f"{count} of {channels} channels trained with a zero point: their weights have one sign",
            remedy="Train with qconfig 'tflite'; freeze() makes such channels symmetric, at half their resolution.",
        )


def reproduce() -> Case:
    """A convolution with one all-positive channel, prepared with qconfig 'fbgemm'."""
    return Case(torch_model=qat_model("fbgemm", one_signed=True))


def repair(case: Case) -> Case:
    """Freeze it, as the export does: the channel becomes symmetric."""
    from torch_side.export import freeze

    return replace(case, torch_model=freeze(case.torch_model))


def measure(broken: Case, repaired: Case) -> float:
    """Channels with a zero point."""

    def affected(case: Case) -> int:
        return sum(count for _, count, _ in _zero_points(case.torch_model))

    return float(affected(broken) - affected(repaired))


MISMATCH = Mismatch(
    id="M42",
    name="a one-signed channel with a zero point",
    side="PyTorch",
    severity="risk",
    versions="torch 2.13, every per-channel qconfig with fused fake-quant",
    source="found here; aten/src/ATen/native/quantized/cpu/QuantUtils.h, ChooseQuantizationParams",
    cause="The fused fake-quant takes the range of a channel as it is. Where all weights have one sign, the zero point "
    "goes to the end of the range, although the scheme is called symmetric. Neither TFLite nor PyTorch's own engine can "
    "hold such a weight.",
    way_out="Use plain fake-quant for weights (qconfig 'tflite'), or make the channel symmetric before exporting.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("weight channels with a zero point", 1.0),
    brings=("M01",),
)
