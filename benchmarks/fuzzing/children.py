"""Cases in a bounded process of their own: what ends it, or never ends, costs one case and is reported."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

SECONDS = 120.0
"""Of one case, reference and runtimes included; on a loaded machine a slow case is not a hang yet."""


CHILD = (sys.executable, "-m", "benchmarks.fuzzing.child")


def results(
    kind: str, seed: int, first: int, last: int, seconds: float = SECONDS, child: Sequence[str] = CHILD
) -> Iterator[dict[str, Any]]:
    """The record of every case in first..last, from as many child processes as it takes, one after another."""
    case = first
    while case < last:
        for record in _from_one_child([*child, kind, str(seed), str(case), str(last)], case, last, seconds):
            yield record
            case = record["case"] + 1


def _from_one_child(command: list[str], first: int, last: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Records until the child ends; if it ends, or hangs, within a case, that case's record says so and is the last."""
    with subprocess.Popen(  # noqa: S603 - ourselves, with a word and three numbers
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        running: dict[str, Any] = {"case": first, "phase": "start"}
        for line in _lines(child, seconds):
            if line is None:
                child.kill()
                yield running | {"verdict": "hang", "why": f"no answer within {seconds:.0f} s"}
                return
            record = json.loads(line)
            if "verdict" in record:
                yield record
                running = {"case": record["case"] + 1, "phase": "start"}
            else:
                running |= record
        code = child.wait()
    if running["case"] < last and (code != 0 or running["case"] == first):
        if running["phase"] == "start":
            raise RuntimeError(f"{' '.join(command)} ended with code {code} before its first case")
        verdict = (
            "no reference" if running["phase"] == "reference" else "crash"
        )  # ONNX Runtime ends on some dead branches
        yield running | {"verdict": verdict, "why": f"the process ended with code {code}"}


def _lines(child: subprocess.Popen[bytes], seconds: float) -> Iterator[bytes | None]:
    """Whole lines as they come; None, once, when none came for `seconds`."""
    assert child.stdout is not None  # noqa: S101 - it was asked for
    descriptor, buffer = child.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        started = time.monotonic()
        while True:
            if not selector.select(max(0.0, started + seconds - time.monotonic())):
                yield None
                return
            data = os.read(descriptor, 1 << 16)
            if not data:
                return
            *whole, buffer = (buffer + data).split(b"\n")
            for line in whole:
                started = time.monotonic()
                yield line
