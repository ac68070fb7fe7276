"""Random inputs for a model that somebody else's software is about to run."""

from __future__ import annotations

from math import prod

import numpy as np

from bridge.exact.graph import Graph, Tensor
from compare.tflite.macs import macs

MOST_SAMPLES = 8
MOST_MACS = 2**30
"""Of all samples together, though two samples there are always: reference kernels are slow."""
MOST_VALUES = 2**24
"""Of all inputs together; a damaged file may ask for more than there is memory."""


def random_inputs(graph: Graph) -> dict[str, np.ndarray] | None:
    """2 to 8 samples for every input, by its place: the first one harmless, the others over the whole range of its type.

    Harmless is a positive number, which can be divided by and has a root and a logarithm; floats are normal otherwise.
    int32 and int64 are zero otherwise: such inputs are indices, axes or sizes, and a random one would be out of range.
    None where an input has a type without numbers, a negative dimension, or the inputs are larger than `MOST_VALUES`.
    """
    tensors = [graph.tensors[name] for name in graph.inputs]
    if any(each.dtype.kind not in "iufb" or min(each.shape, default=0) < 0 for each in tensors):
        return None
    if sum(prod(each.shape) for each in tensors) > MOST_VALUES:
        return None
    samples = min(max(2, MOST_MACS // max(1, sum(macs(graph, node) for node in graph.nodes))), MOST_SAMPLES)
    return {str(place): _values(tensor, samples, place) for place, tensor in enumerate(tensors)}


def _values(tensor: Tensor, samples: int, seed: int) -> np.ndarray:
    random, shape = np.random.default_rng(seed), (samples, *tensor.shape)
    narrow = tensor.dtype.kind in "iu" and tensor.dtype.itemsize <= 2
    if tensor.dtype.kind == "f":
        values = random.normal(size=shape).astype(tensor.dtype)
    elif narrow:
        limits = np.iinfo(tensor.dtype)
        values = random.integers(limits.min, limits.max, shape, endpoint=True, dtype=tensor.dtype)
    else:
        values = np.zeros(shape, tensor.dtype)
    values[0] = np.iinfo(tensor.dtype).max if narrow else 1
    return values
