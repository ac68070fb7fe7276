"""`python -m compare.sweep`: seeds × networks × presets × routes × toolchains, resumable, on all cores or a cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bridge.errors import BridgeError
from bridge.exit_codes import Program, ends_properly
from bridge.terminal import Terminal
from compare.subjects.options import Inputs, Model, Train, own_model
from compare.subjects.own_training import Training
from compare.sweep.scheduling import WITHOUT_WORKERS_SECONDS

if TYPE_CHECKING:
    from compare.sweep.limits import Finished, Order
    from compare.sweep.plan import Wanted

TASK_SECONDS = 1800

app = Program(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@ends_properly
def main(
    out: Annotated[Path, typer.Option(help="The sweep's folder; one that is there already is gone on with.")] = Path(
        "runs/sweep"
    ),
    seeds: Annotated[str, typer.Option(help="Seeds, as in 0-9 or 0,1,5.")] = "0-9",
    qconfigs: Annotated[
        str, typer.Option(help="qconfigs or networks, as globs with commas; default: all of both frameworks.")
    ] = "",
    presets: Annotated[str, typer.Option(help="Presets, with commas.")] = "default",
    routes: Annotated[str, typer.Option(help="Routes or artifacts, as globs with commas; default: all.")] = "",
    toolchains: Annotated[str, typer.Option(help="Toolchains, as globs with commas.")] = "current",
    models: Annotated[
        str,
        typer.Option(help="'mnist', or your ONNX files as globs with commas, each with its samples (.npz) beside it."),
    ] = "mnist",
    model: Model = None,
    inputs: Inputs = None,
    train: Train = None,
    data: Annotated[
        str | None, typer.Option(help="A folder of IDX files, or 'mnist' to download; default: the embedded sample.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Tasks at a time; default: as cores and memory allow.", min=1)
    ] = None,
    memory_per_job: Annotated[int, typer.Option(help="Memory limit of a task in MB.", min=100)] = 3000,
    time_limit: Annotated[float, typer.Option(help="Time limit of a task in seconds.", min=1)] = TASK_SECONDS,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler: tcp://host:8786.")] = None,
    wait_for_workers: Annotated[
        float, typer.Option(help="Seconds that a Dask cluster may be without a worker before the sweep ends.", min=1)
    ] = WITHOUT_WORKERS_SECONDS,
    cache: Annotated[
        Path | None, typer.Option(help="Where networks and environments are kept, on every machine.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and do nothing.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Summarise what is there, and do nothing else.")] = False,
) -> None:
    """Train and convert many times over, and say what each route costs with confidence intervals over seeds.

    Results are Parquet files that appear as tasks finish: stop it whenever you like, the same command goes on.
    Exit codes: 0 done, 2 wrong usage or input, 130 Ctrl-C.
    """
    console = Terminal()
    try:
        _check_packages()
        if summary:
            _summarise(out, console)
            return
        wanted = _wanted(seeds, qconfigs, presets, routes, toolchains, models)
        if any(each is not None for each in (model, inputs, train)):
            wanted = _with_own(wanted, model, inputs, train)
        orders = _orders(wanted, data, cache, memory_per_job, time_limit)
        if dry_run:
            _say_plan(orders, out, console)
            return
        _sweep(orders, out, jobs, memory_per_job, dask, console, wait_for_workers)
        _summarise(out, console)
    except KeyboardInterrupt:
        Terminal(stderr=True).print(
            "Interrupted. Every finished task is kept; the same command goes on with the others."
        )
        raise


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("joblib", "distributed", "pyarrow", "psutil", "scipy") if find_spec(name) is None]
    if missing:
        raise BridgeError(
            where="compare.sweep",
            problem=f"needs {', '.join(missing)}, not installed",
            remedy="pip install '.[torch,keras,onnx2tf,report,sweep]'",
        )


def _wanted(seeds: str, qconfigs: str, presets: str, routes: str, toolchains: str, models: str) -> Wanted:
    from compare.sweep.plan import Wanted

    return Wanted(
        seeds=_numbers(seeds),
        networks=_parts(qconfigs),
        presets=_parts(presets),  # type: ignore[arg-type]  # plan.tasks refuses what is none
        routes=_parts(routes),
        toolchains=_parts(toolchains),
        models=_parts(models),
    )


def _with_own(wanted: Wanted, model: str | None, inputs: Path | None, train: str | None) -> Wanted:
    """A team's own model instead of those of --models; raises `BridgeError` where the two options, or the loop, do not fit."""
    own_model(model, inputs, training=None if train is None else Training(train, wanted.networks))
    if wanted.models != ("mnist",):
        raise BridgeError(where="--models, --model", problem="both name models", remedy="Leave one of the two out.")
    return replace(wanted, model=model or "", inputs=str((inputs or Path()).resolve()), train=train or "")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    """`0-3,7` as 0, 1, 2, 3, 7; raises `BridgeError` for anything else."""
    found: list[int] = []
    for part in _parts(text):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise BridgeError(
                where=f"--seeds {text}",
                problem=f"'{part}' is no seed",
                remedy="For example: --seeds 0-9 or --seeds 0,1,5",
            )
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not found:
        raise BridgeError(where="--seeds", problem="names no seed", remedy="For example: --seeds 0-9")
    return tuple(dict.fromkeys(found))


def _orders(wanted: Wanted, data: str | None, cache: Path | None, megabytes: int, seconds: float) -> list[Order]:
    from compare.subjects.mnist import dataset
    from compare.sweep import own, own_trained
    from compare.sweep.limits import Order
    from compare.sweep.plan import MNIST, made_with, tasks
    from compare.toolchains import environments

    kept = environments.usable(cache)
    planned = tasks(wanted)

    def own_digest(model: str, inputs: str, train: str) -> str:
        return own_trained.digest(model, train, Path(inputs)) if train else own.digest(Path(model), inputs)

    digests = {
        key: dataset.load(data, cache=kept).digest if key[0] == MNIST else own_digest(*key)
        for key in dict.fromkeys((task.model, task.inputs, task.train) for task in planned)
    }
    place = data if data in (None, "mnist") else str(Path(data).resolve())
    return [
        Order(task, task.identity(digest), place, digest, kept, made_with(), seconds, megabytes)
        for task in planned
        for digest in (digests[task.model, task.inputs, task.train],)
    ]


def _say_plan(orders: Sequence[Order], out: Path, console: Console) -> None:
    from compare.sweep import store

    there = store.done(out) if (out / store.MARKER).exists() else {}
    todo = [order for order in orders if order.identity not in there]
    rows = sum(len(order.task.artifacts) for order in orders)
    console.print(f"{len(orders)} tasks, {rows} rows; {len(orders) - len(todo)} tasks are done, {len(todo)} to do")
    for order in todo:
        console.print(f"  {order.task.label}: {len(order.task.artifacts)} artifacts", markup=False)


def _sweep(
    orders: Sequence[Order],
    out: Path,
    jobs: int | None,
    megabytes: int,
    dask: str | None,
    console: Console,
    patience: float = WITHOUT_WORKERS_SECONDS,
) -> None:
    from compare.sweep import scheduling, store

    with store.opened(out):
        there = store.done(out)
        todo = [order for order in orders if order.identity not in there]
        if len(todo) < len(orders):
            console.print(f"{len(orders) - len(todo)} of {len(orders)} tasks are done already")
        if not todo:
            return
        with _progress(console, len(orders), len(orders) - len(todo)) as heard:
            at_once = jobs or scheduling.jobs_that_fit(megabytes)
            for finished in scheduling.carry_out(todo, at_once, dask, patience=patience):
                store.add(out, finished)
                heard(finished)


def _summarise(out: Path, console: Console) -> None:
    from compare.report.pages import sweep as page
    from compare.report.records.sweep import to_json
    from compare.sweep import store
    from compare.sweep.summary import summarise

    table = store.read(out)
    if not table.num_rows:
        console.print(f"{out} holds no result yet.")
        return
    digest, found = store.figures_digest(table), summarise(table.to_pylist())
    try:
        (out / "summary.json").write_text(to_json(found, digest))
        (out / "summary.md").write_text(page.render(found, digest))
    except OSError as error:
        console.print(f"summary.json and summary.md cannot be written: {error.strerror}", style="yellow")
    page.show(found, digest, console)
    console.print(f"Rows: {out / 'rows'} (Parquet); summary.md, summary.json", soft_wrap=True)


@contextmanager
def _progress(console: Console, total: int, done: int) -> Iterator[Callable[[Finished], None]]:
    """A bar, the time that is left, and a line for every task that failed."""
    bar = Progress(
        TextColumn("tasks"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False),
        console=console,
        transient=not console.is_terminal,
    )
    task = bar.add_task("", total=total, completed=done, now="")

    def heard(finished: Finished) -> None:
        label = finished.order.task.label
        bar.update(task, advance=1, now=f"{label}: {finished.seconds:.0f} s, {finished.peak_bytes / 1e6:,.0f} MB")
        if finished.problem is not None:
            bar.console.print(f"{label}: {finished.problem}"[:300], markup=False, style="yellow", soft_wrap=True)

    with bar:
        yield heard


if __name__ == "__main__":
    app()
