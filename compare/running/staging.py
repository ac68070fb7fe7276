"""A report's folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import BridgeError


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it in one step at the end, or disappears."""
    if out.exists():
        raise BridgeError(
            where=f"--out {out}", problem="exists already", remedy="Name a new folder; a report is never overwritten."
        )
    staging = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        raise BridgeError(
            where=f"--out {out}",
            problem=f"cannot be written: {error.strerror or error}",
            remedy="Choose a folder you may write to, on a disk with about 20 MB free.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
