"""How much a network itself amplifies: its inputs with a few codes moved by one step, the least that can differ."""

from __future__ import annotations

import numpy as np

from bridge.exact.arithmetic import dequantize
from bridge.exact.graph import Graph, Tensor
from bridge.verifying.batches import Arrays, stored_codes
from bridge.verifying.distance import STEPS
from bridge.verifying.reference import quantized_input

SHARE = 0.001
"""Of the input codes of each sample that are moved by one step; one code at least."""


def nudged(graph: Graph, batch: Arrays, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The batch with `SHARE` of each sample's codes moved up or down by one step, in every input; ONNX layout."""
    return {name: _nudged(quantized_input(graph, name), values, random) for name, values in batch.items()}


def _nudged(tensor: Tensor, values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    moved = values.reshape(len(values), -1).copy()
    size = moved.shape[1]
    count = min(size, max(1, round(SHARE * size)))
    for sample in moved:
        at = random.choice(size, count, replace=False)
        direction = random.choice(np.array([-1, 1]), count)
        sample[at] = _moved(tensor, sample[at], direction, float(np.ptp(values)))
    return moved.reshape(values.shape)


def _moved(tensor: Tensor, values: np.ndarray, direction: np.ndarray, width: float) -> np.ndarray:
    if tensor.qparams is None or tensor.q.axis is not None:
        # A float input has no step: what a code of 8 bits over its range would be.
        moved: np.ndarray = values + direction.astype(np.float32) * np.float32((width or 1.0) / STEPS)
        return moved
    codes = stored_codes(tensor, values).astype(np.int32)
    there = codes + direction
    outside = (there < tensor.q.qmin) | (there > tensor.q.qmax)
    return dequantize(np.where(outside, codes - direction, there), tensor.q)
