"""Asking a program of our own that runs somebody else's software: it may crash, hang or say nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

SECONDS = 120


def ask(command: Sequence[str]) -> dict[str, Any]:
    """The JSON object that the program printed last; `refused` with the reason where it gave none.

    What it said beside that is under `said`.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            list(command), capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"it did not answer within {SECONDS} s", "said": ""}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        found = {"refused": f"its process ended with exit code {done.returncode}"}
    return {**found, "said": done.stdout + done.stderr}
