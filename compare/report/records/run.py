"""The record of one run: every figure a report shows, as frozen dataclasses with a versioned JSON form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

SCHEMA_VERSION: Literal[1] = 1
"""Raised whenever a field changes its meaning or goes away; a reader refuses what it does not know."""

_FROZEN = ConfigDict(extra="forbid", allow_inf_nan=False)

Status = Literal["measured", "failed", "skipped"]
Verdict = Literal["confirmed", "not confirmed", "not measurable here"]


@dataclass(frozen=True, config=_FROZEN)
class DataRecord:
    """The images of the run."""

    name: str
    source: str
    digest: str
    train_images: int
    test_images: int


@dataclass(frozen=True, config=_FROZEN)
class NetworkRecord:
    """One trained network, as its own framework runs it: what every conversion is judged against."""

    id: str
    """`torch/float`, `torch/qat-fbgemm`, `torch/ptq-x86`, `keras/baseline`, `keras/qat`, `keras/qat-dense`, ...; of a
    team's own model the form: `qdq`, `int8`, `program`, `float`."""
    framework: Literal["torch", "keras", "own"]
    about: str
    accuracy: float
    """Share of test images classified right, 0..1, fake-quant model (or the int8 engine, for post-training); of a team's
    own samples without labels 1, as its own outputs are the truth."""
    int8_engine: str | None
    """PyTorch's engine that also runs it, if any."""
    int8_engine_accuracy: float | None
    int8_engine_max_lsb: float | None
    """Largest logit difference between the int8 engine and the fake-quant model, in output LSBs."""
    output_scale: float | None
    """The trained scale of the logits; None for a float network."""
    from_cache: bool
    seconds: float


@dataclass(frozen=True, config=_FROZEN)
class OperatorRecord:
    """One operator of a .tflite, in execution order."""

    name: str
    integer: bool
    """No operand is floating point."""


@dataclass(frozen=True, config=_FROZEN)
class ScaleRecord:
    """What became of one trained activation scale."""

    role: str
    """`input`, `conv`, `logits`: the place in the network."""
    trained_scale: float
    trained_zero_point: int
    """As int8: an unsigned zero point is shown 128 lower."""
    file_scale: float | None
    file_zero_point: int | None
    kept: bool


@dataclass(frozen=True, config=_FROZEN)
class ScaleCountRecord:
    """Different scales that training decided, of activations and weights, and how many of them the file still has."""

    decided: int
    kept: int


@dataclass(frozen=True, config=_FROZEN)
class ControlRecord:
    """Two files of the same network, written on different principles."""

    other: str
    """Id of the artifact that is controlled."""
    equal: float
    """Share of logits less than half an LSB apart."""
    max_lsb: float


@dataclass(frozen=True, config=_FROZEN)
class SeenRecord:
    """One entry of the catalogue that an artifact shows."""

    mismatch: str
    """`M13`, ...: the id of the entry."""
    name: str
    sure: bool
    where: str
    """The first place it was seen at."""
    fact: str


@dataclass(frozen=True, config=_FROZEN)
class FiguresRecord:
    """What a repair can change, measured as an artifact is: against the network the file came from."""

    accuracy: float
    accuracy_drop: float
    disagreements: int
    max_difference_lsb: float
    size: int
    latency_median_ms: float
    float_operators: int


@dataclass(frozen=True, config=_FROZEN)
class RepairRecord:
    """An artifact's file with these mismatches, and nothing else, undone; and measured again."""

    mismatches: tuple[str, ...]
    figures: FiguresRecord | None
    """None when the runtime refuses the repaired file."""


@dataclass(frozen=True, config=_FROZEN)
class LayerRecord:
    """How far one layer's output is from the same layer of the network, on the same images."""

    op: str
    tensor: str
    """Its name in the .tflite."""
    max_lsb: float
    sqnr_db: float | None
    """Signal to quantization noise; None where nothing differs."""


@dataclass(frozen=True, config=_FROZEN)
class BlameRecord:
    """Operators of one kind that a target does not run on its fast unit, for one reason."""

    op: str
    placement: str
    """`npu-slow`, `driver-cpu`, `cpu-fallback`, `fails` or `unverified`."""
    reason: str
    count: int


@dataclass(frozen=True, config=_FROZEN)
class PlacementRecord:
    """One artifact on one target."""

    target: str
    software: str
    operators: int
    fast: int
    """Operators on the target's fast unit."""
    share_of_macs: float
    """Multiply-accumulates on it, 0..1."""
    crossings: int
    inference_seconds: float | None
    """What the vendor's tool estimates, if it does."""
    blame: tuple[BlameRecord, ...]
    """Empty when everything is fast."""
    basis: Literal["compiled", "run", "rules"] | None = None
    """The vendor's compiler said so; the runtime really ran it; or rules, each with its source. None: an older record."""


@dataclass(frozen=True, config=_FROZEN)
class ArtifactRecord:
    """One .tflite (or the attempt at one), measured against the network it came from."""

    id: str
    """`torch-onnx2tf/qat-fbgemm`, `keras-native/qat/integer-only/concrete`, ...: unique, and what `--only` matches."""
    route: str
    network: str
    """The id of the `NetworkRecord` it came from."""
    settings: dict[str, str]
    """What tells it from its neighbours: `mode`, `entry`, `exporter`, `calibration`."""
    status: Status
    reason: str | None
    """Why it failed or was skipped, in one or two lines, with what to do."""
    log: str
    """What the converter printed, warnings included; may be long."""
    warnings: tuple[str, ...]
    convert_seconds: float | None
    file: str | None
    """Path of the .tflite, relative to the report's folder."""
    onnx_file: str | None
    sha256: str | None
    size: int | None
    """Bytes."""
    accuracy: float | None
    accuracy_drop: float | None
    """Network's accuracy minus this one's; positive means lost. 0.11 is eleven points."""
    disagreements: int | None
    """Test images whose class is no longer the network's."""
    max_difference: float | None
    """Largest absolute difference of a logit, in real units."""
    max_difference_lsb: float | None
    """The same in LSBs of the network: its trained output scale; of a float network, 1/255 of its logits' range."""
    lsb: float | None
    equal_outputs: float | None
    """Share of logits less than half an LSB away from the network's; None without an LSB."""
    latency_median_ms: float | None
    latency_p90_ms: float | None
    operators: tuple[OperatorRecord, ...]
    input_dtype: str | None
    output_dtype: str | None
    scales: tuple[ScaleRecord, ...]
    """Empty when training decided none, or none could be matched."""
    control: ControlRecord | None = None
    """Of a control route: how its file compares with the one it controls."""
    seen: tuple[SeenRecord, ...] = ()
    repairs: tuple[RepairRecord, ...] = ()
    """Each mismatch that can be undone in the file alone, then all of them together."""
    placements: tuple[PlacementRecord, ...] = ()
    """By target, for those whose software could be had."""
    layers: tuple[LayerRecord, ...] = ()
    """Where along the network it leaves its network, in order; empty where the two could not be traced."""
    scale_count: ScaleCountRecord | None = None
    """Of a team's own model, whose scales have no roles."""
    latency_low_ms: float | None = None
    """The interval around the median that other rounds would fall into as well (compare.measuring.latency)."""
    latency_high_ms: float | None = None


@dataclass(frozen=True, config=_FROZEN)
class TimingRecord:
    """A file that is no artifact of the run, timed in turns with those that are."""

    id: str
    size: int
    latency_median_ms: float
    latency_low_ms: float
    latency_high_ms: float


def figures_of(artifact: ArtifactRecord) -> FiguresRecord:
    """What an explanation compares of a measured artifact."""
    return FiguresRecord(
        accuracy=artifact.accuracy or 0.0,
        accuracy_drop=artifact.accuracy_drop or 0.0,
        disagreements=artifact.disagreements or 0,
        max_difference_lsb=artifact.max_difference_lsb or 0.0,
        size=artifact.size or 0,
        latency_median_ms=artifact.latency_median_ms or 0.0,
        float_operators=sum(not operator.integer for operator in artifact.operators),
    )


UNEXPLAINED_POINTS = 0.002
"""Accuracy, as a share of the images, that may be left over: 0.2 points."""
UNEXPLAINED_LSB = 1.01
"""One rounding of the last requantization, and a hundredth for float32."""


@dataclass(frozen=True, config=_FROZEN)
class Finding:
    """One thing the run noticed by itself about an artifact."""

    artifact: str
    severity: Literal["loss", "notice"]
    title: str
    """`11.1 points lost`, `trained scales thrown away`, ..."""
    fact: str
    """The figures."""
    cause: str | None
    """Only when it was established, not guessed; names the catalogue entry where there is one."""
    remedy: str | None


@dataclass(frozen=True, config=_FROZEN)
class CauseRecord:
    """One reason why an artifact differs from its network, and what is left without it."""

    mismatch: str | None
    """The entry of the catalogue; None for what was asked for, such as quantizing a float network."""
    name: str
    row: str | None
    """The artifact of this run that does without it; None where the file itself was repaired."""
    without: FiguresRecord | None
    """None when the runtime refuses the repaired file."""


@dataclass(frozen=True, config=_FROZEN)
class ExplanationRecord:
    """What an artifact's difference from its network comes from, by experiment."""

    artifact: str
    causes: tuple[CauseRecord, ...]
    together: FiguresRecord | None
    """Without all of them; None when there is no cause."""
    points_left: float
    """Accuracy, 0..1, that is still lost then."""
    lsb_left: float
    explained: bool
    """Not more than 0.2 points and one LSB are left."""


@dataclass(frozen=True, config=_FROZEN)
class ClaimRecord:
    """One claim (A1-A7) or warning (W1-W4) of the article, and what this run measured."""

    id: str
    statement: str
    verdict: Verdict
    evidence: tuple[str, ...]
    """Sentences with the figures, most decisive first."""
    artifacts: tuple[str, ...]
    """Ids of the artifacts and networks the figures come from."""


@dataclass(frozen=True, config=_FROZEN)
class RunRecord:
    """Everything about one run. The terminal, Markdown and HTML views are drawn from this alone."""

    schema_version: Literal[1]
    started: str
    """ISO 8601, UTC."""
    seconds: float
    command: str
    preset: str
    settings: dict[str, str | int | float]
    versions: dict[str, str]
    machine: dict[str, str]
    data: DataRecord
    networks: tuple[NetworkRecord, ...]
    artifacts: tuple[ArtifactRecord, ...]
    findings: tuple[Finding, ...]
    claims: tuple[ClaimRecord, ...]
    explanations: Annotated[tuple[ExplanationRecord, ...], Field(default=())] = ()
    notes: Annotated[tuple[str, ...], Field(default=())] = ()
    timings: Annotated[tuple[TimingRecord, ...], Field(default=())] = ()


_ADAPTER = TypeAdapter(RunRecord)


def to_json(record: RunRecord) -> str:
    """The record as indented JSON, every figure and no NaN."""
    return _ADAPTER.dump_json(record, indent=2).decode() + "\n"


def from_json(text: str | bytes) -> RunRecord:
    """Read `to_json`'s text back. Raises `pydantic.ValidationError` when it is something else."""
    return _ADAPTER.validate_json(text)
