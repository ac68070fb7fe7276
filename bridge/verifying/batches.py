"""Inputs as a caller has them, cut into the model's own batches and arranged as the file stores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import quantize
from bridge.exact.graph import Graph, QParams, Tensor

Arrays = Mapping[str, np.ndarray]


def batches(graph: Graph, inputs: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """Pieces of the inputs as large as the model's own batch, float32.

    Raises `BridgeError` where an input is missing, does not fit, or holds what is not a finite number.
    """
    missing = [name for name in graph.inputs if name not in inputs]
    if missing:
        raise BridgeError(
            where=f"input '{missing[0]}'",
            problem=f"is not among the arrays given ({', '.join(sorted(inputs)) or 'none'})",
            remedy=f"Save one float32 array for each of: {', '.join(graph.inputs)}.",
        )
    counts = set()
    real = {}
    for name in dict.fromkeys(graph.inputs):
        array = np.asarray(inputs[name])
        natural = onnx_shape(graph.tensors[name])
        fits = natural and array.ndim == len(natural) and array.shape[1:] == natural[1:] and natural[0] > 0
        if not fits or not len(array) or len(array) % natural[0] or array.dtype.kind not in "fiu":
            raise BridgeError(
                where=f"input '{name}'",
                problem=f"has shape {array.shape} and type {array.dtype}; the model takes {natural} at a time",
                remedy="Save at least one sample, the samples along the first axis, laid out as in the ONNX file.",
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
            real[name] = array.astype(np.float32)
        if not np.isfinite(real[name]).all():
            raise BridgeError(
                where=f"input '{name}'",
                problem="holds NaN or infinity, as float32",
                remedy="Check how the inputs were prepared.",
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
        for name, array in real.items():
            size = onnx_shape(graph.tensors[name])[0]
            batch[name] = array[index * size : (index + 1) * size]
        yield batch


def onnx_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape the tensor has in the ONNX file."""
    if tensor.origin is None or tensor.origin.perm is None:
        return tensor.shape
    shape = [0] * len(tensor.shape)
    for stored, axis in enumerate(tensor.origin.perm):
        shape[axis] = tensor.shape[stored]
    return tuple(shape)


def arranged(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """Values in ONNX layout, in the order and shape in which the file stores them."""
    return values.reshape(tensor.shape) if tensor.origin is None else tensor.origin.arrange(values, tensor.shape)


def codes(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """Real values in ONNX layout as they are stored: codes, or the values themselves where the tensor stayed float."""
    return stored_codes(tensor, arranged(tensor, real))


def stored_codes(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """Real values, arranged as stored, in the type in which they are stored."""
    if tensor.qparams is None:
        return real.astype(tensor.dtype)
    known = np.where(np.isnan(real), np.float32(0), real)
    q = tensor.q
    if tensor.dtype != np.uint8:
        return quantize(known, q)
    shifted = QParams(q.scale, np.asarray(q.zero_point - np.int32(128)), q.axis, q.qmin - 128, q.qmax - 128)
    return (quantize(known, shifted).astype(np.int16) + 128).astype(np.uint8)


def joined(batches: Sequence[np.ndarray]) -> np.ndarray:
    """One array of all samples; a model that gives a single number counts as a vector of one."""
    together: np.ndarray = np.concatenate([np.atleast_1d(batch) for batch in batches])
    return together
