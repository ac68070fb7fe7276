"""What a sweep's rows add up to, as plain records: summary.json, and all that its page is drawn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with half the width of its Student-t confidence interval; None with fewer than two seeds."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Line:
    """One artifact, or one route, over all seeds it was measured with."""

    name: str
    toolchain: str
    preset: str
    seeds: int
    accuracy: Interval
    """Share, 0..1."""
    against_network: Interval
    """Accuracy minus that of the trained network itself, seed by seed."""
    against_exact: Interval | None
    """Accuracy minus that of the exact bridge's file of the same network, seed by seed; None where there is none."""
    lost: float
    """Images of a seed that the network has right and the file has wrong, on average."""
    gained: float
    """The other way round."""
    worst_lsb: float
    failed: int
    """Rows without a figure."""


@dataclass(frozen=True)
class OwnLine:
    """One model that was trained elsewhere, by one route under one toolchain: no seeds, so no intervals."""

    model: str
    """Its path."""
    route: str
    toolchain: str
    accuracy: float | None
    """Share, 0..1, where there are labels."""
    reference_accuracy: float | None
    changed: int | None
    """Samples that the file and ONNX Runtime tell apart (compare.versions.judging); None where it failed."""
    max_lsb: float | None
    equal: float | None
    """Share of the outputs less than half an LSB apart."""
    reason: str | None
    """The first line of why it failed."""


@dataclass(frozen=True)
class Summary:
    """Everything the reports show."""

    rows: int
    seeds: int
    """Of the networks that were trained here."""
    routes: tuple[Line, ...]
    artifacts: tuple[Line, ...]
    own: tuple[OwnLine, ...]
    made_with: tuple[str, ...]
    """The codes and versions the rows come from; more than one: the sweep was gone on with after a change."""
    failures: Mapping[str, int]
    """First lines of the reasons, with how many rows they cost."""


def to_json(summary: Summary, digest: str) -> str:
    """The summary as indented JSON; `digest` is that of the figures of all rows."""
    return json.dumps({"schema_version": 1, "figures": digest, **asdict(summary)}, indent=2) + "\n"
