"""What three entries on calibration data share: the float network they convert, and ranges of arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from compare.mismatches.parts.small_keras import converted, float_network, images, real_outputs
from compare.subjects.case import Case
from compare.tflite.graph import open_tflite


@functools.cache
def converted_with(make: str) -> bytes:
    return converted(float_network(), representative=CALIBRATIONS[make]())


CALIBRATIONS: Mapping[str, Callable[[], np.ndarray]] = {
    "images": images,
    "bytes": lambda: images() * np.float32(255),
    "noise": lambda: np.random.default_rng(3).random((32, 8, 8, 1), np.float32),
    "one": lambda: images()[9:10],
}
"""What the converter is given: every image as the model expects it; as 0..255; np.random.rand; a dark one alone."""


def case_with(make: str) -> Case:
    """The float network, calibrated in one of these ways; its real inputs are `images`."""
    tflite = converted_with(make)
    (name,) = open_tflite(tflite).graph.inputs
    return Case(tflite=tflite, inputs={name: images()}, calibration=CALIBRATIONS[make]())


def error(case: Case) -> float:
    """Mean distance of the .tflite from the float network on the real inputs."""
    exact = float_network()(images(), training=False).numpy()
    return float(np.abs(real_outputs(case.tflite, images()) - exact).mean())


def times_worse(broken: Case, repaired: Case) -> float:
    """How many times larger the mean error is than after calibration with real inputs."""
    return error(broken) / error(repaired)


def only_input(case: Case) -> np.ndarray | None:
    """The real inputs, of a case that has exactly one."""
    if case.inputs is None or len(case.inputs) != 1:
        return None
    return next(iter(case.inputs.values()))


def likeness(samples: np.ndarray) -> float | None:
    """Correlation of neighbours along axis 2: a side of the image in NHWC, NCHW and NHW; None for another rank.

    About 0.5 to 0.99 in photographs and digits, 0 in noise.
    """
    if samples.ndim not in (3, 4) or samples.shape[2] < 4 or samples.size < 256:
        return None
    some = samples[:64].astype(np.float64)
    left, right = some[:, :, 1:].ravel(), some[:, :, :-1].ravel()
    if left.std() == 0 or right.std() == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])
