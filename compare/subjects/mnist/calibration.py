"""Data that a converter is given to calibrate with: what the networks were trained on, and what goes wrong in practice."""

from __future__ import annotations

import numpy as np

from compare.subjects.mnist.dataset import Dataset

CALIBRATION_IMAGES = 100
"""As many as TensorFlow's own examples of a representative data set take."""


def calibration_images(data: Dataset, kind: str) -> np.ndarray:
    """Calibration data of the named kind, float32 (N, 28, 28); `representative` is what the networks were trained on.

    The others are what goes wrong in practice (the article's W3): pixels nobody divided by 255, noise, one image.
    """
    images = data.train_images[:CALIBRATION_IMAGES].astype(np.float32)
    sets: dict[str, np.ndarray] = {
        "representative": images / np.float32(255),
        "unnormalised": images,
        "noise": np.random.default_rng(0).random(images.shape, np.float32),
        "one-image": images[:1] / np.float32(255),
    }
    return sets[kind]


CALIBRATIONS = ("representative", "unnormalised", "noise", "one-image")
