"""Sparse constants of ONNX as the arrays they stand for (onnx.proto, SparseTensorProto)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from bridge.errors import BridgeError
from bridge.exact.budget import Budget, size_of


def dense(sparse: onnx.SparseTensorProto, name: str, budget: Budget) -> np.ndarray:
    """All elements, zero where none is stored; raises `BridgeError` for indices outside, or given twice."""
    where, shape = f"sparse constant '{name}'", tuple(sparse.dims)
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(where, "its data does not fit its shape") from error
    if values.dtype.kind not in "fiub":
        raise _damaged(where, "holds text, and no number")
    if any(axis < 0 for axis in shape) or values.ndim != 1 or indices.dtype != np.int64:
        raise _damaged(
            where, f"has shape {shape[:8]}, values of {values.ndim} axes and indices of type {indices.dtype}"
        )
    budget.spend(size_of(shape), where)
    if indices.ndim == 2 and indices.shape == (values.size, len(shape)):
        inside = bool((indices >= 0).all() and (indices < np.array(shape)).all())
        flat = np.ravel_multi_index(tuple(indices.T), shape) if inside and shape else indices[:0, 0]
    else:
        inside, flat = True, indices
    if flat.shape != values.shape or not inside or ((flat < 0) | (flat >= size_of(shape))).any():
        raise _damaged(where, f"has indices that are not in shape {shape[:8]}, one for each value")
    if np.unique(flat).size < flat.size:
        raise _damaged(where, "gives one of its elements twice")
    array = np.zeros(size_of(shape), values.dtype)
    array[flat] = values
    return array.reshape(shape)


def _damaged(where: str, problem: str) -> BridgeError:
    return BridgeError(where=where, problem=problem, remedy="The file is damaged; export it again.")
