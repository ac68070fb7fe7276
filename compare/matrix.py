"""One run of the matrix: plan, train, convert, measure. Says nothing, writes only model files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bridge.errors import BridgeError
from compare import metrics
from compare.dataset import Dataset
from compare.networks import NETWORKS, SEVEN_BIT, Arrays, Job, NetworkSpec, TrainedNetwork, train
from compare.report.record import ArtifactRecord, ControlRecord, NetworkRecord, OperatorRecord, ScaleRecord
from compare.routes import ROUTES, Route, Source, Variant, calibration_images, warm_up
from compare.settings import Settings
from compare.shared_start import keras_to_torch, torch_to_keras
from compare.tflite_file import TfliteFile, read
from compare.workers import Lane, Outcome

TENSORFLOW = "compare.tensorflow_preload"
Stage = Literal["train", "convert", "measure"]
ONNX2TF_PROCESSES = 2
"""Its conversions are the longest part of a run, and one uses one core."""
SPECS = {spec.id: spec for spec in NETWORKS}


@dataclass(frozen=True)
class Planned:
    """One artifact to make."""

    route: Route
    variant: Variant

    @property
    def id(self) -> str:
        return self.variant.id(self.route.name)


@dataclass(frozen=True)
class Options:
    """How a run is carried out, beside what it trains (`Settings`)."""

    cache: Path
    fresh: bool
    folder: Path
    """Where `models/` and `onnx/` are written."""
    exporter: Literal["torchscript", "dynamo"]


@dataclass(frozen=True)
class Listener:
    """Who hears how far the run is: `started(stage, label)`, then `finished(stage, label, problem or None)`."""

    started: Callable[[Stage, str], None]
    finished: Callable[[Stage, str, str | None], None]


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


def plan(only: Sequence[str] = ()) -> tuple[Planned, ...]:
    """The artifacts whose id matches any of the globs; all of them without globs.

    Raises `BridgeError` when a glob matches nothing.
    """
    everything = [Planned(route, variant) for route in ROUTES for variant in route.variants]
    for pattern in only:
        if not any(_matches(planned.id, pattern) for planned in everything):
            raise BridgeError(
                where=f"--only '{pattern}'",
                problem="matches no artifact",
                remedy="See --list for the ids; '*' matches any part of one, as in 'torch-*'.",
            )
    return tuple(item for item in everything if not only or any(_matches(item.id, pattern) for pattern in only))


def _matches(identity: str, pattern: str) -> bool:
    return fnmatchcase(identity, pattern) or fnmatchcase(identity, f"{pattern}/*")


def run(
    planned: Sequence[Planned], data: Dataset, settings: Settings, options: Options, listener: Listener
) -> Iterator[NetworkRecord | ArtifactRecord]:
    """Yield the record of every network and every artifact as it is done; artifacts last, in the planned order.

    An artifact that cannot be made is a record with its reason, never the end of the run.
    """
    missing = {item.route.name: item.route.missing() for item in planned}
    possible = [item for item in planned if missing[item.route.name] is None]
    networks: dict[str, TrainedNetwork] = {}
    converted: dict[str, Converted] = {
        item.id: Converted(item, None, None, missing[item.route.name], "", None, skipped=True)
        for item in planned
        if missing[item.route.name] is not None
    }
    with _lanes(possible, listener) as lanes:
        conversions: dict[Future[Outcome], list[Converted]] = {}
        for trained in _train(_needed(possible), data, settings, options, lanes, listener):
            if isinstance(trained, TrainedNetwork):
                networks[trained.spec.id] = trained
                yield network_record(trained, data.test_labels)
                _convert(possible, trained, data, settings, lanes, conversions, converted)
            else:
                spec, problem, log = trained
                for item in possible:
                    if item.variant.network == spec.id:
                        converted[item.id] = Converted(item, None, None, problem, log, None)
        for future in as_completed(conversions):
            outcome = future.result()
            for waiting in conversions[future]:
                converted[waiting.planned.id] = replace(
                    waiting, content=outcome.value, problem=outcome.error, log=outcome.log, seconds=outcome.seconds
                )
                listener.finished("convert", waiting.planned.id, outcome.error)
    yield from _measure([converted[item.id] for item in planned], data, options, listener)


@contextmanager
def _lanes(possible: Sequence[Planned], listener: Listener) -> Iterator[dict[str, Lane]]:
    """Worker lanes by name, with the slow imports of the converters under way while the first network trains."""

    def say(stage: Stage) -> Callable[[str], None]:
        return lambda label: listener.started(stage, label) if label else None

    lanes = {
        "torch": Lane("torch", on_start=say("train")),
        "keras": Lane("keras", on_start=say("convert"), preload=TENSORFLOW),
        "onnx2tf": Lane("onnx2tf", processes=ONNX2TF_PROCESSES, on_start=say("convert"), preload=TENSORFLOW),
    }
    try:
        for name in {item.route.lane for item in possible} & {"keras", "onnx2tf"}:
            for _ in range(ONNX2TF_PROCESSES if name == "onnx2tf" else 1):
                lanes[name].submit("", warm_up, name)
        yield lanes
    finally:
        for lane in lanes.values():
            lane.close()


def _needed(possible: Iterable[Planned]) -> list[NetworkSpec]:
    wanted = {item.variant.network for item in possible}
    frameworks = {SPECS[network].framework for network in wanted}
    return [spec for spec in NETWORKS if spec.id in wanted or (spec.kind == "float" and spec.framework in frameworks)]


Failure = tuple[NetworkSpec, str, str]


def _train(
    specs: Sequence[NetworkSpec],
    data: Dataset,
    settings: Settings,
    options: Options,
    lanes: dict[str, Lane],
    listener: Listener,
) -> Iterator[TrainedNetwork | Failure]:
    """Train the float networks in the order the shared start asks for, then everything else side by side."""
    (options.folder / "onnx").mkdir(parents=True, exist_ok=True)

    def submit(spec: NetworkSpec, start: Arrays | None) -> Future[Outcome]:
        job = Job(spec, settings, options.cache, options.fresh, options.folder / "onnx", options.exporter)
        return lanes[spec.framework].submit(spec.id, train, job, data, start)

    def collect(spec: NetworkSpec, outcome: Outcome) -> TrainedNetwork | Failure:
        listener.finished("train", spec.id, outcome.error)
        return outcome.value if outcome.error is None else (spec, outcome.error, outcome.log)

    first, second = ("keras", "torch") if settings.init == "keras" else ("torch", "keras")
    translate = keras_to_torch if settings.init == "keras" else torch_to_keras
    starts: dict[str, Arrays] = {}
    pending: dict[Future[Outcome], NetworkSpec] = {}
    for framework in (first, second):
        spec = next((spec for spec in specs if spec.framework == framework and spec.kind == "float"), None)
        if spec is None:
            continue
        shared = translate(starts[first]) if settings.init != "separate" and first in starts else None
        if framework == second and shared is not None:
            starts[framework] = shared
            pending[submit(spec, shared)] = spec
        else:
            trained = collect(spec, submit(spec, None).result())
            yield trained
            if isinstance(trained, TrainedNetwork):
                starts[framework] = trained.arrays
        for other in specs:
            if other.framework == framework and other.kind != "float":
                if framework in starts:
                    pending[submit(other, starts[framework])] = other
                else:
                    yield other, f"its float network '{spec.id}' could not be trained", ""
    for future in as_completed(pending):
        yield collect(pending[future], future.result())


def _convert(
    possible: Iterable[Planned],
    network: TrainedNetwork,
    data: Dataset,
    settings: Settings,
    lanes: dict[str, Lane],
    conversions: dict[Future[Outcome], list[Converted]],
    converted: dict[str, Converted],
) -> None:
    """Queue every conversion that starts from `network`. A file that was converted already is not converted twice."""
    for item in possible:
        variant = item.variant
        if variant.network != network.spec.id:
            continue
        waiting = Converted(item, network, None, None, "", None, warnings=network.notes.get(variant.form, ()))
        if variant.form in network.refusals:
            converted[item.id] = replace(waiting, problem=network.refusals[variant.form])
            continue
        onnx = network.onnx.get(variant.form)
        twin = _same_input(item, onnx, conversions)
        if twin is not None:
            note = f"its ONNX file is the same as that of {conversions[twin][0].planned.id}: converted once"
            conversions[twin].append(replace(waiting, warnings=(*waiting.warnings, note)))
            continue
        source = Source(network.spec, settings, network.arrays, onnx)
        calibration = calibration_images(data, variant.settings.get("calibration", "representative"))
        future = lanes[item.route.lane].submit(item.id, item.route.convert, source, variant, calibration)
        conversions[future] = [waiting]


def _same_input(
    item: Planned, onnx: Path | None, conversions: dict[Future[Outcome], list[Converted]]
) -> Future[Outcome] | None:
    if onnx is None:
        return None
    content = onnx.read_bytes()
    for future, (first, *_) in conversions.items():
        if first.network is None or first.planned.route.name != item.route.name:
            continue
        other = first.network.onnx.get(first.planned.variant.form)
        if other is not None and other.read_bytes() == content:
            return future
    return None


def _measure(
    converted: Sequence[Converted], data: Dataset, options: Options, listener: Listener
) -> Iterator[ArtifactRecord]:
    """Measure one after the other, with no other work going on: latencies are compared with each other."""
    (options.folder / "models").mkdir(parents=True, exist_ok=True)
    lane = Lane("measure", on_start=lambda label: listener.started("measure", label))
    seen: dict[str, np.ndarray] = {}
    try:
        for item in converted:
            behaviour = None
            if item.content is not None:
                outcome = lane.submit(item.planned.id, metrics.observe, item.content, data.test_images).result()
                behaviour, problem = outcome.value, outcome.error
                if problem is not None:
                    item = replace(item, problem=problem, log=item.log + outcome.log)
            listener.finished("measure", item.planned.id, item.problem)
            record = _artifact_record(item, behaviour, data, options.folder)
            if behaviour is not None:
                seen[record.id] = behaviour.logits
            yield replace(record, control=_control(item, record, seen))
    finally:
        lane.close()


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


def _artifact_record(
    item: Converted, behaviour: metrics.Behaviour | None, data: Dataset, folder: Path
) -> ArtifactRecord:
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
        return ArtifactRecord(status="skipped" if item.skipped else "failed", **facts, **_NOTHING)
    path = folder / "models" / f"{item.planned.id.replace('/', '--')}.tflite"
    path.write_bytes(item.content)
    file = read(item.content, item.planned.id)
    logits = behaviour.logits
    expected = item.network.expected(item.planned.variant.form)
    lsb = metrics.reference_lsb(expected, item.network.output_scale)
    apart = metrics.distance(logits, expected, lsb)
    accuracy = metrics.accuracy(logits, data.test_labels)
    return ArtifactRecord(
        status="measured",
        file=str(path.relative_to(folder)),
        sha256=hashlib.sha256(item.content).hexdigest(),
        size=len(item.content),
        accuracy=accuracy,
        accuracy_drop=metrics.accuracy(expected, data.test_labels) - accuracy,
        disagreements=apart.disagreements,
        max_difference=apart.max_difference,
        max_difference_lsb=apart.max_lsb,
        lsb=apart.lsb,
        equal_outputs=apart.equal,
        latency_median_ms=behaviour.latency_median_ms,
        latency_p90_ms=behaviour.latency_p90_ms,
        operators=tuple(OperatorRecord(operator.name, file.is_integer(operator)) for operator in file.operators),
        input_dtype=file.tensors[file.inputs[0]].dtype,
        output_dtype=file.tensors[file.outputs[0]].dtype,
        scales=tuple(_scale_records(item.network, item.planned.variant.form, file)),
        **facts,
    )


_NOTHING: dict[str, Any] = {
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


def started_now() -> str:
    """The time, UTC, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
