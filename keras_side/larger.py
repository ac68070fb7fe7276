"""A network like the article's whose arithmetic takes far longer than the handling of its operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_side.legacy import import_keras
from keras_side.network import CLASSES, IMAGE
from keras_side.qat import quantize_dense_only, quantize_whole
from keras_side.training import train

if TYPE_CHECKING:
    import tf_keras

CHANNELS = (32, 64)
"""Of two convolutions in place of the article's one with 12: 10.8 million multiply-accumulates against 0.09 million."""


def build_larger(seed: int) -> tf_keras.Model:
    """(N, 28, 28) float32 pixels in 0..1 to (N, 10) float32 logits; the same `seed` draws the same weights."""
    layers, glorot = import_keras().layers, import_keras().initializers.GlorotUniform
    convolutions = [
        layers.Conv2D(count, 3, activation="relu", kernel_initializer=glorot(seed + index), name=f"conv{index}")
        for index, count in enumerate(CHANNELS)
    ]
    return import_keras().Sequential(
        [
            layers.InputLayer(input_shape=IMAGE, name="input"),
            layers.Reshape((*IMAGE, 1), name="reshape"),
            *convolutions,
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(CLASSES, kernel_initializer=glorot(seed + len(CHANNELS)), name="dense"),
        ],
        name="larger",
    )


def forms(seed: int) -> Mapping[str, tf_keras.Model]:
    """It in the article's three forms; QAT takes two steps on noise, which sets the ranges. For its speed only."""
    random = np.random.default_rng(seed)
    images, labels = random.integers(0, 256, (64, *IMAGE), np.uint8), np.arange(64) % CLASSES
    found = {
        "baseline": build_larger(seed),
        "qat": quantize_whole(build_larger(seed)),
        "qat-dense": quantize_dense_only(build_larger(seed)),
    }
    for model in found.values():
        train(model, images, labels, epochs=1, batch_size=32, learning_rate=1e-4, validation_split=0.0, seed=seed)
    return found
