"""Whole numbers as ONNX counts with them: what a Slice takes, and arithmetic on shapes that int64 cannot hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cut(start: int, end: int, step: int, size: int) -> range:
    """Which elements of an axis a Slice takes (ONNX operator specification, Slice); `step` is not 0.

    Negative numbers count from the end; then everything is limited to the axis, whatever its size in the file.
    """
    start += size if start < 0 else 0
    end += size if end < 0 else 0
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def exactly(compute: Callable[..., object], *arrays: np.ndarray) -> np.ndarray:
    """`compute` of arrays as numpy does it; whole numbers without wrapping around.

    Raises `ValueError` where a whole number leaves its type, which numpy and ONNX Runtime let pass in silence, and for
    a division by zero.
    """
    if any(array.dtype.kind not in "iu" for array in arrays):
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used (passes/possible.py)
            return np.asarray(compute(*arrays))
    dtype = np.result_type(*arrays)
    try:
        exact = np.asarray(compute(*(array.astype(object) for array in arrays)), object)
    except ZeroDivisionError as error:
        raise ValueError("a division by zero") from error
    limits = np.iinfo(dtype)
    outside = [number for number in exact.flat if not limits.min <= number <= limits.max]
    if outside:
        raise ValueError(f"{outside[0]} does not fit {dtype}")
    return exact.astype(dtype)
