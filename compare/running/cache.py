"""Trained networks kept between runs, addressed by everything that decided them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_DIGEST_BYTES = 32


def key(facts: Mapping[str, object]) -> str:
    """The address of a network: SHA-256 over data, seed, settings and versions, as sorted JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def load(folder: Path, address: str) -> dict[str, np.ndarray] | None:
    """The arrays stored under `address`; None when there are none or the file is damaged (it is then removed).

    A file is the SHA-256 of its payload, then an .npz without pickle.
    """
    path = folder / f"{address}.network"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        path.unlink(missing_ok=True)
        return None
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, ValueError, KeyError):
        path.unlink(missing_ok=True)
        return None


def store(folder: Path, address: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep `arrays` under `address`: written beside, then renamed, so that a reader never sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    payload = buffer.getvalue()
    beside = folder / f".{address}.{os.getpid()}.part"
    beside.write_bytes(hashlib.sha256(payload).digest() + payload)
    beside.replace(folder / f"{address}.network")


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of arrays."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name}{array.shape}{array.dtype}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
