"""A user's samples, read from an .npz or .npy of plain arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bridge.errors import BridgeError


def read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays by name, real and finite; raises `BridgeError` for anything else."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = {"array": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BridgeError(
            where=str(path),
            problem="is not a readable .npz or .npy of plain arrays",
            remedy="Save it with numpy.savez(path, input=array).",
        ) from error
    for name, array in found.items():
        if array.dtype.kind not in "fiu" or not array.size or not np.isfinite(array).all():
            raise BridgeError(
                where=f"{path}, array '{name}'",
                problem=f"is {array.dtype} of shape {array.shape}, or holds NaN or infinity",
                remedy="Save real, finite numbers as the model takes them.",
            )
    return found
