"""Isolated Python environments for tools whose pins clash with ours: built once, kept in the cache, shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from bridge.errors import BridgeError

BUILD_SECONDS = 900
NEEDED_BYTES = 500_000_000
"""Free disk space asked for before a build; the largest environment so far takes a tenth."""


@dataclass(frozen=True)
class Environment:
    """A named set of pinned requirements."""

    name: str
    requirements: tuple[str, ...]
    """As pip takes them, every one pinned: `ethos-u-vela==5.2.0`."""

    def folder(self, cache: Path) -> Path:
        """Where it is kept: by its pins and this interpreter, so that a changed pin is another environment."""
        facts = "\n".join([platform.python_version(), platform.machine(), *sorted(self.requirements)])
        return cache / "environments" / f"{self.name}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


def cache_folder() -> Path:
    """Where everything is kept that a later run can use again."""
    return user_cache_path("qat-tflite-bridge", appauthor=False)


def ensure(environment: Environment, cache: Path) -> Path:
    """The environment's own `python`, built first where it is missing or was left half made.

    Raises `BridgeError` with pip's own reason when it cannot be built.
    """
    folder = environment.folder(cache)
    python, marker = folder / "bin" / "python", folder / ".complete"
    if marker.exists() and python.exists():  # a link to an interpreter that may be gone
        return python
    try:
        with _alone(folder):
            if not (marker.exists() and python.exists()):  # another process may have built it meanwhile
                shutil.rmtree(folder, ignore_errors=True)
                _build(environment, folder, python)
                marker.touch()
    except OSError as error:
        raise BridgeError(
            where=f"environment '{environment.name}'",
            problem=f"cannot be written to {folder.parent}: {error.strerror or error}",
            remedy="Choose a cache folder you may write to, on a disk with 500 MB free.",
        ) from error
    return python


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time builds an environment; the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise BridgeError(
            where=f"environment in {folder.parent}",
            problem=f"needs {NEEDED_BYTES // 10**6} MB of disk, {free // 10**6} MB are free",
            remedy="Free some space, or name another cache folder.",
        )
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(environment: Environment, folder: Path, python: Path) -> None:
    # -I: what the caller's PYTHONPATH holds would count as installed.
    install = ["-I", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--no-compile"]
    for command in (
        [sys.executable, "-I", "-m", "venv", str(folder)],
        [str(python), *install, *environment.requirements],
    ):
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _not_built(environment, f"took longer than {BUILD_SECONDS} s") from error
        if done.returncode != 0:
            said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            errors = [line for line in said if line.startswith("ERROR")] or said[-1:]
            raise _not_built(environment, "; ".join(errors[-2:]) or f"exit code {done.returncode}")


def _not_built(environment: Environment, reason: str) -> BridgeError:
    return BridgeError(
        where=f"environment '{environment.name}' ({', '.join(environment.requirements)})",
        problem=f"cannot be built: {reason}",
        remedy="It is built once and needs the package index for that; try again with network access.",
    )
