"""Where the operators of a file run, target by target, as a run records it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bridge.errors import BridgeError
from compare.npu import TargetVerdict, judge, target
from compare.report.records.run import BlameRecord, PlacementRecord


def prepare(identity: str, cache: Path) -> None:
    """Get a target's software ready; raises `BridgeError` where it cannot be had."""
    target(identity).prepare(cache)


def placements(content: bytes, identities: Sequence[str], cache: Path) -> tuple[PlacementRecord, ...]:
    """The file on each of these targets; one that cannot judge it is left out."""
    found = []
    for identity in identities:
        try:
            found += [placement_record(verdict) for verdict in judge(content, "artifact", (identity,), cache)]
        except BridgeError:
            continue
    return tuple(found)


def placement_record(verdict: TargetVerdict) -> PlacementRecord:
    """What a verdict adds up to, and whom to blame."""
    blame = Counter(
        (each.op, str(each.placement), each.reason) for each in verdict.operators if each.placement != "npu-fast"
    )
    return PlacementRecord(
        target=verdict.target,
        software=verdict.software,
        operators=len(verdict.operators),
        fast=verdict.count("npu-fast"),
        share_of_macs=verdict.share_of_macs,
        crossings=verdict.crossings,
        inference_seconds=None if verdict.estimate is None else verdict.estimate.inference_seconds,
        blame=tuple(BlameRecord(*key, count) for key, count in blame.items()),
        basis=verdict.basis,
    )
