"""Calling uv: with a cache of its own, nothing of the user's settings but where pip takes its packages from."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from bridge.errors import BridgeError


def run_uv(arguments: Sequence[str | Path], cache_folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run uv; what it keeps (wheels, for the next environment) is kept below `cache_folder` and nowhere else.

    Raises `BridgeError` where uv is not installed, `subprocess.TimeoutExpired` after `seconds`.
    """
    return subprocess.run(  # noqa: S603 - our own command
        [_binary(), "--no-config", "--no-progress", *map(str, arguments)],
        env=_variables(cache_folder), capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
    )  # fmt: skip


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    """uv's own reason, on one line."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Using Python", "Resolved", "warning:"))]
    return " ".join(line.removeprefix("error: ").removeprefix("cause: ") for line in lines) or f"exit {done.returncode}"


_MISMATCH = re.compile(r"Hash mismatch for `(?P<package>[^`]+)`.*?Computed: +(?P<found>sha256:[0-9a-f]{64})")


def hash_mismatch(reason: str) -> tuple[str, str] | None:
    """(package, hash of the file that came) where uv's reason is a file with another hash than the lock's."""
    found = _MISMATCH.search(reason)
    return None if found is None else (found["package"], found["found"])


def index_options() -> list[str]:
    """Where pip takes packages from, in uv's words: a mirror or a folder of wheels that pip knows serves here too."""
    options: list[str] = []
    settings = _pip_settings()
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    if "index-url" in settings:
        options += ["--default-index", settings["index-url"]]
    for url in settings.get("extra-index-url", "").split():
        options += ["--index", url]
    for place in settings.get("find-links", "").split():
        options += ["--find-links", place]
    if "extra-index-url" in settings:
        options += ["--index-strategy", "unsafe-best-match"]  # pip's own: the newest of all indexes
    return options


def main_index() -> list[str]:
    """The one index that pip asks first, or a mirror in its place; nothing of what a machine has besides."""
    url = _pip_settings().get("index-url")
    return [] if url is None else ["--default-index", url]


def _pip_settings() -> Mapping[str, str]:
    """pip's configuration (files and variables), by the option's name; empty without pip."""
    return _listed(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("PIP_"))))


@cache
def _listed(_variables: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    found = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        key, _, value = line.partition("=")
        found[key.rpartition(".")[2]] = value.strip().strip("'\"").replace("\\n", " ")
    return found


def _variables(cache_folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    certificates = _pip_settings().get("cert")
    if certificates is not None:
        kept.setdefault("SSL_CERT_FILE", certificates)
    return kept | {"UV_CACHE_DIR": str(cache_folder / "uv"), "UV_PYTHON_DOWNLOADS": "never"}


def _binary() -> str:
    if importlib.util.find_spec("uv") is None:
        raise BridgeError(
            where="environments of other tools",
            problem="need uv to be built, which is not installed",
            remedy="Install it with: pip install '.[report]'",
        )
    from uv import find_uv_bin

    return str(find_uv_bin())
