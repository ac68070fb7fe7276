"""What each mismatch costs an artifact: repaired alone, repaired together, and what no entry explains.

`examine` looks at one artifact and repairs its file; `explain` sets the measured repairs beside the rows of the same run
that differ in one setting only. Nothing here decides by a name what a measurement can decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bridge.errors import BridgeError
from compare.mismatches import Mismatch, catalogue
from compare.report.records.run import (
    UNEXPLAINED_LSB,
    UNEXPLAINED_POINTS,
    ArtifactRecord,
    CauseRecord,
    ExplanationRecord,
    NetworkRecord,
    SeenRecord,
    figures_of,
)
from compare.subjects.case import Case
from compare.tflite.graph import open_tflite

if TYPE_CHECKING:
    from compare.routes.model import Source, Variant

_ROUNDS = 3
"""A repair that converts again undoes those before it; the second round brings them back."""


@dataclass(frozen=True, eq=False)
class Repair:
    """A file in which these mismatches, and nothing else, were undone."""

    mismatches: tuple[str, ...]
    tflite: bytes


@dataclass(frozen=True, eq=False)
class Examined:
    """What the catalogue says of one artifact."""

    seen: tuple[SeenRecord, ...]
    repairs: tuple[Repair, ...]
    """Each mismatch alone; then all together, where there are several."""


def examine(case: Case) -> Examined:
    """Look for every entry of the catalogue, and repair the file where that can be done automatically.

    Raises `BridgeError` for a file that cannot be read.
    """
    sightings = {mismatch: tuple(mismatch.detect(case)) for mismatch in catalogue()}
    seen = {mismatch: found for mismatch, found in sightings.items() if found}
    records = tuple(
        SeenRecord(mismatch.id, mismatch.name, any(each.sure for each in found), found[0].where, found[0].fact)
        for mismatch, found in seen.items()
    )
    alone = [repair for mismatch in seen if (repair := repaired(case, (mismatch,))) is not None]
    reparable = tuple(mismatch for mismatch in seen if any(repair.mismatches == (mismatch.id,) for repair in alone))
    together = repaired(case, reparable) if len(alone) > 1 else None
    return Examined(records, (*alone, together) if together is not None else tuple(alone))


def examine_made(
    case: Callable[[Source, Variant, np.ndarray], Case],
    source: Source,
    variant: Variant,
    calibration: np.ndarray,
    content: bytes,
    samples: np.ndarray,
) -> Examined:
    """Examine a file in the process that made it, with what a team on its route has in its hands.

    `samples` are float32 images (N, 28, 28).
    """
    made = case(source, variant, calibration)
    name = "input" if made.onnx is not None else open_tflite(content).graph.inputs[0]
    inputs = {name: samples if made.onnx is None else samples[:, np.newaxis]}
    return examine(replace(made, tflite=content, inputs=inputs))


def repaired(case: Case, mismatches: Sequence[Mismatch]) -> Repair | None:
    """Apply the automatic repairs until none of these is seen; None when that changes nothing in the file."""
    current = case
    for _ in range(_ROUNDS):
        present = [each for each in mismatches if each.automatic and any(each.detect(current))]
        for mismatch in sorted(present, key=lambda each: each.requantizes):
            if any(mismatch.detect(current)):  # an earlier repair may have undone it too
                with suppress(BridgeError):  # what cannot be undone is not measured
                    current = mismatch.repair(current)
        if not present:
            break
    if current.tflite is None or current.tflite == case.tflite:
        return None
    return Repair(tuple(mismatch.id for mismatch in mismatches), current.tflite)


_OTHER_ROW: Mapping[str, Mapping[str, str | None]] = {
    "M24": {"mode": "dynamic-range"},
    "M25": {"network": "keras/qat"},
    "M26": {"network": "keras/qat"},
    "M37": {"mode": "integer-only"},
    "M38": {"mode": "integer-only"},
    "M52": {"calibration": None},
    "M56": {"entry": "concrete"},
    "M59": {"calibration": None},
    "M60": {"calibration": None},
}
"""What the way out of an entry changes about a conversion; None: the setting is left at its default."""
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_NOT_QUANTIZED: Mapping[str, str | None] = {"mode": "none", "calibration": None}
BY_DESIGN = "quantized after training"
"""What a float network pays for being quantized, whoever does it: no mismatch, but measured like one."""


def explain(
    artifacts: Sequence[ArtifactRecord], networks: Sequence[NetworkRecord], samples: int | None = None
) -> tuple[ExplanationRecord, ...]:
    """For every artifact that differs from its network, or shows a mismatch that a repair can undo: what it comes from.

    `samples`: how many it was judged on. One of them may change class where nothing is more than one LSB away: it lay
    within one rounding of a tie.
    """
    allowed = max(UNEXPLAINED_POINTS, 0.0 if samples is None else 1.0 / samples)
    by_id = {network.id: network for network in networks}
    rows = {_address(artifact): artifact for artifact in artifacts if artifact.status == "measured"}
    explanations = (_explained(artifact, by_id[artifact.network], rows, allowed) for artifact in rows.values())
    return tuple(each for each in explanations if each.causes or not each.explained)


Address = tuple[str, str, tuple[tuple[str, str], ...]]


def _address(artifact: ArtifactRecord, changes: Mapping[str, str | None] | None = None) -> Address:
    """Route, network and settings, with these changes: what tells one row of a run from another."""
    facts: dict[str, str | None] = {"network": artifact.network, **artifact.settings, **(changes or {})}
    settings = {key: value for key, value in facts.items() if value is not None and key != "network"}
    return artifact.route, facts["network"] or "", tuple(sorted(settings.items()))


def _explained(
    artifact: ArtifactRecord, network: NetworkRecord, rows: Mapping[Address, ArtifactRecord], allowed: float
) -> ExplanationRecord:
    own = tuple(_of_repairs(artifact))
    changes = dict(_changes(artifact, network))
    others = tuple(_of_rows(artifact, changes, rows))
    left = [
        repair.figures
        for repair in artifact.repairs
        if repair.figures is not None and (len(own) == 1 or len(repair.mismatches) > 1)
    ]
    together = rows.get(
        _address(artifact, {key: value for change in changes.values() for key, value in change.items()})
    )
    if changes and together is not None and together is not artifact:
        left.append(figures_of(together))
    best = min([*left, figures_of(artifact)], key=lambda figures: figures.max_difference_lsb)
    return ExplanationRecord(
        artifact=artifact.id,
        causes=(*own, *others),
        together=best if left else None,
        points_left=max(0.0, best.accuracy_drop),
        lsb_left=best.max_difference_lsb,
        explained=best.accuracy_drop <= allowed and best.max_difference_lsb <= UNEXPLAINED_LSB,
    )


def _of_repairs(artifact: ArtifactRecord) -> Iterator[CauseRecord]:
    names = {seen.mismatch: seen.name for seen in artifact.seen}
    for repair in artifact.repairs:
        if len(repair.mismatches) == 1:
            (mismatch,) = repair.mismatches
            yield CauseRecord(mismatch, names[mismatch], None, repair.figures)


def _changes(artifact: ArtifactRecord, network: NetworkRecord) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """What another row does differently, by the mismatch that it does without."""
    for seen in artifact.seen:
        if seen.mismatch in _OTHER_ROW:
            yield seen.mismatch, _OTHER_ROW[seen.mismatch]
    if network.output_scale is None and any(each.integer and each.name in _WEIGHTED for each in artifact.operators):
        yield "", _NOT_QUANTIZED


def _of_rows(
    artifact: ArtifactRecord, changes: Mapping[str, Mapping[str, str | None]], rows: Mapping[Address, ArtifactRecord]
) -> Iterator[CauseRecord]:
    names = {"": BY_DESIGN} | {seen.mismatch: seen.name for seen in artifact.seen}
    for mismatch, change in changes.items():
        other = rows.get(_address(artifact, change))
        if other is not None and other is not artifact:
            yield CauseRecord(mismatch or None, names[mismatch], other.id, figures_of(other))
