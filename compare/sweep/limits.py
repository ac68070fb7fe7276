"""One task under a time and a memory limit: its rows, or why there are none."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compare.running.process import run
from compare.sweep.plan import Task

LOOK_EVERY_SECONDS = 0.5
"""How often a task's memory is added up; what it holds for less than that is not seen."""
PROGRAM = ("-m", "compare.sweep.job")


@dataclass(frozen=True)
class Order:
    """A task with all that a process on any machine needs for it."""

    task: Task
    identity: str
    data: str | None
    """As `--data` has it; a folder has to be there on every machine."""
    digest: str
    cache: Path
    made_with: str
    """The code and the versions that the sweep was started with."""
    seconds: float
    """Time limit."""
    megabytes: int
    """Memory limit, of the process and all it starts."""
    program: tuple[str, ...] = PROGRAM
    """What Python is called with; tests put other programs here."""


@dataclass(frozen=True)
class Finished:
    """What became of an order."""

    order: Order
    rows: tuple[dict[str, Any], ...]
    problem: str | None
    """Why it has no rows: the limit it broke, how it crashed, or the last it said."""
    seconds: float
    peak_bytes: int
    host: str


def execute(order: Order) -> Finished:
    """Carry out an order in a process of its own; never raises for anything that process does."""
    import platform

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        request, answer, output = folder / "request.json", folder / "answer.json", folder / "output.txt"
        facts = {"task": asdict(order.task), "data": order.data, "digest": order.digest, "cache": str(order.cache)}
        request.write_text(json.dumps({**facts, "made_with": order.made_with}))
        watch = _Watch(order)
        ended = run([sys.executable, *order.program, request, answer], folder, output, watch, _VARIABLES)
        problem, rows = ended.problem, tuple[dict[str, Any], ...]()
        if problem is None:
            rows, problem = _rows(answer)
        if problem is not None:
            said = _last_said(output.read_text(errors="replace"))
            problem = f"{problem}: {said}" if said and watch.broken is None else problem
        return Finished(order, rows, problem, ended.seconds, max(watch.peak, ended.peak_bytes), platform.node())


def _last_said(text: str) -> str:
    """The last line; of an error of ours both: what is wrong, and what to do."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[-1].startswith("  ") and ": " in lines[-2]:
        return f"{lines[-2].strip()[:300]}. {lines[-1].strip()[:300]}"
    return lines[-1].strip()[:300] if lines else ""


_VARIABLES = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
"""A sweep's figures come from the CPU, on machines with an accelerator, too."""


def _rows(answer: Path) -> tuple[tuple[dict[str, Any], ...], str | None]:
    try:
        content = json.loads(answer.read_text())
        if not isinstance(content, list) or not all(isinstance(row, dict) and "artifact" in row for row in content):
            return (), "answered with something that is no list of rows"
        return tuple(content), None
    except OSError:
        return (), "ended without an answer"
    except ValueError as error:
        return (), f"answered with garbage ({error})"


class _Watch:
    """Says when a limit is broken; remembers the most memory that was seen."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._next = 0.0
        self.peak = 0
        self.broken: str | None = None

    def __call__(self, seconds: float, pid: int) -> str | None:
        if seconds > self._order.seconds:
            self.broken = f"did not finish within {self._order.seconds:g} s (--time-limit)"
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_EVERY_SECONDS
            self.peak = max(self.peak, _held(pid))
            if self.peak > self._order.megabytes * 1_000_000:
                self.broken = (
                    f"took more than its {self._order.megabytes:,} MB of memory and was ended (--memory-per-job)"
                )
        return self.broken


def _held(pid: int) -> int:
    """Resident bytes of a process and everything it started."""
    import psutil

    try:
        tree = psutil.Process(pid)
        members = [tree, *tree.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total
