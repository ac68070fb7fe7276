"""The same trained float weights in both frameworks: the one place that knows both layouts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_CHANNELS, _SIDE = 12, 13
"""What the pool hands to the dense layer: 12 channels of 13 x 13."""


def torch_to_keras(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """OIHW and C, H, W dense inputs to HWIO and H, W, C dense inputs (catalogue entry M18)."""
    dense = weights["dense.weight"].reshape(-1, _CHANNELS, _SIDE, _SIDE)
    return {
        "conv/kernel": np.ascontiguousarray(weights["conv.weight"].transpose(2, 3, 1, 0)),
        "conv/bias": weights["conv.bias"],
        "dense/kernel": np.ascontiguousarray(dense.transpose(2, 3, 1, 0).reshape(-1, len(dense))),
        "dense/bias": weights["dense.bias"],
    }


def keras_to_torch(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back of `torch_to_keras`."""
    dense = weights["dense/kernel"].reshape(_SIDE, _SIDE, _CHANNELS, -1)
    return {
        "conv.weight": np.ascontiguousarray(weights["conv/kernel"].transpose(3, 2, 0, 1)),
        "conv.bias": weights["conv/bias"],
        "dense.weight": np.ascontiguousarray(dense.transpose(3, 2, 0, 1).reshape(dense.shape[3], -1)),
        "dense.bias": weights["dense/bias"],
    }
