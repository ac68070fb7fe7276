"""M59: calibration with random noise instead of real inputs."""

from __future__ import annotations

from collections.abc import Iterator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.wrong_calibration import case_with, likeness, only_input, times_worse
from compare.subjects.case import Case

NOISE, NATURAL = 0.05, 0.2
"""Correlation of neighbours: below the first it is noise, above the second it is not."""


def detect(case: Case) -> Iterator[Sighting]:
    """Where neighbours in the real inputs resemble each other, they must in the calibration data."""
    inputs = only_input(case)
    if case.calibration is None or inputs is None:
        return
    calibrated, real = likeness(case.calibration), likeness(inputs)
    if calibrated is None or real is None or abs(calibrated) > NOISE or real < NATURAL:
        return
    yield Sighting(
        where="calibration data",
        fact=f"looks like noise: neighbours correlate by {calibrated:.2f}, in the real inputs by {real:.2f}",
        remedy="Calibrate with 100 or more training samples.",
    )


def reproduce() -> Case:
    """Calibrated with np.random.rand, the placeholder of many examples; the real inputs are smooth images."""
    return case_with("noise")


def repair(case: Case) -> Case:  # noqa: ARG001 - the float model is not in the .tflite
    """Calibrated with real images."""
    return case_with("images")


MISMATCH = Mismatch(
    id="M59",
    name="calibrated with random noise",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0",
    source="reproduced; LiteRT documentation, post-training quantization, representative dataset",
    cause="Noise has the range of the inputs but not their structure: filters that answer to edges and areas see none. "
    "The input scale comes out right, the scales behind the first layer do not.",
    way_out="Calibrate with 100 or more real training samples, through the real preprocessing.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=times_worse,
    effect=Effect("mean output error (times)", 1.5),
    automatic=False,
)
