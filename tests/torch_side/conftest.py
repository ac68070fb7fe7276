"""Tiny digits and networks for the PyTorch tests."""

import numpy as np
import pytest

from torch_side import network, training


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (320, 28, 28), labels): class c is a bright bar at rows 2c+4, 2c+5 on dark noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(320) % 10
    images = generator.integers(0, 60, (320, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6, 4:24] = 255
    return images, labels


@pytest.fixture(scope="session")
def trained(digits: tuple[np.ndarray, np.ndarray]) -> network.Network:
    """The float network after two short epochs; tests must not change it."""
    model = network.build_network(0)
    training.fit(model, *digits, epochs=2, batch_size=32, learning_rate=1e-2, seed=0)
    return model
