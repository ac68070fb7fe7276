"""A team's own model, every way that takes it: made, run, examined, repaired, timed and placed. Says nothing itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import load_from_string

from bridge.errors import BridgeError
from compare.explaining.attribution import Examined, examine
from compare.explaining.diagnosis import drift_of
from compare.measuring import scales
from compare.measuring.judging import judged
from compare.measuring.latency import Timing, interleaved
from compare.measuring.metrics import distance
from compare.measuring.runtimes import Ran, run_all, save_inputs
from compare.measuring.scoring import Score, scoring
from compare.npu.placing import placements, prepare
from compare.report.records.run import (
    ArtifactRecord,
    ControlRecord,
    LayerRecord,
    NetworkRecord,
    OperatorRecord,
    PlacementRecord,
    RepairRecord,
    ScaleCountRecord,
    figures_of,
)
from compare.routes.making import Cell, Made, make, planned
from compare.routes.registry import by_name
from compare.routes.registry import matching as routes_of
from compare.run.measuring import NOTHING_MEASURED, Listener
from compare.running.workers import Lane
from compare.subjects.case import Case
from compare.subjects.model import Form, Subject
from compare.tflite.file import read
from compare.tflite.graph import open_tflite
from compare.toolchains import CURRENT
from compare.toolchains import matching as toolchains_of

MOST_TRACED = 64
"""Samples on which the catalogue and the drift look at a file."""
TRACED_ELEMENTS = 2**27
"""Of all tensors over all traced samples, so that a large network is looked at on fewer: half a gigabyte of float32."""


@dataclass(frozen=True)
class Options:
    """How a run of a team's own model is carried out."""

    cache: Path
    folder: Path
    """Where `models/` is written, and everything the workers leave behind under `work/`."""
    jobs: int
    seconds: float
    """Time limit of one conversion."""
    only: tuple[str, ...] = ()
    """Globs of route names."""
    toolchains: tuple[str, ...] = (CURRENT,)
    targets: tuple[str, ...] = ()


def plan(subject: Subject, options: Options) -> list[Cell]:
    """Every artifact; raises `BridgeError` for globs that match nothing."""
    kinds = subject.kinds
    routes = routes_of(options.only, tuple(kinds.values()), "--only")
    return planned(toolchains_of(options.toolchains, "--toolchain"), routes, kinds)


def run(subject: Subject, options: Options, listener: Listener) -> Iterator[NetworkRecord | ArtifactRecord]:
    """The record of every form of the model, then of every artifact; what cannot be made is a record with its reason."""
    with scoring(subject) as score:
        yield from _run(subject, options, listener, score)


def _run(
    subject: Subject, options: Options, listener: Listener, score: Score
) -> Iterator[NetworkRecord | ArtifactRecord]:
    for name, form in subject.forms.items():
        yield _network(name, form, subject, score)
    made = _made(subject, options, listener)
    lanes = {name: Lane(name) for name in ("examine", "npu", "measure")}
    try:
        targets = _ready(options, lanes["npu"], listener)
        contents = {each.id: each.content for each in made if each.content is not None}
        examinations = {
            each.id: lanes["examine"].submit("", _looked_at, each.content, each.onnx, subject.forms[each.cell.form])
            for each in made
            if each.content is not None
        }
        places = {
            name: lanes["npu"].submit("", placements, content, targets, options.cache)
            for name, content in contents.items()
        }
        looks = {name: future.result().value for name, future in examinations.items()}
        repaired = {
            f"{name} repaired {index}": repair.tflite
            for name, look in looks.items()
            for index, repair in enumerate(() if look is None else look.examined.repairs)
        }
        forms = {each.id: subject.forms[each.cell.form] for each in made}
        ran = _ran({**contents, **repaired}, forms, options, listener)
        running = [name for name, each in ran.items() if each.outputs is not None]
        timings = _timed({name: {**contents, **repaired}[name] for name in running}, lanes["measure"])
        (options.folder / "models").mkdir(exist_ok=True)
        for each in made:
            placed = places[each.id].result().value or () if each.id in places else ()
            yield _artifact(each, subject, score, looks.get(each.id), ran, timings, repaired, placed, options.folder)
    finally:
        for lane in lanes.values():
            lane.close()


def _network(name: str, form: Form, subject: Subject, score: Score) -> NetworkRecord:
    return NetworkRecord(
        id=name,
        framework="own",
        about=subject.name,
        accuracy=_accuracy(form.expected, form, subject, score),
        int8_engine=None,
        int8_engine_accuracy=None,
        int8_engine_max_lsb=None,
        output_scale=None if form.kind in FLOATS else form.lsb,
        from_cache=False,
        seconds=0.0,
    )


FLOATS = ("float", "dynamo")
"""Kinds of forms of which training decided no scale."""


def _accuracy(outputs: np.ndarray, form: Form, subject: Subject, score: Score) -> float:
    """By the subject's metric; without one, the share of samples on which it agrees.

    With the model as given where the largest score is what counts; else with its own form, in whose steps a change is one.
    """
    value = score(outputs, form)
    if value is not None:
        return value
    given = subject.given if form.classifies and subject.given.expected.shape == outputs.shape else form
    return 1.0 - float(judged(outputs, given).changed.mean())


def _made(subject: Subject, options: Options, listener: Listener) -> list[Made]:
    def one(cell: Cell) -> Made:
        listener.started("convert", cell.id)
        folder = options.folder / "work" / cell.id.replace("/", "--")
        try:
            done = make(cell, subject.forms[cell.form], folder, options.cache, options.seconds)
        except BridgeError as error:  # its environment cannot be built
            done = Made(cell, None, str(error), None, ())
        listener.finished("convert", cell.id, done.problem, "", sum(answer.seconds for answer in done.answers))
        return done

    with ThreadPoolExecutor(options.jobs) as pool:
        return list(pool.map(one, plan(subject, options)))


def _ready(options: Options, lane: Lane, listener: Listener) -> tuple[str, ...]:
    ready = []
    for target in options.targets:
        outcome = lane.submit("", prepare, target, options.cache).result()
        if outcome.error is None:
            ready.append(target)
        else:
            listener.finished("convert", f"target {target}", outcome.error, "", None)
    return tuple(ready)


@dataclass(frozen=True, eq=False)
class _Look:
    """What the catalogue and the drift say of one file."""

    examined: Examined
    layers: tuple[LayerRecord, ...]


def _looked_at(content: bytes, onnx: bytes | None, form: Form) -> _Look:
    """For a worker process: detectors run files, too."""
    graph = open_tflite(content, "artifact").graph
    size = sum(int(np.prod(tensor.shape)) for tensor in graph.tensors.values())
    batch = max([1, *graph.tensors[graph.inputs[0]].shape[:1]])
    count = batch * max(1, min(MOST_TRACED, TRACED_ELEMENTS // max(size, 1)) // batch)
    case = Case(onnx=onnx, tflite=content, inputs={name: array[:count] for name, array in form.inputs.items()})
    try:
        drift = drift_of(case)
    except BridgeError:  # a network that cannot be traced is still examined
        drift = None
    layers = tuple(
        LayerRecord(
            each.op, each.file, min(each.max_lsb, float(np.finfo(np.float32).max)),
            each.sqnr_db if np.isfinite(each.sqnr_db) else None,
        )
        for each in (() if drift is None else drift.layers)
    )  # fmt: skip
    return _Look(examine(case), layers)


def _ran(files: Mapping[str, bytes], forms: Mapping[str, Form], options: Options, listener: Listener) -> dict[str, Ran]:
    """Every file's outputs on this environment's LiteRT, in processes of their own."""
    (current,) = toolchains_of([CURRENT])
    folder = options.folder / "work" / "run"
    folder.mkdir(parents=True)
    paths, inputs, shapes, unfit = {}, {}, {}, {}
    for number, (name, content) in enumerate(files.items()):
        form, key = forms[name.partition(" repaired")[0]], f"file{number}"
        file, samples = folder / f"{key}.tflite", folder / f"{key}.inputs.npz"
        file.write_bytes(content)
        try:
            save_inputs(content, form, samples)
        except BridgeError as error:
            unfit[name] = Ran(None, str(error).partition("\n")[0], "", {})
            continue
        paths[key], inputs[key], shapes[key] = file.resolve(), samples.resolve(), form.output_shapes
    keys = {f"file{number}": name for number, name in enumerate(files)}

    def heard(key: str, problem: str | None) -> None:
        if " repaired " not in keys[key]:
            listener.finished("measure", keys[key], problem, "", None)

    found = run_all(current, paths, inputs, shapes, folder / "outputs", options.cache, options.seconds, heard)
    ran = {keys[key]: each for key, each in found.items()} | unfit
    return {name: _of_shape(each, forms[name.partition(" repaired")[0]]) for name, each in ran.items()}


def _of_shape(ran: Ran, form: Form) -> Ran:
    if ran.outputs is None or ran.outputs.shape == form.expected.shape:
        return ran
    problem = f"answers with shape {ran.outputs.shape}, the model with {form.expected.shape}"
    return replace(ran, outputs=None, problem=problem)


def _timed(files: Mapping[str, bytes], lane: Lane) -> dict[str, Timing]:
    """The same bytes are timed once."""
    first = {content: name for name, content in reversed(list(files.items()))}
    outcome = lane.submit("", interleaved, {name: content for content, name in first.items()}).result()
    if outcome.error is not None:
        raise BridgeError(where="latencies", problem=outcome.error.splitlines()[0], remedy="Run it again.")
    return {name: outcome.value[first[content]] for name, content in files.items()}


def _artifact(
    made: Made,
    subject: Subject,
    score: Score,
    look: _Look | None,
    ran: Mapping[str, Ran],
    timings: Mapping[str, Timing],
    repaired: Mapping[str, bytes],
    placed: Sequence[PlacementRecord],
    folder: Path,
) -> ArtifactRecord:
    form, outcome = subject.forms[made.cell.form], ran.get(made.id)
    toolchain, route = made.cell.toolchain.id, made.cell.route.name
    settings = {} if toolchain == CURRENT else {"toolchain": toolchain}
    named = [route, *settings.values(), *([] if made.cell.form == form.kind else [made.cell.form])]
    facts: dict[str, Any] = {
        "id": "/".join(named),
        "route": route,
        "network": made.cell.form,
        "settings": settings,
        "log": made.log,
        "warnings": (),
        "convert_seconds": sum(answer.seconds for answer in made.answers) or None,
        "onnx_file": str(form.file.relative_to(folder)) if form.onnx else None,
        "reason": made.problem if outcome is None else outcome.problem,
    }
    if made.content is None or outcome is None or outcome.outputs is None:
        return ArtifactRecord(status="failed", **facts, **NOTHING_MEASURED)
    path = folder / "models" / f"{facts['id'].replace('/', '--')}.tflite"
    path.write_bytes(made.content)
    record = ArtifactRecord(
        status="measured",
        file=str(path.relative_to(folder)),
        sha256=hashlib.sha256(made.content).hexdigest(),
        seen=() if look is None else look.examined.seen,
        layers=() if look is None else look.layers,
        placements=tuple(placed),
        scale_count=None if form.kind in FLOATS else _scale_count(made.onnx, made.content),
        **_behaviour(made.content, outcome.outputs, timings[made.id], form, subject, score),
        control=_control(made, outcome.outputs, form, ran),
        **facts,
    )
    return replace(record, repairs=tuple(_repairs(made.id, record, look, ran, timings, repaired, form, subject, score)))


def _control(made: Made, outputs: np.ndarray, form: Form, ran: Mapping[str, Ran]) -> ControlRecord | None:
    """How a control's outputs compare with those of the artifact it controls, where both ran."""
    route = made.cell.route.controls
    other = None if route is None else ran.get(replace(made.cell, route=by_name(route)).id)
    if route is None or other is None or other.outputs is None:
        return None
    apart = distance(outputs, other.outputs, form.lsb)
    return ControlRecord(route, apart.equal, apart.max_lsb)


def _scale_count(model: bytes | None, content: bytes) -> ScaleCountRecord | None:
    decided = scales.of_onnx(load_from_string(model)) if model is not None else np.zeros(0, np.float32)
    return ScaleCountRecord(len(decided), scales.kept(decided, scales.of_tflite(content))) if len(decided) else None


def _repairs(
    name: str,
    record: ArtifactRecord,
    look: _Look | None,
    ran: Mapping[str, Ran],
    timings: Mapping[str, Timing],
    repaired: Mapping[str, bytes],
    form: Form,
    subject: Subject,
    score: Score,
) -> Iterator[RepairRecord]:
    for index, repair in enumerate(() if look is None else look.examined.repairs):
        key, figures = f"{name} repaired {index}", None
        outputs = ran[key].outputs
        if outputs is not None:
            changed = _behaviour(repaired[key], outputs, timings[key], form, subject, score)
            figures = figures_of(replace(record, **changed))
        yield RepairRecord(repair.mismatches, figures)


def _behaviour(
    content: bytes, outputs: np.ndarray, timing: Timing, form: Form, subject: Subject, score: Score
) -> dict[str, Any]:
    """The measured fields of an `ArtifactRecord`, of the artifact's own file or of a repaired one."""
    file, seen = read(content, "artifact"), judged(outputs, form)
    accuracy = _accuracy(outputs, form, subject, score)
    apart = np.abs(outputs - form.expected)
    return {
        "size": len(content),
        "accuracy": accuracy,
        "accuracy_drop": _accuracy(form.expected, form, subject, score) - accuracy,
        "disagreements": int(seen.changed.sum()),
        "max_difference": float(apart.max()),
        "max_difference_lsb": seen.max_lsb,
        "lsb": form.lsb,
        "equal_outputs": float((apart < form.lsb / 2).mean()),
        "latency_median_ms": timing.median_ms,
        "latency_p90_ms": timing.p90_ms,
        "latency_low_ms": timing.low_ms,
        "latency_high_ms": timing.high_ms,
        "operators": tuple(OperatorRecord(operator.name, file.is_integer(operator)) for operator in file.operators),
        "input_dtype": file.tensors[file.inputs[0]].dtype,
        "output_dtype": file.tensors[file.outputs[0]].dtype,
        "scales": (),
    }
