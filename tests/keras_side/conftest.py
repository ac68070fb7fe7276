"""Tiny digits and models for the Keras tests."""

import os

import numpy as np
import pytest

# In one pytest process another test may import TensorFlow first, and TensorFlow settles on a Keras only once.
os.environ["TF_USE_LEGACY_KERAS"] = "1"


@pytest.fixture(scope="session")
def digits():
    """(images uint8 (320, 28, 28), labels): class c is a bright bar at rows 2c+4, 2c+5 on dark noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(320) % 10
    images = generator.integers(0, 60, (320, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6, 4:24] = 255
    return images, labels


@pytest.fixture(scope="session")
def trained(digits):
    """The float network after two short epochs on `digits`; tests must not change it."""
    from keras_side.network import build_network
    from keras_side.training import train

    model = build_network(0)
    train(model, *digits, epochs=2, batch_size=32, learning_rate=1e-2, validation_split=0.1, seed=0)
    return model


@pytest.fixture(scope="session")
def trained_qat(trained, digits):
    """`trained`, fine-tuned for one epoch as a whole; tests must not change it."""
    from keras_side.qat import quantize_whole
    from keras_side.training import train

    model = quantize_whole(trained)
    train(model, *digits, epochs=1, batch_size=32, learning_rate=1e-3, validation_split=0.1, seed=0)
    return model
