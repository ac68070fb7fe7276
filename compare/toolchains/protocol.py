"""Work given to a toolchain: files and JSON in, files and JSON out, and an answer for every job whatever happens."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compare.running.process import Ended, run
from compare.toolchains.environments import ensure
from compare.toolchains.model import Toolchain

WORKER = Path(__file__).with_name("worker.py")
JOB_SECONDS = 600.0
"""A job that takes longer is taken for hung. The slowest one measured takes half a minute."""
_KEPT = 200_000
"""Characters of a job's output that are kept: its end."""
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Work:
    """One job for worker.py: what to do, with which arguments; file names are relative to the working folder or whole."""

    name: str
    do: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), self.name  # noqa: S101 - names become file names


@dataclass(frozen=True)
class Answer:
    """What became of one job; `problem` is None when it was done."""

    work: Work
    problem: str | None
    """The first line of the real error, its type before it; or how the process ended."""
    log: str
    """All it printed, the traceback included."""
    seconds: float
    peak_bytes: int
    """Of the process that did it, which may have done others before."""
    versions: Mapping[str, str]
    """Everything installed there, by name in lower case; empty where nothing answered."""
    facts: Mapping[str, Any]


def python_of(toolchain: Toolchain, cache: Path) -> Path:
    """The toolchain's interpreter, its environment built first where it is missing. Raises `BridgeError` as that does."""
    environment = toolchain.environment()
    return Path(sys.executable) if environment is None else ensure(environment, cache)


def work(
    python: Path,
    jobs: Sequence[Work],
    folder: Path,
    seconds: float = JOB_SECONDS,
    worker: Path = WORKER,
    answered: Callable[[Answer], None] = lambda _: None,
    more: Sequence[Path] = (),
) -> tuple[Answer, ...]:
    """Have `jobs` done one after the other by the worker under this interpreter, in `folder`; one answer for each.

    `more`: files that lie beside the worker there; the first of them has jobs of its own.

    A job that crashes its process, or takes longer than `seconds`, is answered with that; the rest is done in another
    process. `answered` hears of every job when its process has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = shutil.copyfile(worker, folder / "worker.py")  # that it needs nothing beside it is part of the deal
    for file in more:
        shutil.copyfile(file, folder / file.name)
    left, answers = list(jobs), []
    while left:
        request = folder / "request.json"
        tasks = [{"name": each.name, "do": each.do, "with": dict(each.arguments)} for each in left]
        request.write_text(json.dumps({"jobs": tasks, "more": [file.stem for file in more[:1]]}))
        output = folder / "output.txt"
        names = [each.name for each in left]
        ended = run([python, "-I", program, request], folder, output, _limit(folder, names, seconds))
        done = [each for each in left if (folder / f"{each.name}.json").exists()]
        found = [_answer(each, folder, ended) for each in done]
        if len(done) < len(left):  # the first without an answer is the one that ended the process
            found.append(_unanswered(left[len(done)], folder, ended, output))
        for each in found:
            answered(each)
        answers += found
        left = left[len(found) :]
    return tuple(answers)


def _limit(folder: Path, names: Sequence[str], seconds: float) -> Callable[[float, int], str | None]:
    """Asks how long the job at work has been at it; the start of the process counts as part of its first job."""
    at: tuple[str, float] = ("", time.monotonic())

    def asked(_seconds: float, _pid: int) -> str | None:
        nonlocal at
        started = next((name for name in reversed(names) if (folder / f"{name}.started").exists()), "")
        if started != at[0]:
            at = (started, time.monotonic())
        return f"did not finish within {seconds:g} s" if time.monotonic() - at[1] > seconds else None

    return asked


def _answer(job: Work, folder: Path, ended: Ended) -> Answer:
    said = _text(folder / f"{job.name}.log")
    try:
        content = json.loads((folder / f"{job.name}.json").read_text())
        error, facts, versions = content["error"], dict(content["facts"]), dict(content["versions"])
        problem = None if error is None else f"{error['type']}: {error['line']}"
        return Answer(job, problem, said, float(content["seconds"]), ended.peak_bytes, versions, facts)
    except (ValueError, KeyError, TypeError) as error:
        return Answer(job, f"answered with garbage ({error})", said, ended.seconds, ended.peak_bytes, {}, {})


def _unanswered(job: Work, folder: Path, ended: Ended, output: Path) -> Answer:
    said = _text(folder / f"{job.name}.log") + _text(output)
    problem = ended.problem or "ended without an answer"
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    return Answer(
        job, f"{problem}; last said: {last[:200]}" if last else problem, said, ended.seconds, ended.peak_bytes, {}, {}
    )


def _text(path: Path) -> str:
    return path.read_bytes()[-_KEPT:].decode(errors="replace") if path.exists() else ""
