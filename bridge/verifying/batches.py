"""Inputs as a caller has them, cut into the model's own batches and arranged as the file stores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import quantize
from bridge.exact.graph import Graph, Tensor

Arrays = Mapping[str, np.ndarray]


def batches(graph: Graph, inputs: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """Pieces of the inputs as large as the model's own batch."""
    missing = [name for name in graph.inputs if name not in inputs]
    if missing:
        raise BridgeError(
            where=f"input '{missing[0]}'",
            problem=f"is not among the arrays given ({', '.join(sorted(inputs)) or 'none'})",
            remedy=f"Save one float32 array for each of: {', '.join(graph.inputs)}.",
        )
    counts = set()
    for name in graph.inputs:
        tensor, array = graph.tensors[name], np.asarray(inputs[name])
        natural = onnx_shape(tensor)
        fits = array.ndim == len(natural) and array.shape[1:] == natural[1:] and len(array) % natural[0] == 0
        if not fits or not len(array) or array.dtype.kind not in "fiu":
            raise BridgeError(
                where=f"input '{name}'",
                problem=f"has shape {array.shape} and type {array.dtype}; the model takes {natural} at a time",
                remedy="Save the samples along the first axis, laid out as in the ONNX file.",
            )
        if not np.isfinite(array).all():
            raise BridgeError(
                where=f"input '{name}'", problem="holds NaN or infinity", remedy="Check how the inputs were prepared."
            )
        counts.add(len(array) // natural[0])
    if len(counts) != 1:
        raise BridgeError(
            where="verification inputs",
            problem="hold different numbers of samples",
            remedy="Give every input the same number of samples.",
        )
    for index in range(counts.pop()):
        batch = {}
        for name in graph.inputs:
            size = onnx_shape(graph.tensors[name])[0]
            batch[name] = np.asarray(inputs[name], np.float32)[index * size : (index + 1) * size]
        yield batch


def onnx_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape the tensor has in the ONNX file."""
    if tensor.origin is None or tensor.origin.perm is None:
        return tensor.shape
    shape = [0] * len(tensor.shape)
    for stored, axis in enumerate(tensor.origin.perm):
        shape[axis] = tensor.shape[stored]
    return tuple(shape)


def codes(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """Real values in ONNX layout as they are stored: int8 codes, or float32 where the tensor stayed float."""
    arranged = real if tensor.origin is None else tensor.origin.arrange(real, tensor.shape)
    return arranged.astype(np.float32) if tensor.qparams is None else quantize(arranged, tensor.qparams)


def joined(batches: Sequence[np.ndarray]) -> np.ndarray:
    """One array of all samples; a model that gives a single number counts as a vector of one."""
    joined: np.ndarray = np.concatenate([np.atleast_1d(batch) for batch in batches])
    return joined
