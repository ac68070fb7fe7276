"""A user's samples, read from an .npz or .npy of plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bridge.arrays import load_arrays
from bridge.errors import BridgeError


def read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays by name, one at least, real and finite; raises `BridgeError` for anything else."""
    found = load_arrays(path, "Save it with numpy.savez(path, input=array).")
    if not found:
        raise BridgeError(
            where=str(path),
            problem="holds no array",
            remedy="Save it with numpy.savez(path, input=array); one array for each input.",
        )
    return checked(found, str(path))


def checked(found: Mapping[str, np.ndarray], where: str) -> Mapping[str, np.ndarray]:
    """The arrays, real and finite; raises `BridgeError` for anything else."""
    for name, array in found.items():
        if array.dtype.kind not in "fiu" or not array.size or not np.isfinite(array).all():
            raise BridgeError(
                where=f"{where}, array '{name}'",
                problem=f"is {array.dtype} of shape {array.shape}, or holds NaN or infinity",
                remedy="Save real, finite numbers as the model takes them.",
            )
    return found
