"""What was found of every producer and converter, as plain records: producers.json, and all that the page is drawn from."""

from __future__ import annotations

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

SCHEMA_VERSION = 1
_FROZEN = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=_FROZEN)
class ConversionRecord:
    """One producer's file by one converter."""

    converter: str
    problem: str | None
    """The first line of what it said when it made nothing, or nothing that runs."""
    operators: int = 0
    float_operators: int = 0
    kept: int = 0
    """How many of the producer's scales are in the file, to seven digits."""
    from_simulation: float | None = None
    """Largest difference from the producer's own simulation, in steps: 255 of them span what it says of the samples."""
    from_onnx_runtime: float | None = None
    """The same from what ONNX Runtime, unoptimized, says of the producer's file."""
    changed: int | None = None
    """Samples whose largest output is another than the reference's: the simulation's, else ONNX Runtime's."""


@dataclass(frozen=True, config=_FROZEN)
class ProducedRecord:
    """One network by one recipe of one producer."""

    producer: str
    recipe: str
    network: str
    form: str
    """`ONNX`, `.pt2`, or nothing where there is no file."""
    problem: str | None
    """The first line of the producer's own error."""
    scales: int
    """Different scales of activations and weights in its file, those of biases left out."""
    simulation_apart: float | None
    """How far ONNX Runtime, on the producer's file, is from the producer's own simulation, in steps."""
    conversions: tuple[ConversionRecord, ...]


@dataclass(frozen=True, config=_FROZEN)
class ProducerRecord:
    """One producer, built or not."""

    id: str
    about: str
    as_of: str
    python: str
    requirements: tuple[str, ...]
    recipes: tuple[str, ...]
    problem: str | None
    seconds: float
    versions: dict[str, str]


@dataclass(frozen=True, config=_FROZEN)
class ProducersRecord:
    """The whole page."""

    schema_version: int
    started: str
    seconds: float
    command: str
    samples: int
    machine: dict[str, str]
    converters: dict[str, str]
    """By name: what it is."""
    producers: tuple[ProducerRecord, ...]
    produced: tuple[ProducedRecord, ...]


_ADAPTER = TypeAdapter(ProducersRecord)


def to_json(record: ProducersRecord) -> str:
    """The record as indented JSON."""
    return _ADAPTER.dump_json(record, indent=2).decode() + "\n"


def from_json(text: str | bytes) -> ProducersRecord:
    """Read `to_json`'s text back. Raises `pydantic.ValidationError` when it is something else."""
    return _ADAPTER.validate_json(text)
