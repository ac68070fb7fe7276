"""`python -m compare.versions`: the same routes under many toolchains, every file on many runtimes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bridge.errors import BridgeError
from bridge.exit_codes import Program, ends_properly
from bridge.terminal import Terminal, write
from compare.running.machine import machine, started_now
from compare.running.staging import staging_folder
from compare.subjects.mnist.settings import PresetName
from compare.subjects.options import DataSet, Inputs, Metric, Model, own_model, refuse_old

if TYPE_CHECKING:
    from compare.report.records.versions import VersionsRecord
    from compare.subjects.model import Subject
    from compare.subjects.options import Prepare
    from compare.versions.matrix import Listener


app = Program(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@ends_properly
def main(
    toolchains: Annotated[
        list[str] | None, typer.Option(help="Toolchains, as globs; may be repeated. Default: all.")
    ] = None,
    routes: Annotated[list[str] | None, typer.Option(help="Routes, as globs; may be repeated. Default: all.")] = None,
    model: Model = None,
    inputs: Inputs = None,
    dataset: DataSet = None,
    metric: Metric = None,
    onnx: Annotated[str | None, typer.Option(hidden=True)] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Judge every file for this NPU too, and recommend a set for it.")
    ] = None,
    qconfig: Annotated[str, typer.Option(help="qconfig of the PyTorch QAT network.")] = "qnnpack",
    data: Annotated[str | None, typer.Option(help="MNIST as for compare.run; default: the embedded sample.")] = None,
    preset: Annotated[PresetName, typer.Option(help="How long to train.")] = "default",
    seed: Annotated[int, typer.Option(help="Decides initial weights and the order of the images.", min=0)] = 0,
    max_changed: Annotated[
        float, typer.Option(help="Percent of the samples that may change class in a clean file.", min=0, max=100)
    ] = 1.0,
    out: Annotated[Path | None, typer.Option(help="New folder for the report; default: runs/ and the time.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where environments and networks are kept between runs.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes at a time; default: one for each core.", min=1)] = None,
    seconds: Annotated[float, typer.Option(help="Time limit of one conversion.", min=1)] = 600,
    producers: Annotated[
        bool, typer.Option("--producers", help="Whose quantization survives: other tools' files, every converter.")
    ] = False,
    list_them: Annotated[bool, typer.Option("--list", help="List toolchains, what is built and its size.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove environments that no toolchain uses.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print versions.json to stdout; progress to stderr.")] = False,
) -> None:
    """Run the same routes under pinned toolchains, each in its own environment, and say which combinations hold.

    Environments are built once, by uv, into the cache folder. Exit codes: 0 done, 2 wrong usage or input, 130 Ctrl-C.
    """
    from compare.toolchains import environments

    console = Terminal(stderr=json)
    kept = environments.usable(cache, to_write=not (list_them or prune))
    folder = out or Path("runs") / time.strftime("versions-%Y%m%d-%H%M%S")
    try:
        if list_them or prune:
            _keep_house(console, kept, toolchains or (), prune=prune)
            return
        if producers:
            _producers(console, tuple(toolchains or ()), out, kept, jobs, seconds, as_json=json)
            return
        refuse_old("--onnx", onnx, "--model")
        own = any(each is not None for each in (model, inputs, dataset, metric))
        prepare = own_model(model, inputs, dataset, metric) if own else _mnist(data, preset, seed, qconfig, kept)
        with _progress(console) as listener:
            record = _run(
                prepare, tuple(toolchains or ()), tuple(routes or ()), _targets(target or (), kept), max_changed / 100,
                folder, kept, jobs, seconds, listener,
            )  # fmt: skip
    except KeyboardInterrupt:
        Terminal(stderr=True).print("Interrupted: no report was written. Environments that were built stay.")
        raise
    from compare.report.pages.versions import terminal
    from compare.report.records.versions import to_json

    if json:
        write(to_json(record))
    else:
        terminal.show(record, console)
    console.print(f"Report: {folder / 'versions.html'}, versions.md, versions.json", soft_wrap=True)


def _producers(
    console: Console,
    globs: Sequence[str],
    out: Path | None,
    cache: Path,
    jobs: int | None,
    seconds: float,
    *,
    as_json: bool,
) -> None:
    """Have every producer quantize the same networks, and every converter take what came of it."""
    from compare.report.pages import producers as page
    from compare.report.records.producers import SCHEMA_VERSION, ProducersRecord, to_json
    from compare.toolchains import producers
    from compare.versions import matrix
    from compare.versions.producers import measuring, subjects

    chosen = producers.matching(globs)
    folder = out or Path("runs") / time.strftime("producers-%Y%m%d-%H%M%S")
    started, clock = started_now(), time.perf_counter()
    with staging_folder(folder) as staging:
        networks = subjects.written(staging / "work" / "networks")
        options = measuring.Options(cache, staging.resolve(), jobs or matrix.default_jobs(), seconds)

        def heard(step: str, problem: str | None) -> None:
            said = f"{step}: {problem}"[:300] if problem else step
            console.print(said, style="yellow" if problem else "dim", markup=False, soft_wrap=True)

        built, produced = measuring.measure(chosen, networks, options, heard)
        record = ProducersRecord(
            SCHEMA_VERSION, started, time.perf_counter() - clock,
            " ".join(["python -m compare.versions", *sys.argv[1:]]), subjects.SAMPLES, machine(),
            {each.name: each.about for each in measuring.CONVERTERS}, built, produced,
        )  # fmt: skip
        shutil.rmtree(staging / "work")
        (staging / "producers.json").write_text(to_json(record))
        (staging / "producers.md").write_text(page.render(record))
        staging.rename(folder)
    if as_json:
        write(to_json(record))
    console.print(f"Report: {folder / 'producers.md'}, producers.json", soft_wrap=True)


def _run(
    prepare: Prepare,
    toolchain_globs: Sequence[str],
    route_globs: Sequence[str],
    targets: tuple[str, ...],
    max_changed: float,
    out: Path,
    cache: Path,
    jobs: int | None,
    seconds: float,
    listener: Listener,
) -> VersionsRecord:
    from compare import toolchains
    from compare.measuring.scoring import scoring
    from compare.report.pages.versions import html, markdown
    from compare.report.records.versions import SCHEMA_VERSION, RouteRecord, VersionsRecord, to_json
    from compare.routes import registry
    from compare.versions import matrix
    from compare.versions.recommending import recommend

    started, clock = started_now(), time.perf_counter()
    chosen = toolchains.matching(toolchain_globs)
    everything = [route.form for route in registry.ROUTES]
    registry.matching(route_globs, everything)  # a wrong name is said before any training
    with staging_folder(out) as staging:
        listener.expect("train", 1)
        subject = prepare(staging / "model")
        listener.done("train", subject.name, None)
        going = registry.matching(route_globs, tuple(subject.kinds.values()))
        options = matrix.Options(cache, staging.resolve(), jobs or matrix.default_jobs(), seconds, max_changed, targets)
        built, cells, runtimes = matrix.run(chosen, going, subject, options, listener)
        with scoring(subject) as score:
            accuracies = {form.kind: score(form.expected, form) for form in subject.forms.values()}
        broken = sorted(matrix.broken_runtimes(cells))
        record = VersionsRecord(
            schema_version=SCHEMA_VERSION,
            started=started,
            seconds=time.perf_counter() - clock,
            command=" ".join(["python -m compare.versions", *sys.argv[1:]]),
            model=subject.name,
            samples=subject.samples,
            machine=machine(),
            max_changed=max_changed,
            toolchains=built,
            runtimes=runtimes,
            routes=tuple(RouteRecord(each.name, each.framework, each.about, accuracies[each.form]) for each in going),
            cells=cells,
            recommendations=recommend(cells, built, {each.name: each.framework for each in going}, targets),
            notes=(
                *subject.notes,
                *(f"Runtime '{each}' runs none of the files; no file's status counts it." for each in broken),
            ),
        )
        shutil.rmtree(staging / "work")
        (staging / "versions.json").write_text(to_json(record))
        (staging / "versions.md").write_text(markdown.render(record))
        (staging / "versions.html").write_text(html.render(record))
        staging.rename(out)
    return record


def _mnist(data: str | None, preset_name: PresetName, seed: int, qconfig: str, cache: Path) -> Prepare:
    def prepare(folder: Path) -> Subject:
        from compare.subjects.mnist import dataset, settings
        from compare.subjects.mnist import forms as mnist
        from compare.subjects.mnist.networks import NETWORKS

        known = [spec.variant for spec in NETWORKS if spec.framework == "torch" and spec.kind == "qat"]
        if qconfig not in known:
            raise BridgeError(
                where=f"--qconfig {qconfig}", problem="is not known", remedy=f"There are: {', '.join(known)}."
            )
        trained_as = settings.preset(preset_name, seed=seed, init="torch")
        return mnist.prepare(dataset.load(data, cache=cache), trained_as, qconfig, cache / "networks", folder)

    return prepare


def _targets(wanted: Sequence[str], cache: Path) -> tuple[str, ...]:
    """The ids of the targets, their software ready; raises `BridgeError` for one that is not known or not to be had."""
    from compare import npu
    from compare.npu.placing import prepare

    chosen = [each.id for each in npu.targets()] if "all" in wanted else [npu.target(each).id for each in wanted]
    for identity in chosen:
        prepare(identity, cache)
    return tuple(chosen)


def _keep_house(console: Console, cache: Path, globs: Sequence[str], *, prune: bool) -> None:
    """Show what is built, or remove what nothing uses any more."""
    from compare import npu, toolchains
    from compare.toolchains import environments, producers

    chosen = toolchains.matching(globs)
    built = {each.folder: each for each in environments.kept(cache)}
    if prune:
        pinned = [environment for each in toolchains.toolchains() if (environment := each.environment()) is not None]
        pinned += [each.environment() for each in producers.producers()]
        removed = environments.prune([*pinned, *npu.environments()], cache)
        for each in removed:
            console.print(f"removed {each.folder.name} ({_mb(each.bytes)})", markup=False)
        console.print(
            f"{len(removed)} removed; {cache} now takes {_mb(environments.disk_bytes(cache))}", soft_wrap=True
        )
        return
    for toolchain in chosen:
        environment = toolchain.environment()
        found = None if environment is None else built.get(environment.folder(cache))
        size = "" if environment is None else _mb(found.bytes) if found and found.complete else "not built"
        head = f"{toolchain.id:<30}{toolchain.as_of or 'today':<12}Python {toolchain.python or 'as here':<9}{size:>10}"
        parts = [toolchain.about, f"makes: {', '.join(toolchain.routes)}" if toolchain.routes else ""]
        parts += [f"runs files: {toolchain.runtime}" if toolchain.runtime else ""]
        console.print(head, markup=False)
        console.print(f"  {'; '.join(part for part in parts if part)}", style="dim", markup=False)
    for producer in producers.producers() if not globs else ():
        found = built.get(producer.environment().folder(cache))
        size = _mb(found.bytes) if found and found.complete else "not built"
        head = f"{producer.id:<30}{producer.as_of:<12}Python {producer.python:<9}{size:>10}"
        console.print(head, markup=False)
        console.print(f"  {producer.about}; producer: {', '.join(producer.recipes)}", style="dim", markup=False)
    console.print(f"{cache}: {_mb(environments.disk_bytes(cache))} on the disk, wheels included", soft_wrap=True)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


@contextmanager
def _progress(console: Console) -> Iterator[Listener]:
    """Four stages; what goes wrong is said as it happens."""
    from compare.report.progress import progress
    from compare.versions.matrix import Listener

    stages = dict.fromkeys(("train", "build", "make", "run"))
    with progress(console, stages, loud=("build", "make")) as heard:
        yield Listener(heard.expect, lambda stage, label, problem: heard.finished(stage, label, problem, "", None))


if __name__ == "__main__":
    app()
