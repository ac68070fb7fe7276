"""One version matrix: build the toolchains, go every route, run every file everywhere, judge. Says nothing itself."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from bridge.errors import BridgeError
from compare.measuring.runtimes import Ran, run_all, save_inputs
from compare.measuring.scoring import Score, scoring
from compare.npu.placing import placements
from compare.report.records.versions import CauseRecord, CellRecord, RunRecord, ToolchainRecord
from compare.routes.making import Cell, Made, make, planned
from compare.routes.model import Route
from compare.running.workers import Lane
from compare.subjects.case import Case
from compare.subjects.model import Form, Subject
from compare.toolchains import CURRENT, Toolchain
from compare.toolchains.protocol import Work, python_of, work
from compare.versions import judging

Stage = Literal["train", "build", "make", "run"]
EXAMINED_SAMPLES = 64
"""Samples on which the catalogue looks at a file."""


@dataclass(frozen=True)
class Options:
    """How a matrix is made."""

    cache: Path
    folder: Path
    """Where `models/` is written, and everything the workers leave behind under `work/`."""
    jobs: int
    """Processes at a time."""
    seconds: float
    """Time limit of one job."""
    max_changed: float
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listener:
    """Who hears how far it is: `expect(stage, count)`, then `done(stage, label, problem or None)` that many times."""

    expect: Callable[[Stage, int], None]
    done: Callable[[Stage, str, str | None], None]


def run(
    chosen: Sequence[Toolchain], routes: Sequence[Route], subject: Subject, options: Options, listener: Listener
) -> tuple[tuple[ToolchainRecord, ...], tuple[CellRecord, ...], tuple[str, ...]]:
    """The toolchains, the cells in planned order, and the runtimes that took part."""
    cells = planned(chosen, routes, subject.kinds)
    needed = [each for each in chosen if each.runtime is not None or any(each is cell.toolchain for cell in cells)]
    listener.expect("build", len(needed))
    records = {each.id: _built(each, options, listener) for each in needed}
    there = {identity for identity, record in records.items() if record.problem is None}
    listener.expect("make", len(cells))
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(_made, cell, subject.forms[cell.form], options, there) for cell in cells]
        for future in as_completed(futures):
            listener.done("make", future.result().id, future.result().problem)
        made = [future.result() for future in futures]
    runtimes = [each for each in chosen if each.runtime is not None and each.id in there]
    ran = _run(runtimes, made, subject, options, listener)
    lane = Lane("judge")  # detectors run files, too: a crash there is not the end of the matrix
    try:
        with scoring(subject) as score:
            judged = tuple(_judged(each, ran, subject, options, lane, score) for each in made)
    finally:
        lane.close()
    steps = {
        each.id: judging.output_step(each.content, each.id, subject.forms[each.cell.form].lsb)
        for each in made
        if each.content is not None
    }
    return tuple(records.values()), _with_status(judged, ran, steps, subject, options), tuple(e.id for e in runtimes)


def _built(toolchain: Toolchain, options: Options, listener: Listener) -> ToolchainRecord:
    started, problem, versions = time.perf_counter(), None, dict[str, str]()
    try:
        python = python_of(toolchain, options.cache)
        seconds = time.perf_counter() - started
        (answer,) = work(python, [Work("nothing", "nothing")], options.folder / "work" / f"build--{toolchain.id}")
        problem, versions = answer.problem, dict(answer.versions)
    except BridgeError as error:
        seconds, problem = time.perf_counter() - started, error.problem
    listener.done("build", toolchain.id, problem)
    return ToolchainRecord(
        id=toolchain.id,
        about=toolchain.about,
        as_of=toolchain.as_of,
        python=versions.get("python", toolchain.python or ""),
        requirements=toolchain.requirements,
        problem=problem,
        seconds=seconds,
        versions=versions,
    )


def _made(cell: Cell, form: Form, options: Options, there: set[str]) -> Made:
    if cell.toolchain.id not in there:
        return Made(cell, None, "its toolchain could not be built", None, ())
    folder = options.folder / "work" / cell.id.replace("/", "--")
    return make(cell, form, folder, options.cache, options.seconds)


def _run(
    runtimes: Sequence[Toolchain], made: Sequence[Made], subject: Subject, options: Options, listener: Listener
) -> dict[str, dict[str, Ran]]:
    """By runtime, then by cell. Identical files are run once for each."""
    models = options.folder / "models"
    models.mkdir(exist_ok=True)
    files: dict[str, Path] = {}
    inputs: dict[str, Path] = {}
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    unfit: dict[str, Ran] = {}
    for each in made:
        if each.content is None:
            continue
        name = each.id.replace("/", "--")
        path = models / f"{name}.tflite"
        path.write_bytes(each.content)
        samples = options.folder / "work" / f"{name}.inputs.npz"
        try:
            save_inputs(each.content, subject.forms[each.cell.form], samples)
            files[name], inputs[name] = path.resolve(), samples.resolve()
            shapes[name] = subject.forms[each.cell.form].output_shapes
        except BridgeError as error:
            unfit[each.id] = Ran(None, str(error).partition("\n")[0], "", {})
    listener.expect("run", len(files) * len(runtimes))
    found: dict[str, dict[str, Ran]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {
            runtime.id: pool.submit(
                run_all,
                runtime,
                files,
                inputs,
                shapes,
                options.folder / "work" / f"run--{runtime.id}",
                options.cache,
                options.seconds,
                _saying(listener, runtime.id),
            )
            for runtime in runtimes
        }
        for identity, future in futures.items():
            found[identity] = {name.replace("--", "/", 1): ran for name, ran in future.result().items()} | unfit
    return found


def _saying(listener: Listener, runtime: str) -> Callable[[str, str | None], None]:
    return lambda name, problem: listener.done("run", f"{name} on {runtime}", problem)


def _judged(
    made: Made, ran: Mapping[str, Mapping[str, Ran]], subject: Subject, options: Options, lane: Lane, score: Score
) -> CellRecord:
    """All but the status, which needs to know which runtimes run anything."""
    facts = {
        "toolchain": made.cell.toolchain.id,
        "route": made.cell.route.name,
        "problem": made.problem,
        "seconds": sum(answer.seconds for answer in made.answers),
        "peak_bytes": max((answer.peak_bytes for answer in made.answers), default=0),
        "log": made.log,
    }
    if made.content is None:
        versions = made.answers[-1].versions if made.answers else {}
        causes = judging.causes_of_failure(made.log, versions, made.onnx) if made.answers else ()
        return CellRecord(status="failed", file=None, sha256=None, size=None, causes=causes, **facts)  # type: ignore[arg-type]
    operators, floating = judging.operators_of(made.content, made.id)
    form = subject.forms[made.cell.form]
    samples = {name: array[:EXAMINED_SAMPLES] for name, array in form.inputs.items()}
    case = Case(onnx=made.onnx, tflite=made.content, inputs=samples)
    seen = lane.submit("", judging.causes_in_file, case).result().value or ()
    runs = tuple(_ran_on(runtime, cells.get(made.id), made, ran, form, score, seen) for runtime, cells in ran.items())
    return CellRecord(
        status="clean",
        file=f"models/{made.id.replace('/', '--')}.tflite",
        sha256=hashlib.sha256(made.content).hexdigest(),
        size=len(made.content),
        operators=operators,
        float_operators=floating,
        causes=seen,
        runs=runs,
        placements=lane.submit("", placements, made.content, options.targets, options.cache).result().value or (),
        **facts,  # type: ignore[arg-type]
    )


def _ran_on(
    runtime: str,
    ran: Ran | None,
    made: Made,
    everything: Mapping[str, Mapping[str, Ran]],
    form: Form,
    score: Score,
    seen: tuple[CauseRecord, ...],
) -> RunRecord:
    """`seen` is what the file itself shows: it explains a refusal that says nothing by itself."""

    if ran is None or ran.outputs is None:
        problem = "was not run" if ran is None else ran.problem
        told = () if ran is None else judging.causes_of_failure(ran.log, ran.versions)
        return RunRecord(runtime, problem, None, None, None, told or tuple(each for each in seen if each.sure))
    twin = everything.get(CURRENT, {}).get(f"{CURRENT}/{made.cell.route.name}")
    reference = None if twin is None or twin.outputs is None else twin.outputs
    if reference is not None and reference.shape != ran.outputs.shape:
        reference = None
    if ran.outputs.shape != form.expected.shape:
        problem = f"answers with shape {ran.outputs.shape}, the model with {form.expected.shape}"
        return RunRecord(runtime, problem, None, None, None)
    return judging.run_record(runtime, ran.outputs, form, reference, score(ran.outputs, form))


def _with_status(
    cells: Sequence[CellRecord],
    ran: Mapping[str, Mapping[str, Ran]],
    steps: Mapping[str, float],
    subject: Subject,
    options: Options,
) -> tuple[CellRecord, ...]:
    """A runtime on which nothing at all runs is broken itself and says nothing about a file."""
    broken = broken_runtimes(cells)
    done = []
    for cell in cells:
        runs = tuple(each for each in cell.runs if each.runtime not in broken)
        outputs = [each[cell.id].outputs for each in ran.values() if cell.id in each]
        spread = _spread([each for each in outputs if each is not None]) / steps.get(cell.id, 1.0)
        status = judging.status(cell.file is not None, runs, spread, subject.samples, options.max_changed)
        done.append(replace(cell, status=status))
    return tuple(done)


def broken_runtimes(cells: Sequence[CellRecord]) -> set[str]:
    """Runtimes that run not one of the files, where there are some."""
    tried = {each.runtime for cell in cells for each in cell.runs}
    return tried - {each.runtime for cell in cells for each in cell.runs if each.problem is None}


def _spread(outputs: Sequence[np.ndarray]) -> float:
    """The largest difference between any two runtimes; nothing beside one."""
    apart: Iterator[float] = (float(np.abs(one - other).max()) for one, other in combinations(outputs, 2))
    return max(apart, default=0.0)


def default_jobs() -> int:
    """As many processes as there are cores, each of which may take a gigabyte."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores)
