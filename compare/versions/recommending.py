"""Which set to take: the newest one that is clean for this model, and for a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compare.report.records.versions import CellRecord, RecommendationRecord, ToolchainRecord
from compare.report.words import plural
from compare.toolchains import CURRENT


def recommend(
    cells: Sequence[CellRecord],
    toolchains: Sequence[ToolchainRecord],
    sources: Mapping[str, str],
    targets: Sequence[str],
) -> tuple[RecommendationRecord, ...]:
    """For each source, on CPUs and on each target. `sources` has each route's source.

    The newest date wins, the current toolchain counts as the newest; of one toolchain's routes, the one whose classes
    change least, then the one nearest to the trained model.
    """
    dates = {each.id: each.as_of or "9999" for each in toolchains}
    found = []
    for source in dict.fromkeys(sources.values()):
        own = [cell for cell in cells if sources[cell.route] == source]
        for target in (None, *targets):
            clean = [cell for cell in own if cell.status == "clean" and (target is None or _all_fast(cell, target))]
            best = max(clean, key=lambda cell: (dates[cell.toolchain], *_nearness(cell)), default=None)
            found.append(_sentence(source, target, best, own, dates))
    return tuple(found)


def _all_fast(cell: CellRecord, target: str) -> bool:
    return any(each.target == target and each.fast == each.operators for each in cell.placements)


def _nearness(cell: CellRecord) -> tuple[float, float]:
    changed = max((run.changed or 0 for run in cell.runs), default=0)
    lsb = max((run.max_lsb or 0.0 for run in cell.runs), default=0.0)
    return -changed, -lsb


def _sentence(
    source: str, target: str | None, best: CellRecord | None, cells: Sequence[CellRecord], dates: Mapping[str, str]
) -> RecommendationRecord:
    place = "on CPUs" if target is None else f"on {target}"
    if best is None:
        return RecommendationRecord(source, target, None, None, f"{source} {place}: {_nothing(target, cells)}")
    day = "today's" if best.toolchain == CURRENT else f"of {dates[best.toolchain]}"
    changed = max((run.changed or 0 for run in best.runs), default=0)
    classes = "no sample changes class" if not changed else f"{changed} samples change class"
    fast = (
        ""
        if target is None
        else f", all {next(each.operators for each in best.placements if each.target == target)} operators on the fast unit"
    )
    return RecommendationRecord(
        source, target, best.toolchain, best.route,
        f"{source} {place}: route '{best.route}' with toolchain '{best.toolchain}' ({day}): "
        f"{_runtimes(best)} it, {classes}{fast}.",
    )  # fmt: skip


def _runtimes(cell: CellRecord) -> str:
    count = sum(run.problem is None for run in cell.runs)
    return f"{plural(count, 'runtime')} {'runs' if count == 1 else 'run'}"


def _nothing(target: str | None, cells: Sequence[CellRecord]) -> str:
    """Why there is nothing to recommend, with the nearest there is."""
    clean = [cell for cell in cells if cell.status == "clean"]
    if target is None or not clean:
        return f"none of {len(cells)} combinations is clean."
    fast = {cell.id: each for cell in clean for each in cell.placements if each.target == target}
    if not fast:
        return f"no verdict on any of the {len(clean)} clean combinations."
    nearest, placed = max(fast.items(), key=lambda item: item[1].fast / max(item[1].operators, 1))
    return (
        f"none of the {len(clean)} clean combinations runs wholly on the fast unit; nearest is '{nearest}' with "
        f"{placed.fast} of {placed.operators} operators."
    )
