"""How far a command is: bars on a terminal; without one a line for each finished job, with its count, figure and seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

LONGEST = 300
"""Characters of a problem that are printed while the work goes on; the report has all of it."""


@dataclass(frozen=True)
class Heard:
    """What the work says, by stage."""

    expect: Callable[[str, int], None]
    """(stage, how many jobs it has)."""
    started: Callable[[str, str], None]
    """(stage, name of the job)."""
    finished: Callable[[str, str, str | None, str, float | None], None]
    """(stage, name of the job, its problem or None, its figure or nothing, the seconds that it took where they are known)."""


@contextmanager
def progress(console: Console, stages: Mapping[str, int | None], loud: Collection[str]) -> Iterator[Heard]:
    """`stages`: the number of jobs of each, where it is known. Problems of the `loud` ones are printed as they happen."""
    shown = _on_a_terminal if console.is_terminal else _in_lines
    with shown(console, stages, loud) as heard:
        yield heard


@contextmanager
def _on_a_terminal(console: Console, stages: Mapping[str, int | None], loud: Collection[str]) -> Iterator[Heard]:
    """A bar for each stage; whatever is running is cut to what the bars leave of the line."""
    bars = Progress(
        SpinnerColumn(),
        TextColumn(f"{{task.description:<{max(map(len, stages))}}}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[now]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=console,
        expand=True,
    )
    tasks = {stage: bars.add_task(stage, total=count, now="") for stage, count in stages.items()}
    running: dict[str, list[str]] = {stage: [] for stage in stages}

    def expect(stage: str, count: int) -> None:
        bars.update(tasks[stage], total=count)

    def started(stage: str, label: str) -> None:
        running[stage].append(label)
        bars.update(tasks[stage], now=", ".join(running[stage]))

    def finished(stage: str, label: str, problem: str | None, figure: str, seconds: float | None) -> None:  # noqa: ARG001 - the bars have a clock
        if label in running[stage]:
            running[stage].remove(label)
        bars.update(tasks[stage], advance=1, now=", ".join(running[stage]) or f"{label} {figure}".strip())
        if problem is not None and stage in loud:
            said = f"{label}: {problem.partition(chr(10))[0]}"[:LONGEST]
            bars.console.print(said, markup=False, highlight=False, style="yellow", soft_wrap=True)

    with bars:
        yield Heard(expect, started, finished)


@contextmanager
def _in_lines(console: Console, stages: Mapping[str, int | None], loud: Collection[str]) -> Iterator[Heard]:
    """`convert 3/20 torch-exact/qat-x86 97.05 % 1.2 s`, for a log."""
    counts, done = dict(stages), dict.fromkeys(stages, 0)

    def expect(stage: str, count: int) -> None:
        counts[stage] = count

    def started(stage: str, label: str) -> None:
        """A log has what was done."""

    def finished(stage: str, label: str, problem: str | None, figure: str, seconds: float | None) -> None:
        done[stage] += 1
        total = counts[stage]
        parts = [
            f"{stage} {done[stage]}" + ("" if total is None else f"/{total}"),
            label,
            figure,
            "" if seconds is None else f"{seconds:.1f} s",
        ]
        line = " ".join(part for part in parts if part)
        if problem is not None:
            said = problem.partition("\n")[0][:LONGEST]
            line += f": {said}" if stage in loud else ": failed"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield Heard(expect, started, finished)
