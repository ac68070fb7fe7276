"""How a sweep grows, survives and would fill a hundred machines: `python -m benchmarks.sweep`, about twenty minutes.

Real tasks (preset quick, one qconfig, every route), each measurement with a cache of its own. Prints Markdown.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from compare.sweep import store
from compare.sweep.limits import Finished, Order
from compare.sweep.plan import Wanted, made_with, tasks

SIZES = (2, 4, 8)
KILLS = 5
TRIVIAL = 2_000
JOBS, MACHINES, CORES = 10_000, 100, 2
LINK = 125e6
"""Bytes per second of a gigabit line."""


def command(folder: Path, seeds: int, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "compare.sweep", "--seeds", f"0-{seeds - 1}", "--presets", "quick", "--qconfigs", "qnnpack",
        "--out", str(folder / "sweep"), "--cache", str(folder / "cache"), *options,
    ]  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A scheduler and two workers with one thread each, started as anybody would."""
    address = "tcp://127.0.0.1:8798"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = str(Path(sys.executable).parent / "dask")
    parts = [[dask, "scheduler", "--host", "127.0.0.1", "--port", "8798", "--dashboard-address", ":0"]]
    parts += [
        [dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / f"worker-{i}")]
        for i in range(2)
    ]
    started = []
    try:
        for part in parts:
            started.append(subprocess.Popen(part, **quiet))  # type: ignore[call-overload]  # noqa: S603
            time.sleep(4)
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def timed(folder: Path, seeds: int, *options: str) -> tuple[float, str]:
    """Seconds, and the digest of the figures."""
    started = time.perf_counter()
    subprocess.run(command(folder, seeds, *options), check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - started, store.figures_digest(store.read(folder / "sweep"))


def growth(work: Path) -> dict[int, str]:
    """Time by number of tasks and by what carries them out; the digests by number of tasks."""
    digests: dict[int, str] = {}
    print(
        "| tasks | 1 process, s | 2 processes, s | Dask, 2 workers, s | 1 / 2 processes | 1 process / Dask | figures |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for size in SIZES:
        one, first = timed(work / f"one-{size}", size, "--jobs", "1")
        two, second = timed(work / f"two-{size}", size, "--jobs", "2")
        with cluster(work / f"dask-{size}") as address:
            dask, third = timed(work / f"dask-{size}", size, "--dask", address)
        same = "equal" if first == second == third else "DIFFERENT"
        print(
            f"| {size} | {one:.0f} | {two:.0f} | {dask:.0f} | {one / two:.2f} | {one / dask:.2f} | {same} |", flush=True
        )
        digests[size] = first
    return digests


def killed(work: Path, undisturbed: str) -> None:
    """Kill the sweep of the largest size at random moments, go on each time, and compare the figures."""
    folder, moments = work / "killed", random.Random(1)  # noqa: S311 - always the same moments
    print("\n| kill -9 after, s | tasks kept |\n| ---: | ---: |")
    for _ in range(KILLS):
        process = subprocess.Popen(  # noqa: S603
            command(folder, SIZES[-1], "--jobs", "2"), start_new_session=True, stdout=subprocess.DEVNULL
        )
        wait = moments.uniform(16, 32)
        time.sleep(wait)
        if process.poll() is not None:
            raise RuntimeError("it was done before it could be killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"| {wait:.1f} | {len(store.done(folder / 'sweep'))} of {SIZES[-1]} |", flush=True)
    subprocess.run(command(folder, SIZES[-1], "--jobs", "2"), check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    digest = store.figures_digest(store.read(folder / "sweep"))
    print(
        f"\nFigures after the last resume: `{digest}`, undisturbed: `{undisturbed}`: {'equal' if digest == undisturbed else 'DIFFERENT'}."
    )


def nothing(order: Order) -> Finished:
    """What a worker hands back, without any work."""
    return Finished(order, ({"artifact": order.task.artifacts[0]},) * len(order.task.artifacts), None, 0.0, 0, "host")


def overhead(work: Path, order: Order) -> float:
    """Seconds that scheduler and client need for each task that does nothing, two workers being there."""
    import cloudpickle
    from distributed import LocalCluster

    from compare.sweep.scheduling import carry_out

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    orders = [replace(order, identity=f"{index:024}") for index in range(TRIVIAL)]
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", local_directory=str(work)
    ) as running:
        started = time.perf_counter()
        count = sum(1 for _ in carry_out(orders, 1, running.scheduler_address, do=nothing))
    return (time.perf_counter() - started) / count


def estimate(work: Path) -> None:
    """Ten thousand jobs on a hundred machines, on paper, from what was measured here."""
    folder = work / f"one-{SIZES[-1]}" / "sweep"
    rows = store.read(folder).to_pylist()
    seconds = statistics.mean({row["task"]: row["task_seconds"] for row in rows}.values())
    peak = max(row["peak_bytes"] for row in rows)
    part = statistics.mean(path.stat().st_size for path in (folder / "rows").iterdir())
    task = tasks(Wanted(seeds=(0,), networks=("qnnpack",), presets=("quick",)))[0]
    order = Order(task, "0" * 24, None, "0" * 64, Path("cache"), made_with(), 1800, 3000)
    own = [row for row in rows if row["task"] == rows[0]["task"]]
    finished = Finished(order, tuple(own), None, 1.0, 1, "host")
    sent, returned = len(pickle.dumps(order)), len(pickle.dumps(finished))
    each = overhead(work, order)
    started = time.perf_counter()
    with store.opened(work / "writing"):
        for index in range(200):
            store.add(work / "writing", replace(finished, order=replace(order, identity=f"{index:024}")))
    writing = (time.perf_counter() - started) / 200
    started = time.perf_counter()
    store.figures_digest(store.read(work / "writing"))
    reading = (time.perf_counter() - started) / 200
    computing = JOBS * seconds / (MACHINES * CORES)
    central = JOBS * (each + writing)
    print(f"\n| measured | |\n| --- | ---: |\n| a task | {seconds:.1f} s on one core, at most {peak / 1e6:,.0f} MB |")
    print(f"| sent to a worker, returned | {sent:,} bytes, {returned:,} bytes |\n| its part file | {part:,.0f} bytes |")
    print(
        f"| scheduler and client for a task | {1e3 * each:.1f} ms |\n| writing a part file, with fsync | {1e3 * writing:.1f} ms |\n"
        f"| reading it again, to go on or to summarise | {1e3 * reading:.1f} ms |"
    )
    print(f"\n| {JOBS:,} jobs on {MACHINES} machines with {CORES} cores, on paper | |\n| --- | ---: |")
    print(
        f"| computing | {computing / 60:.1f} min |\n| scheduler, client and disk, one after the other | {central:.0f} s |"
    )
    print(
        f"| network at the client | {JOBS * (sent + returned) / 1e6:.0f} MB in all, {JOBS * (sent + returned) / computing / 1e3:.0f} kB/s |"
    )
    print(f"| data set | {JOBS * part / 1e6:.0f} MB in {JOBS:,} files |")
    print(f"| the client is busy | {central / computing:.1%} of the time |")
    print(f"| reading all of it to go on after a stop | {JOBS * reading:.0f} s |")
    print(
        f"| saturates first: the client, which takes in and writes one result after the other, at | {seconds / (each + writing):,.0f} cores |"
    )
    print(f"| then the scheduler's own work, at | {seconds / each:,.0f} cores |")
    print(f"| then the client's gigabit line, at | {seconds * LINK / (sent + returned):,.0f} cores |")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        digests = growth(work)
        killed(work, digests[SIZES[-1]])
        estimate(work)


if __name__ == "__main__":
    main()
