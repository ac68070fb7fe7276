"""A per-channel convolution in TensorFlow's own fake-quants: what two entries on the converter's biases are made of."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from compare.mismatches.parts.small_keras import converted_function

CHANNELS = 4


@functools.cache
def convolution(reaches: tuple[float, ...], biases: tuple[float, ...]) -> bytes:
    """(1, 8, 8, 1) -> 3x3 convolution -> 4 channels, int8; `reaches` are the largest weights of the channels."""

    def function(x: Any) -> Any:
        import tensorflow as tf

        reach = np.array(reaches, np.float32)
        kernel = np.random.default_rng(0).uniform(-1, 1, (3, 3, 1, CHANNELS)).astype(np.float32) * reach
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -reach, reach, narrow_range=True)
        x = tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 1.0)
        y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), np.array(biases, np.float32))
        return tf.quantization.fake_quant_with_min_max_vars(y, -8.0, 8.0)

    return converted_function(function, (1, 8, 8, 1))
