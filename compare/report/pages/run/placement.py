"""Where the files run, target by target: cells for the tables, and whom to blame, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from compare.report.records.run import ArtifactRecord, PlacementRecord, RunRecord
from compare.report.words import NOTHING, one_line

EXPLAINED = (
    "'fast' means that every operator runs on the target's fast unit: the MAC array or tensor unit of an NPU, XNNPACK on "
    "the CPU, the kernels of a microcontroller. X: some do not; then how many do, and what share of the "
    "multiply-accumulates. Rules come from sources and simulators and were not confirmed on a board."
)


def targets(record: RunRecord) -> tuple[str, ...]:
    """The ids of the targets that anything was judged for, in the order of the records."""
    return tuple(dict.fromkeys(each.target for artifact in record.artifacts for each in artifact.placements))


def judged_by(record: RunRecord) -> str:
    """`edgetpu rules (rules of the documentation); cpu run (ai-edge-litert 2.1.0, XNNPACK)`."""
    last = {target: placement for target, _, placement in _placements(record)}
    return "; ".join(
        f"{target} {last[target].basis or 'judged'} ({last[target].software})" for target in targets(record)
    )


def judged(record: RunRecord) -> tuple[ArtifactRecord, ...]:
    return tuple(artifact for artifact in record.artifacts if artifact.placements)


def of(artifact: ArtifactRecord, target: str) -> PlacementRecord | None:
    """The artifact on one target."""
    return next((each for each in artifact.placements if each.target == target), None)


def cell(placement: PlacementRecord | None) -> str:
    """`fast`, or `X 3/5, 78 %`: operators and multiply-accumulates on the fast unit."""
    if placement is None:
        return NOTHING
    if placement.fast == placement.operators:
        return "fast"
    return f"X {placement.fast}/{placement.operators}, {placement.share_of_macs:.0%}"


@dataclass(frozen=True)
class Blame:
    """One reason on one target, and how many artifacts it keeps from being fast."""

    target: str
    op: str
    placement: str
    reason: str
    artifacts: tuple[str, ...]

    @property
    def entry(self) -> str:
        """The catalogue's entry for it; empty where there is none."""
        return next((entry for entry, ops, words in _ENTRIES if self.op in ops and re.search(words, self.reason)), "")


_BORDER = ("QUANTIZE", "DEQUANTIZE")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_ENTRIES = (
    ("M35", ("FULLY_CONNECTED",), r"[Pp]er-axis|a scale for each channel"),
    ("M37", _WEIGHTED, r"\(hybrid\)|filter type: INT8|Hybrid models"),
    ("M38", _BORDER, r"[Ff]loat|missing quantization|Unsupported opType"),
    ("M56", ("SHAPE", "STRIDED_SLICE", "PACK"), ""),
    ("M56", ("RESHAPE",), r"computed when|shapeless|dynamic"),
)
"""(entry, operators, what the reason says); the targets' own words differ."""


def blamed(record: RunRecord) -> tuple[Blame, ...]:
    """Every reason, most frequent first within its target; names of tensors are left out, so that like stands with like."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for target, artifact, placement in _placements(record):
        for each in placement.blame:
            key = (target, each.op, each.placement, _without_names(one_line(each.reason)))
            found.setdefault(key, []).append(artifact)
    order = {target: place for place, target in enumerate(targets(record))}
    reasons = (Blame(*key, tuple(dict.fromkeys(names))) for key, names in found.items())
    return tuple(sorted(reasons, key=lambda each: (order[each.target], -len(each.artifacts))))


def _placements(record: RunRecord) -> Iterator[tuple[str, str, PlacementRecord]]:
    for artifact in record.artifacts:
        for placement in artifact.placements:
            yield placement.target, artifact.id, placement


def _without_names(reason: str) -> str:
    """`'conv/Relu' is float32` and `'pool' is float32` are the same reason."""
    parts = reason.split("'")
    return "a tensor".join(parts[::2]) if len(parts) % 2 else reason


def sums(record: RunRecord) -> Iterator[tuple[str, str, int, int, float]]:
    """(route, target, files that are all fast, files, mean share of multiply-accumulates), routes in order."""
    for route in dict.fromkeys(artifact.route for artifact in judged(record)):
        for target in targets(record):
            found = [of(artifact, target) for artifact in judged(record) if artifact.route == route]
            known = [each for each in found if each is not None]
            if known:
                fast = sum(each.fast == each.operators for each in known)
                yield route, target, fast, len(known), sum(each.share_of_macs for each in known) / len(known)
