"""The exact bridge's files on emulated Cortex-A53, A55 and A72, held against x86: python -m benchmarks.arm

Prints a page of Markdown (docs/arm.md is one); exit code 1 where something differs that the page does not explain, 2
where the machine cannot be had. Options: --images, --quick, --photos, --graphs, --seed, --cores, --cache, --work, --write.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.arm import box_filter, networks
from benchmarks.arm.crafted import files
from benchmarks.arm.jobs import Jobs
from benchmarks.arm.machine import CORES, Core, ready
from benchmarks.arm.page import Figures, page, unexplained
from bridge.errors import BridgeError
from bridge.exact.pair_sums import with_weights
from bridge.exact.writer import write
from compare.toolchains.environments import cache_folder

KERNEL_SETS = ("xnnpack", "builtin", "reference")


def collect(jobs: Jobs, found: Iterable[networks.Network], seed: int) -> Figures:
    """Every file that is to be run, written into the folder of the jobs."""
    figures = Figures()
    for network in found:
        if not network.name.startswith("drawn"):
            _say(network.name)
        name = jobs.add(write(network.graph), network.inputs)
        figures.networks.append((network.name, network.graph, name))
        # Large networks repeat themselves: of operators with equal shapes one is run alone, on one image.
        small = network.name.startswith("drawn")
        for alone in networks.operators(network, None if small else 1, repeated=small):
            figures.operators.append((alone.op, jobs.add(alone.tflite, alone.inputs)))
    for crafted in files(seed):
        trained = jobs.add(write(crafted.graph), crafted.inputs, KERNEL_SETS)
        safe = jobs.add(write(with_weights("safe", crafted.graph)), crafted.inputs, KERNEL_SETS)
        figures.crafted.append((crafted.op, trained, safe))
    add_box_filter(jobs, figures, seed)
    return figures


def add_box_filter(jobs: Jobs, figures: Figures, seed: int) -> None:
    """The network of box_filter.py, as it was trained and made safe."""
    _say("the box filter")
    network, photos = box_filter.trained(seed), box_filter.images(16, seed + 1000)
    for weights in ("safe", "keep"):
        fed, expected, graph = box_filter.codes(network, weights, photos)
        figures.box_filter.append((weights, jobs.add(write(graph), fed), expected))


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _cores(names: str) -> list[Core]:
    unknown = [name for name in names.split(",") if name not in CORES]
    if unknown:
        raise BridgeError(
            where=f"--cores {names}",
            problem=f"has '{unknown[0]}', which is not described here",
            remedy=f"Choose among {','.join(CORES)}, separated by commas.",
        )
    return [CORES[name] for name in names.split(",")]


def main(
    images: Annotated[int, typer.Option(min=0, help="MNIST images for each file; 0 leaves them out.")] = 100,
    quick: Annotated[bool, typer.Option("--quick", help="MNIST networks of `compare.run --quick`.")] = False,
    photos: Annotated[int, typer.Option(min=0, help="Images for each torchvision network; 0 leaves them out.")] = 2,
    graphs: Annotated[int, typer.Option(min=0, help="Drawn graphs.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the drawn graphs and the crafted files.")] = 0,
    cores: Annotated[str, typer.Option(help="Which cores, separated by commas.")] = ",".join(CORES),
    cache: Annotated[Path | None, typer.Option(help="Where the emulated machine is kept.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Longest time for one core.")] = 7200,
    work: Annotated[
        Path | None, typer.Option(help="Keep files and outputs here, and go on where an earlier run stopped.")
    ] = None,
    write_to: Annotated[Path | None, typer.Option("--write", help="The page to write: docs/arm.md.")] = None,
) -> None:
    """Run everything on x86 and on each core, and print the page."""
    try:
        chosen = _cores(cores)
        asked = (
            f"{'--quick ' * quick}--images {images} --photos {photos} --graphs {graphs} --seed {seed} --cores {cores}"
        )
        machine = ready(cache or cache_folder())
        started = time.perf_counter()
        with _folder(work) as folder:
            jobs = Jobs(folder)
            found = (
                networks.mnist(images, "quick" if quick else "default"),
                networks.torchvision(photos),
                networks.drawn(seed, graphs),
            )
            figures = collect(jobs, chain.from_iterable(found), seed)
            _say(f"{len(jobs.names):,} files on x86")
            jobs.run_here(seconds)
            _say(f"{len(jobs.names):,} files on {', '.join(core.name for core in chosen)}")
            jobs.run_on(machine, chosen, seconds)
            _say(f"done in {(time.perf_counter() - started) / 60:.0f} minutes")
            text = page(figures, jobs, chosen, machine.about(), asked)
            wrong = unexplained(figures, jobs, chosen)
    except BridgeError as error:
        print(str(error), file=sys.stderr)
        raise typer.Exit(2) from None
    if write_to is not None:
        write_to.write_text(text)
    print(text)
    for line in wrong:
        print(line, file=sys.stderr)
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
