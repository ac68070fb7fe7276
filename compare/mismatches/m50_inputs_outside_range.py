"""M50: deployment normalises its inputs differently from training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.models import conv_relu, samples, through_exact
from compare.subjects.case import Case
from compare.tflite.graph import OpenedTflite

OUTSIDE = 0.25
"""Share of values beyond the trained range. Training clips outliers, not a quarter of the data."""
UNUSED = 0.03
"""Share of the trained range that the values span: 8 of 256 codes."""


def detect(case: Case) -> Iterator[Sighting]:
    """The inputs must lie in the range that the file's input was trained for, and use it.

    A case with calibration data is M52's: there the range itself comes from the wrong data.
    """
    if case.file is None or not case.inputs or case.calibration is not None:
        return
    for name, low, high in _ranges(case.file):
        values = case.inputs.get(name)
        if values is None and len(case.inputs) == 1 == len(case.file.graph.inputs):
            (values,) = case.inputs.values()
        if values is None or not values.size:
            continue
        margin = (high - low) / 255
        outside = float(((values < low - margin) | (values > high + margin)).mean())
        span = float(np.ptp(values)) / (high - low)
        if outside > OUTSIDE or span < UNUSED:
            yield Sighting(
                where=f"input '{name}'",
                fact=f"was trained for {low:.4g} to {high:.4g}; the inputs reach from {values.min():.4g} to "
                f"{values.max():.4g}: {outside:.0%} are clipped, {min(span, 1.0):.1%} of the range is used",
                remedy="Feed what training fed: the same mean, deviation and division by 255.",
                sure=outside > OUTSIDE,
            )


def _ranges(file: OpenedTflite) -> Iterator[tuple[str, float, float]]:
    """(input, lowest, highest real number) of every input that is quantized, itself or by the QUANTIZE behind it."""
    readers = file.graph.consumers()
    for name in file.graph.inputs:
        tensor = file.graph.tensors[name]
        behind = [node for node in readers[name] if node.op == "QUANTIZE"]
        if tensor.qparams is None and behind:
            tensor = file.graph.tensors[behind[0].outputs[0]]
        if tensor.qparams is not None and tensor.qparams.axis is None and tensor.dtype.kind in "iu":
            limits, scale, zero = np.iinfo(tensor.dtype), float(tensor.q.scale), int(tensor.q.zero_point)
            yield name, scale * (limits.min - zero), scale * (limits.max - zero)


def reproduce() -> Case:
    """A model trained on 0 to 4, fed with 0 to 255: the division was left out."""
    content = conv_relu()
    return Case(onnx=content, tflite=through_exact(content), inputs={"x": samples() / np.float32(4.2) * 255})


def repair(case: Case) -> Case:
    """Fed as in training."""
    return replace(case, inputs={"x": samples()})


def measure(broken: Case, repaired: Case) -> float:
    """Share of the input values that are clipped, over the same share after the repair."""

    def clipped(case: Case) -> float:
        assert case.file is not None  # noqa: S101 - a measure knows its own reproduction
        assert case.inputs is not None  # noqa: S101
        ((_, low, high),) = _ranges(case.file)
        (values,) = case.inputs.values()
        return float(((values < low) | (values > high)).mean())

    return clipped(broken) - clipped(repaired)


MISMATCH = Mismatch(
    id="M50",
    name="inputs normalised differently from training",
    side="runtime",
    severity="risk",
    versions="any runtime",
    source="LiteRT documentation, quantized input: scale and zero point of the input tensor; yolov5#10799, ML-zoo#49; "
    "reproduced",
    cause="The .tflite takes the numbers training took, quantized by the input's own scale and zero point. Feeding pixels "
    "0..255, or values that were not normalised by mean and deviation, saturates the input, or leaves most codes unused.",
    way_out="Quantize the training-time input: code = round(x / scale) + zero point, with x normalised as in training.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("input values that are clipped (share)", 0.8),
    automatic=False,
)
