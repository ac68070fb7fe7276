"""Arrays out of a stranger's .npz or .npy: plain numbers only, and never more than the file can hold."""

from __future__ import annotations

import lzma
import stat
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from bridge.errors import BridgeError

_FORMAT: Any = np.lib.format  # annotated only in part
_UNPACKED = 2**28
"""Bytes that any archive may unpack to; a larger one up to `_RATIO` times its own size."""
_RATIO = 64
_MOST = 4096
"""Arrays in one archive."""
_DAMAGED = (
    OSError, ValueError, EOFError, TypeError, KeyError, AttributeError, IndexError, SyntaxError, OverflowError,
    NotImplementedError, RuntimeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
"""What zipfile and numpy raise for a file that is damaged, encrypted, pickled, or none of theirs."""


def load_arrays(path: Path, example: str) -> dict[str, np.ndarray]:
    """The arrays by name (`array` for an .npy); raises `BridgeError` with `example`, how such a file is saved."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("no regular file")
        with path.open("rb") as file:
            if file.read(6) == _FORMAT.MAGIC_PREFIX:
                file.seek(0)
                return {"array": _array(file, found.st_size)}
        with zipfile.ZipFile(path) as archive:
            return _unpacked(archive, found.st_size)
    except _DAMAGED as error:
        raise BridgeError(
            where=str(path),
            problem=f"is not a readable .npz archive of plain arrays, nor an .npy ({_reason(error)})",
            remedy=example,
        ) from error


def _reason(error: BaseException) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said.splitlines()[0][:200] if said else type(error).__name__


def _unpacked(archive: zipfile.ZipFile, packed: int) -> dict[str, np.ndarray]:
    entries = archive.infolist()
    total, allowed = sum(entry.file_size for entry in entries), max(_UNPACKED, _RATIO * packed)
    if len(entries) > _MOST or total > allowed:
        raise ValueError(
            f"{len(entries):,} entries unpack to {total:,} bytes; save it with numpy.savez, not compressed"
        )
    arrays: dict[str, np.ndarray] = {}
    for entry in entries:
        with archive.open(entry) as file:
            arrays[entry.filename.removesuffix(".npy")] = _array(file, entry.file_size)
    return arrays


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """One array, after its header was held against the bytes there are."""
    version = _FORMAT.read_magic(file)
    read_header: Any = {
        (1, 0): _FORMAT.read_array_header_1_0,
        (2, 0): _FORMAT.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"array format {version[0]}.{version[1]}")
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never unpacked")
    bytes_claimed = dtype.itemsize
    for axis in shape:
        if not isinstance(axis, int) or axis < 0:
            raise ValueError(f"shape {shape}")
        bytes_claimed *= axis
    if bytes_claimed > size:
        raise ValueError(f"an array of shape {shape} in {size:,} bytes")
    file.seek(0)
    array: np.ndarray = _FORMAT.read_array(file, allow_pickle=False)
    return array
