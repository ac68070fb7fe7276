"""M52: calibration data of another magnitude than the model's inputs, such as pixels 0..255 for a model of 0..1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.wrong_calibration import case_with, only_input, times_worse
from compare.subjects.case import Case

TIMES = 3.0
"""Real data of one source differ less; normalising by mean and deviation, or by 127.5 or 255, differs more."""


def detect(case: Case) -> Iterator[Sighting]:
    """The largest magnitude of the calibration data must be about that of the real inputs."""
    inputs = only_input(case)
    if case.calibration is None or inputs is None or not inputs.size or not case.calibration.size:
        return
    calibrated, real = float(np.abs(case.calibration).max()), float(np.abs(inputs).max())
    if not calibrated > 0 or not real > 0 or 1 / TIMES < calibrated / real < TIMES:
        return
    codes = min(256.0, 256.0 * real / calibrated)
    yield Sighting(
        where="calibration data",
        fact=f"reaches {calibrated:.4g}, the real inputs {real:.4g}: "
        + (f"they use about {codes:.0f} of 256 codes" if calibrated > real else "they are clipped"),
        remedy="Calibrate with the output of the preprocessing that the model was trained with.",
    )


def reproduce() -> Case:
    """A network of inputs 0..1, calibrated with 0..255."""
    return case_with("bytes")


def repair(case: Case) -> Case:  # noqa: ARG001 - the float model is not in the .tflite
    """Calibrated with what the model is fed with."""
    return case_with("images")


MISMATCH = Mismatch(
    id="M52",
    name="calibrated with inputs of another magnitude",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0",
    source="reproduced; LiteRT documentation, post-training quantization, representative dataset",
    cause="The representative dataset skipped the preprocessing, or did it twice. Every activation scale is off by the same "
    "factor: the network runs on a few of the 256 codes, or is clipped. The converter cannot notice.",
    way_out="Feed the converter from the same function that feeds the model, and compare minimum and maximum of both.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=times_worse,
    effect=Effect("mean output error (times)", 50),
    automatic=False,
)
