"""Asking a program of our own that runs somebody else's software: it may crash, hang or say nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError

SECONDS = 120
_CRASHES = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""Signals that a program raises itself, by its own fault; any other one comes from outside."""


def ask(software: str, command: Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """The JSON object that the program printed last; `refused` with the reason where `software` refused or crashed.

    What it said beside that is under `said`. Raises `BridgeError` where that is no verdict on the file: it did not
    finish in time, was killed from outside, or the program itself ended in an error.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            [str(part) for part in command],
            capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _no_answer(software, f"did not finish within {SECONDS} s") from error
    said = done.stdout + done.stderr
    if -done.returncode in _CRASHES:
        doing = "running it on random inputs" if "\nprepared\n" in f"\n{done.stderr}" else "preparing it"
        return {"refused": f"it crashed while {doing} ({signal.Signals(-done.returncode).name})", "said": said}
    lines = done.stdout.strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        last = ([f"exit code {done.returncode}", *filter(None, map(str.strip, said.splitlines()))])[-1]
        raise _no_answer(software, f"gave no answer ({last[:200]})") from error
    if done.returncode != 0 or not isinstance(found, dict):
        raise _no_answer(software, f"gave no answer (exit code {done.returncode})")
    return {**found, "said": said}


def _no_answer(software: str, problem: str) -> BridgeError:
    return BridgeError(
        where=software,
        problem=problem,
        remedy="Try again when the machine is less busy; nothing was recorded for this file.",
    )
