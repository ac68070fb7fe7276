"""What a version matrix found, as plain records: the JSON file, and all that the reports are drawn from."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from compare.report.records.run import PlacementRecord

SCHEMA_VERSION = 1
NOT_FINITE = "runs, and its outputs are not finite numbers"
"""A run's problem that no runtime reports."""
_FROZEN = ConfigDict(extra="forbid")

Status = Literal["clean", "differs", "loses", "refused", "failed"]
"""Of a cell, from best to worst: `clean`; `differs`: a runtime disagrees with the others by more than one LSB; `loses`:
other classes than the network it came from; `refused`: made, but some runtime does not run it; `failed`: not made."""


@dataclass(frozen=True, config=_FROZEN)
class CauseRecord:
    """An entry of the catalogue that was seen."""

    id: str
    name: str
    sure: bool
    where: str
    fact: str
    remedy: str


@dataclass(frozen=True, config=_FROZEN)
class ToolchainRecord:
    """One toolchain of the matrix, built or not."""

    id: str
    about: str
    as_of: str
    python: str
    requirements: tuple[str, ...]
    problem: str | None
    """The resolver's own reason when it could not be built."""
    seconds: float
    """What the build took; next to nothing where it was there already."""
    versions: dict[str, str]
    """Everything installed there, by name in lower case."""


@dataclass(frozen=True, config=_FROZEN)
class RunRecord:
    """One file on one runtime."""

    runtime: str
    """The toolchain whose interpreter it is."""
    problem: str | None
    """The first line of what the runtime said when it refused."""
    accuracy: float | None
    """Share of the samples, 0..1, where the largest output is the label's; None without labels."""
    changed: int | None
    """Samples whose class is another than that of the network the file came from; where outputs are no classes, samples
    with an output that is more than one LSB away."""
    max_lsb: float | None
    """Largest difference from the reference: the same route by the current toolchain on its own runtime; where there is
    none, the network itself."""
    causes: tuple[CauseRecord, ...] = ()


@dataclass(frozen=True, config=_FROZEN)
class CellRecord:
    """One route under one toolchain."""

    toolchain: str
    route: str
    status: Status
    problem: str | None
    """The first line of the real error when nothing was made."""
    seconds: float
    peak_bytes: int
    log: str
    file: str | None
    """The .tflite, relative to the report."""
    sha256: str | None
    size: int | None
    operators: dict[str, int] = field(default_factory=dict)
    """Operators of the file, each with its version."""
    float_operators: int = 0
    causes: tuple[CauseRecord, ...] = ()
    """What the catalogue says: of the error where it failed, of the file otherwise."""
    runs: tuple[RunRecord, ...] = ()
    placements: tuple[PlacementRecord, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.toolchain}/{self.route}"


@dataclass(frozen=True, config=_FROZEN)
class RouteRecord:
    """One route: what it starts from and what that achieves before any conversion."""

    name: str
    source: str
    """`PyTorch` or `Keras`."""
    about: str
    accuracy: float | None


@dataclass(frozen=True, config=_FROZEN)
class RecommendationRecord:
    """The newest clean set for one source, on one target or on CPUs."""

    source: str
    target: str | None
    toolchain: str | None
    """None: no set is clean."""
    route: str | None
    sentence: str


@dataclass(frozen=True, config=_FROZEN)
class VersionsRecord:
    """A whole matrix."""

    schema_version: int
    started: str
    seconds: float
    command: str
    model: str
    samples: int
    machine: dict[str, str]
    max_changed: float
    """Share of the samples that may change class in a clean file."""
    toolchains: tuple[ToolchainRecord, ...]
    runtimes: tuple[str, ...]
    routes: tuple[RouteRecord, ...]
    cells: tuple[CellRecord, ...]
    recommendations: tuple[RecommendationRecord, ...]
    notes: tuple[str, ...]


_ADAPTER = TypeAdapter(VersionsRecord)


def to_json(record: VersionsRecord) -> str:
    """The record as indented JSON."""
    return _ADAPTER.dump_json(record, indent=2).decode() + "\n"


def from_json(text: str | bytes) -> VersionsRecord:
    """Read `to_json`'s text back. Raises `pydantic.ValidationError` when it is something else."""
    return _ADAPTER.validate_json(text)
