"""One run of the matrix: plan, train, convert, measure. Says nothing, writes only model files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np

from bridge.errors import BridgeError
from compare.explaining.attribution import examine_made
from compare.measuring import metrics
from compare.npu.placing import placements, prepare
from compare.report.records.run import ArtifactRecord, NetworkRecord, TimingRecord
from compare.routes.model import Source, Variant
from compare.routes.registry import variants
from compare.routes.warming import warm_up
from compare.run.measuring import Converted, Listener, Planned, measure, network_record, samples
from compare.running.workers import Lane, Outcome
from compare.subjects.mnist.calibration import calibration_images
from compare.subjects.mnist.dataset import Dataset
from compare.subjects.mnist.larger_network import WANTED, files
from compare.subjects.mnist.networks import NETWORKS, Arrays, Job, NetworkSpec, TrainedNetwork, train
from compare.subjects.mnist.settings import Settings
from compare.subjects.mnist.shared_start import keras_to_torch, torch_to_keras

TENSORFLOW = "compare.running.tensorflow_preload"
ONNX2TF_PROCESSES = 2
"""Its conversions are the longest part of a run, and one uses one core."""
SPECS = {spec.id: spec for spec in NETWORKS}


@dataclass(frozen=True)
class Options:
    """How a run is carried out, beside what it trains (`Settings`)."""

    cache: Path
    fresh: bool
    folder: Path
    """Where `models/` and `onnx/` are written."""
    exporter: Literal["torchscript", "dynamo"]
    targets: tuple[str, ...] = ()
    """Ids of the targets that every file is judged for."""


def plan(only: Sequence[str] = ()) -> tuple[Planned, ...]:
    """The artifacts whose id matches any of the globs; all of them without globs.

    Raises `BridgeError` when a glob matches nothing.
    """
    everything = [Planned(*each) for each in variants()]
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
) -> Iterator[NetworkRecord | ArtifactRecord | TimingRecord]:
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
        examinations: dict[Future[Outcome], list[str]] = {}
        judgements: dict[Future[Outcome], list[str]] = {}
        ready = _prepared(options, lanes, listener)
        larger = lanes["keras"].submit("", files, options.cache) if _judges_speed(possible) else None
        for future in as_completed(conversions):
            outcome, (first, *_) = future.result(), conversions[future]
            for waiting in conversions[future]:
                converted[waiting.planned.id] = replace(
                    waiting, content=outcome.value, problem=outcome.error, log=outcome.log, seconds=outcome.seconds
                )
                listener.finished("convert", waiting.planned.id, outcome.error, "", outcome.seconds)
            if outcome.value is not None and first.network is not None:
                lane, job = lanes[first.planned.here.lane], _job(first.planned, first.network, data, settings)
                examination = lane.submit("", examine_made, first.planned.here.case, *job, outcome.value, samples(data))
                examinations[examination] = [waiting.planned.id for waiting in conversions[future]]
                judgement = lanes["npu"].submit("", placements, outcome.value, ready, _cache(options))
                judgements[judgement] = examinations[examination]
        for future, identities in examinations.items():
            for identity in identities:
                converted[identity] = replace(converted[identity], examined=future.result().value)
        for future, identities in judgements.items():
            for identity in identities:
                converted[identity] = replace(converted[identity], placements=future.result().value or ())
        beside = {} if larger is None else larger.result().value or {}
    yield from measure([converted[item.id] for item in planned], data, options.folder, listener, beside)


def _judges_speed(possible: Iterable[Planned]) -> bool:
    """Whether the run has the artifacts that the claims on speed compare."""
    return {f"keras-native/{name}/concrete" for name in WANTED} <= {item.id for item in possible}


def _cache(options: Options) -> Path:
    """The folder that holds `networks/`, where the targets' software is kept, too."""
    return options.cache.parent


def _prepared(options: Options, lanes: dict[str, Lane], listener: Listener) -> tuple[str, ...]:
    """The targets whose software is there, installed first where it is missing; the others are said once."""
    ready = []
    for target in options.targets:
        outcome = lanes["npu"].submit("", prepare, target, _cache(options)).result()
        if outcome.error is None:
            ready.append(target)
        else:
            listener.finished("convert", f"target {target}", outcome.error, "", None)
    return tuple(ready)


@contextmanager
def _lanes(possible: Sequence[Planned], listener: Listener) -> Iterator[dict[str, Lane]]:
    """Worker lanes by name, with the slow imports of the converters under way while the first network trains."""

    def say(label: str) -> None:
        if label:
            listener.started("train" if label in SPECS else "convert", label)

    lanes = {
        "torch": Lane("torch", on_start=say),
        "keras": Lane("keras", on_start=say, preload=TENSORFLOW),
        "npu": Lane("npu"),
        "onnx2tf": Lane("onnx2tf", processes=ONNX2TF_PROCESSES, on_start=say, preload=TENSORFLOW),
    }
    try:
        for name in {item.here.lane for item in possible} & {"keras", "onnx2tf"}:
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
        figure = "" if outcome.value is None else f"{metrics.accuracy(outcome.value.logits, data.test_labels):.2%}"
        listener.finished("train", spec.id, outcome.error, figure, outcome.seconds)
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
        future = lanes[item.here.lane].submit(item.id, item.here.convert, *_job(item, network, data, settings))
        conversions[future] = [waiting]


def _job(
    item: Planned, network: TrainedNetwork, data: Dataset, settings: Settings
) -> tuple[Source, Variant, np.ndarray]:
    """What a route is called with."""
    variant = item.variant
    source = Source(network.spec, settings, network.arrays, network.onnx.get(variant.form))
    return source, variant, calibration_images(data, variant.settings.get("calibration", "representative"))


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
        same_settings = first.planned.variant.settings == item.variant.settings
        if other is not None and same_settings and other.read_bytes() == content:
            return future
    return None
