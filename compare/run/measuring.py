"""One converted file after the other: run, judged against its network, and written into the report's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compare.explaining.attribution import Examined
from compare.measuring import metrics
from compare.measuring.drift import drift_of_files
from compare.measuring.latency import Timing, interleaved
from compare.report.records.run import (
    ArtifactRecord,
    ControlRecord,
    LayerRecord,
    NetworkRecord,
    OperatorRecord,
    PlacementRecord,
    RepairRecord,
    ScaleRecord,
    TimingRecord,
    figures_of,
)
from compare.routes.model import Here, Route, Variant
from compare.running.workers import Lane
from compare.subjects.mnist.dataset import Dataset
from compare.subjects.mnist.networks import SEVEN_BIT, TrainedNetwork
from compare.subjects.model import reference_lsb
from compare.tflite.file import TfliteFile, read

Stage = Literal["train", "convert", "measure"]
TRACED_IMAGES = 64
"""Test images on which the catalogue and the drift look at a file."""


@dataclass(frozen=True)
class Planned:
    """One artifact to make."""

    route: Route
    variant: Variant

    @property
    def id(self) -> str:
        return self.variant.id(self.route.name)

    @property
    def here(self) -> Here:
        assert self.route.here is not None  # noqa: S101 - it has variants
        return self.route.here


@dataclass(frozen=True)
class Listener:
    """Who hears how far the run is: `started(stage, label)`, then `finished(stage, label, problem, figure, seconds)`."""

    started: Callable[[Stage, str], None]
    finished: Callable[[Stage, str, str | None, str, float | None], None]


@dataclass(frozen=True, eq=False)
class Converted:
    """What a conversion left behind, before it is measured."""

    planned: Planned
    network: TrainedNetwork | None
    content: bytes | None
    problem: str | None
    log: str
    seconds: float | None
    warnings: tuple[str, ...] = ()
    skipped: bool = False
    """Never tried: a package is missing."""
    examined: Examined | None = None
    """What the catalogue says of the file; None where there is none."""
    placements: tuple[PlacementRecord, ...] = ()


@dataclass(frozen=True, eq=False)
class _Behaviour:
    """What one .tflite does on this machine."""

    logits: np.ndarray
    timing: Timing


def measure(
    converted: Sequence[Converted],
    data: Dataset,
    folder: Path,
    listener: Listener,
    beside: Mapping[str, bytes] | None = None,
) -> Iterator[ArtifactRecord | TimingRecord]:
    """Run all files first, then time them in turns, with no other work going on: latencies are compared with each other.

    `beside`: files by id that are timed with the run's own; a `TimingRecord` of each comes first.
    """
    (folder / "models").mkdir(parents=True, exist_ok=True)
    lane = Lane("measure", on_start=lambda label: listener.started("measure", label))
    seen: dict[str, np.ndarray] = {}
    floats = {
        item.planned.variant.network: item.content
        for item in converted
        if item.content is not None and dict(item.planned.variant.settings) == {"mode": "none", "entry": "concrete"}
    }
    try:
        ran = [_run(item, data, lane, listener) for item in converted]
        repaired = {
            name: content
            for item, logits in ran
            if logits is not None and item.examined is not None
            for name, content in _repaired(item)
        }
        changed = {name: lane.submit("", metrics.outputs, each, data.test_images) for name, each in repaired.items()}
        logits_of = {name: future.result().value for name, future in changed.items()}
        files = {
            item.planned.id: item.content for item, logits in ran if logits is not None and item.content is not None
        }
        running = {name: each for name, each in repaired.items() if logits_of[name] is not None}
        timings = _timed({**(beside or {}), **files, **running}, lane)
        for name, content in (beside or {}).items():
            taken = timings[name]
            yield TimingRecord(name, len(content), taken.median_ms, taken.low_ms, taken.high_ms)
        for item, logits in ran:
            behaviour = None if logits is None else _Behaviour(logits, timings[item.planned.id])
            record = _artifact_record(item, behaviour, data, folder)
            if logits is not None:
                seen[record.id] = logits
            measured = record.status == "measured"
            yield replace(
                record,
                control=_control(item, record, seen),
                repairs=tuple(_repairs(item, record, data, logits_of, timings)) if measured else (),
                layers=tuple(_layers(item, floats, data, lane)) if measured else (),
            )
    finally:
        lane.close()


def _run(item: Converted, data: Dataset, lane: Lane, listener: Listener) -> tuple[Converted, np.ndarray | None]:
    """The item with what went wrong when it ran, and its logits."""
    logits, seconds = None, None
    if item.content is not None:
        outcome = lane.submit(item.planned.id, metrics.outputs, item.content, data.test_images).result()
        logits, seconds = outcome.value, outcome.seconds
        if outcome.error is not None:
            item = replace(item, problem=outcome.error, log=item.log + outcome.log)
    figure = "" if logits is None else f"{metrics.accuracy(logits, data.test_labels):.2%}"
    listener.finished("measure", item.planned.id, item.problem, figure, seconds)
    return item, logits


def _timed(files: Mapping[str, bytes], lane: Lane) -> dict[str, Timing]:
    """Timings by name; the same bytes are timed once.

    All of them have run: that one cannot be timed is our own defect.
    """
    first = {content: name for name, content in reversed(list(files.items()))}
    outcome = lane.submit("", interleaved, {name: content for content, name in first.items()}).result()
    if outcome.error is not None:
        raise AssertionError(f"latencies could not be measured: {outcome.error}")
    return {name: outcome.value[first[content]] for name, content in files.items()}


def _repaired(item: Converted) -> Iterator[tuple[str, bytes]]:
    """An artifact's repaired files, by a name of their own."""
    for index, repair in enumerate(() if item.examined is None else item.examined.repairs):
        yield f"{item.planned.id} repaired {index}", repair.tflite


def _repairs(
    item: Converted,
    record: ArtifactRecord,
    data: Dataset,
    logits: Mapping[str, np.ndarray | None],
    timings: Mapping[str, Timing],
) -> Iterator[RepairRecord]:
    """An artifact's repaired files, measured as it was measured itself."""
    assert item.network is not None  # noqa: S101 - it was measured
    for (name, content), repair in zip(
        _repaired(item), () if item.examined is None else item.examined.repairs, strict=True
    ):
        figures, said = None, logits[name]
        if said is not None:
            behaviour = _Behaviour(said, timings[name])
            changed = _behaviour(item.network, item.planned, content, behaviour, data)
            figures = figures_of(replace(record, **changed))
        yield RepairRecord(repair.mismatches, figures)


def _layers(item: Converted, floats: Mapping[str, bytes], data: Dataset, lane: Lane) -> Iterator[LayerRecord]:
    """Where along the network the file leaves its ONNX model, or the float file of its Keras network.

    `floats` has the float files by network; nothing where there is no reference.
    """
    assert item.network is not None  # noqa: S101 - it was measured
    onnx = item.network.onnx.get(item.planned.variant.form)
    reference = floats.get(item.planned.variant.network)
    if onnx is None and reference is None:
        return
    content = None if onnx is None else onnx.read_bytes()
    found = lane.submit("", drift_of_files, content, reference, item.content, samples(data)).result().value
    for layer in () if found is None else found.layers:
        ratio = layer.sqnr_db if np.isfinite(layer.sqnr_db) else None
        yield LayerRecord(layer.op, layer.file, min(layer.max_lsb, np.finfo(np.float32).max), ratio)


def _control(item: Converted, record: ArtifactRecord, seen: Mapping[str, np.ndarray]) -> ControlRecord | None:
    """How a control route's logits compare with those of the artifact it controls, where both were measured."""
    controlled = item.planned.route.controls
    other = None if controlled is None else item.planned.variant.id(controlled)
    if other is None or record.lsb is None or other not in seen or record.id not in seen:
        return None
    apart = metrics.distance(seen[record.id], seen[other], record.lsb)
    return ControlRecord(other, apart.equal, apart.max_lsb)


def network_record(network: TrainedNetwork, labels: np.ndarray) -> NetworkRecord:
    """What the trained network itself achieves, before any conversion."""
    spec, scale, int8 = network.spec, network.output_scale, network.int8_logits
    apart = (
        metrics.distance(int8, network.logits, scale)
        if int8 is not None and scale is not None and spec.kind == "qat"
        else None
    )
    return NetworkRecord(
        id=spec.id,
        framework=spec.framework,
        about=spec.about,
        accuracy=metrics.accuracy(network.logits, labels),
        int8_engine=network.int8_engine,
        int8_engine_accuracy=None if int8 is None else metrics.accuracy(int8, labels),
        int8_engine_max_lsb=None if apart is None else apart.max_lsb,
        output_scale=scale,
        from_cache=network.from_cache,
        seconds=network.seconds,
    )


def _artifact_record(item: Converted, behaviour: _Behaviour | None, data: Dataset, folder: Path) -> ArtifactRecord:
    onnx = item.network.onnx.get(item.planned.variant.form) if item.network is not None else None
    facts: dict[str, Any] = {
        "id": item.planned.id,
        "route": item.planned.route.name,
        "network": item.planned.variant.network,
        "settings": dict(item.planned.variant.settings),
        "log": item.log,
        "warnings": item.warnings,
        "convert_seconds": item.seconds,
        "onnx_file": None if onnx is None else str(onnx.relative_to(folder)),
        "reason": item.problem,
    }
    if item.content is None or item.network is None or behaviour is None:
        return ArtifactRecord(status="skipped" if item.skipped else "failed", **facts, **NOTHING_MEASURED)
    path = folder / "models" / f"{item.planned.id.replace('/', '--')}.tflite"
    path.write_bytes(item.content)
    return ArtifactRecord(
        status="measured",
        file=str(path.relative_to(folder)),
        sha256=hashlib.sha256(item.content).hexdigest(),
        seen=() if item.examined is None else item.examined.seen,
        placements=item.placements,
        **_behaviour(item.network, item.planned, item.content, behaviour, data),
        **facts,
    )


def _behaviour(
    network: TrainedNetwork, planned: Planned, content: bytes, behaviour: _Behaviour, data: Dataset
) -> dict[str, Any]:
    """The measured fields of an `ArtifactRecord`, of the artifact's own file or of a repaired one."""
    file = read(content, planned.id)
    expected = network.expected(planned.variant.form)
    apart = metrics.distance(behaviour.logits, expected, reference_lsb(expected, network.output_scale))
    accuracy = metrics.accuracy(behaviour.logits, data.test_labels)
    return {
        "size": len(content),
        "accuracy": accuracy,
        "accuracy_drop": metrics.accuracy(expected, data.test_labels) - accuracy,
        "disagreements": apart.disagreements,
        "max_difference": apart.max_difference,
        "max_difference_lsb": apart.max_lsb,
        "lsb": apart.lsb,
        "equal_outputs": apart.equal,
        "latency_median_ms": behaviour.timing.median_ms,
        "latency_p90_ms": behaviour.timing.p90_ms,
        "latency_low_ms": behaviour.timing.low_ms,
        "latency_high_ms": behaviour.timing.high_ms,
        "operators": tuple(OperatorRecord(operator.name, file.is_integer(operator)) for operator in file.operators),
        "input_dtype": file.tensors[file.inputs[0]].dtype,
        "output_dtype": file.tensors[file.outputs[0]].dtype,
        "scales": tuple(_scale_records(network, planned.variant.form, file)),
    }


NOTHING_MEASURED: dict[str, Any] = {
    "file": None,
    "sha256": None,
    "size": None,
    "accuracy": None,
    "accuracy_drop": None,
    "disagreements": None,
    "max_difference": None,
    "max_difference_lsb": None,
    "lsb": None,
    "equal_outputs": None,
    "latency_median_ms": None,
    "latency_p90_ms": None,
    "operators": (),
    "input_dtype": None,
    "output_dtype": None,
    "scales": (),
}


def _scale_records(network: TrainedNetwork, form: str, file: TfliteFile) -> Iterator[ScaleRecord]:
    seven_bit = form == "qdq" and network.spec.variant in SEVEN_BIT
    roles = metrics.activations(file)
    for role, (scale, zero_point) in network.scales.get(form, {}).items():
        tensor = roles.get(role)
        yield ScaleRecord(
            role=role,
            trained_scale=scale,
            trained_zero_point=zero_point,
            file_scale=None if tensor is None else tensor.scale[0],
            file_zero_point=None if tensor is None else tensor.zero_point[0],
            kept=metrics.keeps(tensor, (scale, zero_point), seven_bit=seven_bit),
        )


def samples(data: Dataset) -> np.ndarray:
    """The images that files are examined on: float32 (N, 28, 28), scaled to 0..1."""
    return data.test_images[:TRACED_IMAGES].astype(np.float32) / np.float32(255)
