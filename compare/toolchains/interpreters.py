"""Python interpreters of other versions, where this machine has them; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bridge.errors import BridgeError


@cache
def interpreter(version: str) -> Path:
    """An interpreter of this `major.minor`: this one, one on the PATH, one of pyenv's or one of uv's.

    Raises `BridgeError` where there is none.
    """
    for candidate in _candidates(version):
        if _version_of(candidate) == version:
            return candidate
    raise BridgeError(
        where=f"Python {version}",
        problem="is not installed: not on the PATH, not among the interpreters of pyenv or uv",
        remedy=f"Install it (uv python install {version}, pyenv, or your system's packages) and run again.",
    )


def _candidates(version: str) -> Iterator[Path]:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        yield Path(sys.executable)
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    yield from _newest_first(pyenv.glob(f"{version}.*/bin/python"))
    yield from _newest_first(managed.glob(f"cpython-{version}.*/bin/python"))


def _newest_first(found: Iterator[Path]) -> list[Path]:
    return sorted(found, key=lambda path: [int(part) for part in str(path).split(".") if part.isdigit()], reverse=True)


def _version_of(candidate: Path) -> str:
    """What it says itself: a shim of pyenv may stand for a version that is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter
            [candidate, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
