"""`python -m compare.run`: train both networks, convert them every way, measure, and report how they differ."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from bridge.errors import BridgeError
from bridge.exit_codes import INTERRUPTED, MISSED, Program, ends_properly
from bridge.terminal import Terminal, write
from compare.report.records.run import (
    SCHEMA_VERSION,
    ArtifactRecord,
    DataRecord,
    NetworkRecord,
    RunRecord,
    TimingRecord,
    to_json,
)
from compare.running.machine import machine, started_now
from compare.running.staging import staging_folder
from compare.subjects.mnist.settings import Init, PresetName
from compare.subjects.options import DataSet, Inputs, Metric, Model, Train, own_model

PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnx2tf",
    "onnxsim",
    "tensorflow",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
    "protobuf",
    "flatbuffers",
    "qat-tflite-bridge",
)
QUICK = (
    "torch-exact/qat-fbgemm",
    "torch-int8-exact/qat-fbgemm",
    "torch-onnx2tf/qat-fbgemm",
    "torch-int8-onnx2tf/qat-fbgemm",
    "keras-native/baseline/none/concrete",
    "keras-native/baseline/integer-only/concrete",
    "keras-native/qat/dynamic-range/concrete",
    "keras-native/qat/integer-only/concrete",
)
"""What `--quick` makes when no `--only` is given: one of each kind of difference."""

if TYPE_CHECKING:
    from compare.run.measuring import Listener
    from compare.subjects.model import Subject
    from compare.subjects.options import Prepare

app = Program(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@ends_properly
def main(
    data: Annotated[
        str | None, typer.Option(help="A folder of IDX files, or 'mnist' to download; default: the embedded sample.")
    ] = None,
    preset: Annotated[PresetName, typer.Option(help="How long and on how many images to train.")] = "default",
    init: Annotated[Init, typer.Option(help="Whose float weights both QAT runs start from.")] = "torch",
    seed: Annotated[int, typer.Option(help="Decides initial weights and the order of the images.", min=0)] = 0,
    only: Annotated[list[str] | None, typer.Option(help="Artifacts to make, as globs; may be repeated.")] = None,
    exporter: Annotated[
        Literal["torchscript", "dynamo"], typer.Option(help="PyTorch's ONNX exporter.")
    ] = "torchscript",
    quick: Annotated[bool, typer.Option("--quick", help="A first look: short training, eight artifacts.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even where the cache has the network.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the report; default: runs/ and the time of day.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where trained networks are kept between runs.")] = None,
    fail_under: Annotated[
        float | None, typer.Option(help="Exit with 1 when a measured artifact's accuracy, in percent, is lower.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the artifacts and whether they can be made.")] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Judge every file for this NPU; may be repeated; 'all', 'none'. Default: one of each kind."),
    ] = None,
    model: Model = None,
    inputs: Inputs = None,
    dataset: DataSet = None,
    metric: Metric = None,
    train: Train = None,
    qconfig: Annotated[
        list[str] | None, typer.Option(help="With --train: these qconfigs, as globs; default: all.")
    ] = None,
    toolchain: Annotated[
        list[str] | None,
        typer.Option(help="With --model: these toolchains of compare.versions, as globs; default: this environment."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="With --model: processes at a time.", min=1)] = None,
    seconds: Annotated[float, typer.Option(help="With --model: time limit of one conversion.", min=1)] = 600,
    json: Annotated[bool, typer.Option("--json", help="Print report.json to stdout; progress goes to stderr.")] = False,
) -> None:
    """Train the same MNIST network with PyTorch and Keras QAT, convert it every way to int8 TFLite, and compare.

    With --model and --inputs the same for your own model: every route that takes it, why they differ, and where they run.

    Exit codes: 0 done, 1 an artifact missed --fail-under, 2 wrong usage or input.
    """
    console = Terminal(stderr=json)
    if list_them:
        _list(Terminal(), only or ())
        return
    folder = out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    if any(each is not None for each in (model, inputs, dataset, metric, train)):
        training = None
        if train is None:
            _refuse_mnist_options(data=data, seed=seed)
            _refuse_without_training(qconfig)
        else:
            from compare.subjects.own_training import Training

            training = Training(train, tuple(qconfig or ()), seed, data)
        _refuse_mnist_options(fresh=fresh, quick=quick)
        prepare = own_model(model, inputs, dataset, metric, training, lambda said: console.print(said, highlight=False))
        limits = (jobs, seconds)
        record = _run_own(
            console, prepare, tuple(only or ()), tuple(toolchain or ()), folder, cache, limits,
            targets=_targets(target or (), quick=False), as_json=json,
        )  # fmt: skip
    else:
        record = _run(
            console,
            data=data,
            preset_name="quick" if quick and preset == "default" else preset,
            init=init,
            seed=seed,
            only=tuple(only or (QUICK if quick else ())),
            exporter=exporter,
            fresh=fresh,
            out=folder,
            cache=cache,
            as_json=json,
            targets=_targets(target or (), quick=quick),
        )
    missed = _missed(record, fail_under)
    for line in missed:
        console.print(line, markup=False, highlight=False)
    if missed:
        raise typer.Exit(MISSED)


def _run(
    console: Console,
    *,
    data: str | None,
    preset_name: PresetName,
    init: Init,
    seed: int,
    only: tuple[str, ...],
    exporter: Literal["torchscript", "dynamo"],
    fresh: bool,
    out: Path,
    cache: Path | None,
    as_json: bool,
    targets: tuple[str, ...],
) -> RunRecord:
    from compare.explaining import attribution, claims, findings
    from compare.run import matrix
    from compare.subjects.mnist import dataset, settings
    from compare.toolchains import environments

    started, clock = started_now(), time.perf_counter()
    planned = matrix.plan(only)
    trained_as = settings.preset(preset_name, seed=seed, init=init)
    cache = environments.usable(cache)
    threading.Thread(target=_prepare_charts, daemon=True).start()
    images = dataset.load(data, cache=cache)
    networks: list[NetworkRecord] = []
    artifacts: list[ArtifactRecord] = []
    timings: list[TimingRecord] = []
    with staging_folder(out) as staging, _progress(console, len(planned)) as listener:
        options = matrix.Options(cache / "networks", fresh, staging, exporter, targets)
        try:
            for result in matrix.run(planned, images, trained_as, options, listener):
                if isinstance(result, NetworkRecord):
                    networks.append(result)
                elif isinstance(result, TimingRecord):
                    timings.append(result)
                else:
                    artifacts.append(result)
        except KeyboardInterrupt:
            _say_what_there_is(console, networks, artifacts)
            raise typer.Exit(INTERRUPTED) from None
        explanations = attribution.explain(artifacts, networks)
        record = RunRecord(
            schema_version=SCHEMA_VERSION,
            started=started,
            seconds=time.perf_counter() - clock,
            command=" ".join(["python -m compare.run", *sys.argv[1:]]),
            preset=preset_name,
            settings=trained_as.record() | {"exporter": exporter},
            versions=_versions(),
            machine=machine(),
            data=DataRecord(
                images.name, images.source, images.digest, len(images.train_images), len(images.test_images)
            ),
            networks=tuple(sorted(networks, key=lambda network: list(matrix.SPECS).index(network.id))),
            artifacts=tuple(artifacts),
            findings=findings.findings(artifacts, networks, explanations),
            explanations=explanations,
            timings=tuple(timings),
            claims=claims.judge(networks, artifacts, len(images.test_images), timings),
            notes=tuple(_notes(networks, init)),
        )
        _write(record, staging, out)
    _show(record, console, out, as_json=as_json)
    return record


def _write(record: RunRecord, staging: Path, out: Path) -> None:
    from compare.report.pages.run import html, markdown

    (staging / "report.json").write_text(to_json(record))
    (staging / "report.md").write_text(markdown.render(record))
    (staging / "report.html").write_text(html.render(record))
    staging.rename(out)


def _show(record: RunRecord, console: Console, out: Path, *, as_json: bool) -> None:
    from compare.report.pages.run import terminal

    if as_json:
        write(to_json(record))
    else:
        terminal.show(record, console)
    console.print(f"Report: {out / 'report.html'}, report.md, report.json", highlight=False, soft_wrap=True)


def _refuse_without_training(qconfig: Sequence[str] | None) -> None:
    if qconfig:
        raise BridgeError(
            where="--qconfig",
            problem="says what --train trains, and that is missing",
            remedy="Give --train MODULE:FUNCTION.",
        )


def _refuse_mnist_options(**given: object) -> None:
    for name, value in given.items():
        if value not in (None, False, 0):
            raise BridgeError(
                where=f"--{name}",
                problem="is about the MNIST networks, and --model names another",
                remedy="Leave one of the two out.",
            )


def _run_own(
    console: Console,
    prepare: Prepare,
    only: tuple[str, ...],
    toolchains: tuple[str, ...],
    out: Path,
    cache: Path | None,
    limits: tuple[int | None, float],
    *,
    targets: tuple[str, ...],
    as_json: bool,
) -> RunRecord:
    from compare.explaining import attribution, findings
    from compare.run import own
    from compare.toolchains import CURRENT, environments

    started, clock = started_now(), time.perf_counter()
    kept = environments.usable(cache)
    threading.Thread(target=_prepare_charts, daemon=True).start()
    networks: list[NetworkRecord] = []
    artifacts: list[ArtifactRecord] = []
    jobs, seconds = limits
    with staging_folder(out) as staging:
        subject = prepare(staging.resolve() / "model")
        options = own.Options(
            kept, staging.resolve(), jobs or (os.cpu_count() or 1), seconds, only, toolchains or (CURRENT,), targets
        )
        with _progress(console, len(own.plan(subject, options))) as listener:
            for result in own.run(subject, options, listener):
                if isinstance(result, NetworkRecord):
                    networks.append(result)
                else:
                    artifacts.append(result)
        explanations = attribution.explain(artifacts, networks, subject.samples)
        form = next(iter(subject.forms.values()))
        digest = hashlib.sha256(b"".join(array.tobytes() for array in form.inputs.values())).hexdigest()
        record = RunRecord(
            schema_version=SCHEMA_VERSION,
            started=started,
            seconds=time.perf_counter() - clock,
            command=" ".join(["python -m compare.run", *sys.argv[1:]]),
            preset="none",
            settings={},
            versions=_versions(),
            machine=machine(),
            data=DataRecord(
                subject.name, "your own samples", digest, len(next(iter(form.calibration.values()))), subject.samples
            ),
            networks=tuple(networks),
            artifacts=tuple(artifacts),
            findings=findings.findings(artifacts, networks, explanations),
            claims=(),
            explanations=explanations,
            notes=(*subject.notes, *_truth(subject), LATENCIES),
        )
        shutil.rmtree(staging / "work", ignore_errors=True)
        _write(record, staging, out)
    _show(record, console, out, as_json=as_json)
    return record


def _truth(subject: Subject) -> Iterator[str]:
    """What the figure called accuracy is of samples that nobody labelled."""
    if subject.labels is None or not (subject.metric or subject.given.classifies):
        yield "No labels say what is right: accuracy is the share of samples on which a file agrees with your model."


LATENCIES = "Latencies: one thread, batch 1, XNNPACK, this machine; compare rows of one run only."


def _targets(wanted: Sequence[str], *, quick: bool) -> tuple[str, ...]:
    """The ids of the targets, with `quick` those that need no software of others; raises `BridgeError` for one that is not known."""
    from compare import npu

    if "none" in wanted:
        return ()
    if "all" in wanted:
        return tuple(each.id for each in npu.targets())
    if wanted:
        return tuple(npu.target(identity).id for identity in wanted)
    return tuple(each.id for each in npu.by_default() if not quick or each.basis == "rules")


def _prepare_charts() -> None:
    """Import the plotting library while the workers are busy: a second less at the end."""
    with contextlib.suppress(ImportError):  # drawing will say what is missing
        importlib.import_module("matplotlib.figure")


def _notes(networks: list[NetworkRecord], init: Init) -> Iterator[str]:
    """What a reader must know before comparing figures of this run."""
    if init == "separate":
        yield "Each framework trained its own float network: differences between them are also luck."
    elif not any(network.framework == init for network in networks):
        yield f"--init {init} was asked for, but that float network could not be trained; the other framework started on its own."
    yield LATENCIES


@contextmanager
def _progress(console: Console, artifacts: int) -> Iterator[Listener]:
    """Three stages: what trains, what is converted, what is measured."""
    from compare.report.progress import progress
    from compare.run.measuring import Listener

    stages = {"train": None, "convert": artifacts, "measure": artifacts}
    with progress(console, stages, loud=("train", "convert")) as heard:
        yield Listener(heard.started, heard.finished)


def _say_what_there_is(console: Console, networks: list[NetworkRecord], artifacts: list[ArtifactRecord]) -> None:
    console.print("Interrupted: no report was written.")
    for network in networks:
        console.print(f"  {network.id}: {network.accuracy:.2%} (kept in the cache)", highlight=False)
    for artifact in artifacts:
        if artifact.accuracy is not None:
            console.print(f"  {artifact.id}: {artifact.accuracy:.2%}", highlight=False)
    if networks:
        console.print("The next run starts from these networks.")


def _list(console: Console, only: tuple[str, ...] | list[str]) -> None:
    from compare.run import matrix

    for item in matrix.plan(tuple(only)):
        missing = item.route.missing()
        console.print(item.id if missing is None else f"{item.id}  -- {missing}", markup=False, highlight=False)


def _missed(record: RunRecord, fail_under: float | None) -> list[str]:
    if fail_under is None:
        return []
    return [
        f"{artifact.id}: {artifact.accuracy:.2%} is under --fail-under {fail_under:g} %"
        for artifact in record.artifacts
        if artifact.accuracy is not None and artifact.accuracy * 100 < fail_under
    ]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    app()
