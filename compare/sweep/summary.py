"""A sweep's rows as means with confidence intervals over seeds: paired, as every file of a seed meets the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compare.report.records.sweep import Interval, Line, OwnLine, Summary
from compare.subjects.mnist.calibration import CALIBRATIONS
from compare.sweep.plan import NO_PRESET

CONFIDENCE = 0.95
Row = Mapping[str, Any]


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student-t interval of independent values, one for each seed."""
    from scipy.stats import t

    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Interval(mean, None)
    deviation = float(np.std(values, ddof=1))
    return Interval(mean, float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / float(np.sqrt(count)))


def summarise(rows: Sequence[Row]) -> Summary:
    """Group by artifact and by route.

    A route's figure of a seed is the mean over its artifacts of that seed, those with calibration data that is wrong on
    purpose left out.
    """
    trained = [row for row in rows if row["preset"] != NO_PRESET]
    measured = [row for row in trained if row["status"] == "measured"]
    exact = {
        (*_seed(row), row["network"]): row["accuracy"]
        for row in measured
        if row["artifact"] == f"torch-exact/{row['network'].split('/')[1]}"
    }
    return Summary(
        rows=len(rows),
        seeds=len({row["seed"] for row in trained}),
        routes=tuple(_lines([row for row in trained if not _spoilt(row)], lambda row: str(row["route"]), exact)),
        artifacts=tuple(_lines(trained, lambda row: str(row["artifact"]), exact)),
        own=tuple(_own(row) for row in rows if row["preset"] == NO_PRESET),
        made_with=tuple(sorted({row["made_with"] for row in rows})),
        failures=dict(
            Counter(
                str(row["reason"]).splitlines()[0][:200] for row in trained if row["status"] != "measured"
            ).most_common()
        ),
    )


def _spoilt(row: Row) -> bool:
    return str(row["artifact"]).rpartition("/")[2] in CALIBRATIONS[1:]


def _own(row: Row) -> OwnLine:
    return OwnLine(
        model=row["model"],
        route=row["route"],
        toolchain=row["toolchain"],
        accuracy=row["accuracy"],
        reference_accuracy=row["reference_accuracy"],
        changed=row["disagreements"],
        max_lsb=row["max_lsb"],
        equal=row["equal_outputs"],
        reason=None if row["reason"] is None else str(row["reason"]).splitlines()[0],
    )


def _seed(row: Row) -> tuple[str, str, int]:
    return row["model"], row["preset"], row["seed"]


def _lines(rows: Sequence[Row], name: Callable[[Row], str], exact: Mapping[tuple[Any, ...], float]) -> Iterable[Line]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((name(row), row["toolchain"], row["preset"]), []).append(row)
    for (label, toolchain, preset), members in sorted(groups.items()):
        seen = [row for row in members if row["status"] == "measured"]
        if not seen:
            continue
        beside = [row for row in seen if (*_seed(row), row["network"]) in exact]
        yield Line(
            name=label,
            toolchain=toolchain,
            preset=preset,
            seeds=len({row["seed"] for row in seen}),
            accuracy=interval(_by_seed(seen, lambda row: row["accuracy"])),
            against_network=interval(_by_seed(seen, lambda row: row["accuracy"] - row["reference_accuracy"])),
            against_exact=interval(_by_seed(beside, lambda row: row["accuracy"] - exact[(*_seed(row), row["network"])]))
            if beside
            else None,
            lost=float(np.mean([_only(row["reference_correct"], row["correct"]) for row in seen])),
            gained=float(np.mean([_only(row["correct"], row["reference_correct"]) for row in seen])),
            worst_lsb=max(row["max_lsb"] for row in seen),
            failed=len(members) - len(seen),
        )


def _by_seed(rows: Sequence[Row], value: Callable[[Row], float]) -> list[float]:
    seeds: dict[int, list[float]] = {}
    for row in rows:
        seeds.setdefault(row["seed"], []).append(value(row))
    return [float(np.mean(values)) for _, values in sorted(seeds.items())]


def _only(one: str, other: str) -> int:
    """Images whose bit is set in the first mask and not in the second (hex, one bit for each image)."""
    return sum((a & ~b).bit_count() for a, b in zip(bytes.fromhex(one), bytes.fromhex(other), strict=True))
