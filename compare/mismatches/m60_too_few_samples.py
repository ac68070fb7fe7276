"""M60: too few calibration samples to show the range of the real inputs."""

from __future__ import annotations

from collections.abc import Iterator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.wrong_calibration import case_with, only_input, times_worse
from compare.subjects.case import Case

FEW, OUTSIDE = 10, 0.005
"""Samples; share of the real input values beyond what they show. The documentation advises 100 to 500 samples."""


def detect(case: Case) -> Iterator[Sighting]:
    """Few samples: surely too few where real inputs lie beyond their range. (Inputs of another magnitude are M52.)

    A range of inputs that is complete says nothing about the layers behind, so that is not sure.
    """
    inputs = only_input(case)
    if case.calibration is None or inputs is None or not 0 < len(case.calibration) < FEW:
        return
    low, high = float(case.calibration.min()), float(case.calibration.max())
    outside = float(((inputs < low) | (inputs > high)).mean())
    yield Sighting(
        where="calibration data",
        fact=f"{len(case.calibration)} sample(s) from {low:.4g} to {high:.4g}; {outside:.1%} of the real inputs lie beyond"
        + ("" if outside >= OUTSIDE else " (the layers behind may have seen less of their range)"),
        remedy="Calibrate with 100 or more training samples, every class and lighting among them.",
        sure=outside >= OUTSIDE,
    )


def reproduce() -> Case:
    """Calibrated with one sample only, a dark one."""
    return case_with("one")


def repair(case: Case) -> Case:  # noqa: ARG001 - the float model is not in the .tflite
    """Calibrated with all of them."""
    return case_with("images")


MISMATCH = Mismatch(
    id="M60",
    name="calibrated with too few samples",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0",
    source="reproduced; LiteRT documentation, post-training quantization: 100 to 500 samples",
    cause="The converter takes the smallest and largest value it saw. With one or a few samples everything brighter, louder "
    "or larger is clipped, at the input and in every layer.",
    way_out="Calibrate with 100 or more samples that cover the data, and compare their range with that of the test data.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=times_worse,
    effect=Effect("mean output error (times)", 25),
    automatic=False,
)
