"""A matrix's figures as a reader sees them: shared by the terminal, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compare.report.records.versions import NOT_FINITE, CauseRecord, CellRecord, RunRecord, Status, VersionsRecord
from compare.report.words import clean, number, one_line, percent, plural

TITLE = "The same routes under many toolchains"
MARKS: Mapping[Status, str] = {
    "clean": "ok", "differs": "differs", "loses": "LOSES", "refused": "refused", "failed": "FAILED",
}  # fmt: skip
MEANINGS: Mapping[Status, str] = {
    "clean": "made, every runtime loads it and answers within one LSB of the others, classes as trained",
    "differs": "made, but runtimes differ by more than one LSB on the same file",
    "loses": "made without an error, and changes more classes than allowed: the silent loss",
    "refused": "made, and some runtime does not run it",
    "failed": "not made",
}
_LONGEST = 160


def by_place(record: VersionsRecord) -> dict[tuple[str, str], CellRecord]:
    """The cells by (toolchain, route)."""
    return {(cell.toolchain, cell.route): cell for cell in record.cells}


def producers(record: VersionsRecord) -> list[str]:
    """The toolchains that make files, in the record's order."""
    makers = {cell.toolchain for cell in record.cells}
    return [each.id for each in record.toolchains if each.id in makers]


def figure(cell: CellRecord) -> str:
    """`95.95` percent, or the samples that change class where there are no labels; `10.00..95.95` where runtimes differ."""
    values = [each.accuracy for each in cell.runs if each.accuracy is not None]
    if values:
        low, high = percent(min(values)), percent(max(values))
        return low if low == high else f"{low} to {high}"
    changed = [each.changed for each in cell.runs if each.changed is not None]
    return f"{max(changed)} changed" if changed else ""


def said(problem: str | None) -> str:
    """The first line of an error, cut where it becomes a wall."""
    text = one_line(clean(problem or ""))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def ids(causes: Sequence[CauseRecord]) -> str:
    """`M13, M44`; a question mark behind what is not sure."""
    return ", ".join(each.id + ("" if each.sure else "?") for each in causes)


def sure_first(causes: Sequence[CauseRecord]) -> list[CauseRecord]:
    return sorted(causes, key=lambda each: not each.sure)


def largest_lsb(cell: CellRecord) -> str:
    """The largest difference from the reference on any runtime."""
    values = [each.max_lsb for each in cell.runs if each.max_lsb is not None]
    return number(max(values)) if values else ""


def changed(cell: CellRecord) -> str:
    values = [each.changed for each in cell.runs if each.changed is not None]
    return str(max(values)) if values else ""


def runtimes_that_run(cell: CellRecord) -> str:
    """`8/9`."""
    return f"{sum(each.problem is None for each in cell.runs)}/{len(cell.runs)}" if cell.runs else ""


def operators(cell: CellRecord) -> str:
    """`CONV_2D v3, FULLY_CONNECTED v4`."""
    return ", ".join(f"{name} v{version}" for name, version in cell.operators.items())


def verdict(record: VersionsRecord) -> str:
    """The article's warning W2, "versions that do not match", judged: does a route that holds under one set not under another?"""
    routes: dict[str, set[Status]] = {}
    for cell in record.cells:
        routes.setdefault(cell.route, set()).add(cell.status)
    several = [name for name in routes if sum(cell.route == name for cell in record.cells) > 1]
    if not several:
        return "W2 (versions that do not match): not measurable, every route has one toolchain only."
    holds = [name for name in several if "clean" in routes[name]]
    breaks = [name for name in holds if routes[name] != {"clean"}]
    never = [name for name in several if name not in holds]
    end = f"; clean with none: {len(never)} ({', '.join(never)})" if never else ""
    if not breaks:
        return f"W2 (versions that do not match): not confirmed; clean with every toolchain: {len(holds)} of {plural(len(several), 'route')}{end}."
    return (
        "W2 (versions that do not match): confirmed; clean with one toolchain, and not made, not run or losing classes with "
        f"another: {len(breaks)} of {plural(len(several), 'route')} ({', '.join(breaks)}){end}."
    )


@dataclass(frozen=True)
class Trouble:
    """One way in which combinations go wrong, with all that show it."""

    ids: tuple[str, ...]
    """Of the catalogue; empty where no entry explains it."""
    names: tuple[str, ...]
    said: str
    places: tuple[str, ...]
    remedy: str
    kind: str
    """`not made`, `not run`, or `silent`."""


def troubles(record: VersionsRecord) -> list[Trouble]:
    """Everything that failed, was refused or lost classes, grouped by cause and message."""
    found: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    causes: dict[tuple[str, ...], list[CauseRecord]] = {}

    def note(kind: str, blamed: Sequence[CauseRecord], message: str, place: str) -> None:
        sure = [each for each in blamed if each.sure] or list(blamed)
        key = tuple(each.id for each in sure)
        causes[key] = sure
        found.setdefault((kind, key, message), []).append(place)

    for cell in record.cells:
        if cell.status == "failed":
            note("not made", cell.causes, said(cell.problem), cell.id)
        elif cell.status == "loses":
            note("silent", cell.causes, _silent(cell, record.samples), cell.id)
        for run in cell.runs:
            if run.problem is not None:
                note("not run", run.causes, _without_address(said(run.problem)), f"{cell.id} on {run.runtime}")
    return [
        Trouble(key, tuple(each.name for each in causes[key]), message, tuple(places), _remedy(causes[key]), kind)
        for (kind, key, message), places in found.items()
    ]


def _silent(cell: CellRecord, samples: int) -> str:
    worst = max((each.changed or 0 for each in cell.runs), default=0)
    if worst:
        return f"{worst} of {samples} samples change class, no error"
    return next(each.problem or "" for each in cell.runs if each.problem == NOT_FINITE)


def _without_address(text: str) -> str:
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def _remedy(causes: Sequence[CauseRecord]) -> str:
    return causes[0].remedy if causes else ""


def shortened(places: Sequence[str], most: int = 6) -> str:
    """The first places and how many more."""
    rest = len(places) - most
    return ", ".join(places[:most]) + (f" and {rest} more" if rest > 0 else "")


def run_cell(run: RunRecord) -> str:
    """One runtime's figure in a cell's own table."""
    if run.problem is not None:
        return said(run.problem)
    return f"{percent(run.accuracy)} %" if run.accuracy is not None else f"{run.changed} changed"
