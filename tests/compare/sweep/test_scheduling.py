"""Orders on local processes and on a real Dask cluster: a worker that dies costs time and nothing else."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.core import Status

from bridge.errors import BridgeError
from compare.sweep.limits import Finished, Order
from compare.sweep.scheduling import carry_out, jobs_that_fit
from tests.compare.sweep.stand_ins import answers, asked, order


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes with one thread each, as two machines would be."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as running:
        yield running


@contextlib.contextmanager
def by_value() -> Iterator[None]:
    """This module's functions travel to the workers, which cannot import it."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def orders(folder: Path, count: int, seconds: float = 0.3) -> list[Order]:
    return [order(answers(folder, seconds), seed) for seed in range(count)]


def collected(found: Iterator[Finished], after_first: Any = None) -> list[str]:
    """The identities in the order they were done; `after_first` is called when the first one is there."""
    identities = []
    for finished in found:
        assert finished.problem is None
        identities.append(finished.order.identity)
        if after_first is not None and len(identities) == 1:
            after_first()
    return identities


def test_every_order_is_done_once_on_local_processes(tmp_path: Path) -> None:
    todo = orders(tmp_path, 5, seconds=0)
    assert sorted(collected(carry_out(todo, 2))) == [each.identity for each in todo]
    assert len(asked(tmp_path)) == 5


def test_a_local_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    def kill_one() -> None:
        workers = [each for each in psutil.Process().children() if "popen_loky" in " ".join(each.cmdline())]
        workers[0].send_signal(signal.SIGKILL)

    todo = orders(tmp_path, 8)
    assert sorted(collected(carry_out(todo, 2), kill_one)) == [each.identity for each in todo]


def test_every_order_is_done_once_on_a_cluster(tmp_path: Path, cluster: LocalCluster) -> None:
    todo = orders(tmp_path, 5, seconds=0)
    found = carry_out(todo, 1, cluster.scheduler_address)
    assert sorted(collected(found)) == [each.identity for each in todo]
    assert len(asked(tmp_path)) == 5


def signed(given: Order) -> Finished:
    """Takes a moment, and says which process did it."""
    time.sleep(0.2)
    return Finished(given, (), None, 0.0, 0, str(os.getpid()))


def test_the_clusters_processes_share_the_work(tmp_path: Path, cluster: LocalCluster) -> None:
    with by_value():
        done = list(carry_out(orders(tmp_path, 6), 1, cluster.scheduler_address, do=signed))
    assert len({finished.host for finished in done} - {str(os.getpid())}) == 2


def test_a_worker_of_the_cluster_that_is_killed_loses_nothing(tmp_path: Path, cluster: LocalCluster) -> None:
    def kill_one() -> None:
        with Client(cluster.scheduler_address, set_as_default=False) as client:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    todo = orders(tmp_path, 8)
    found = collected(carry_out(todo, 1, cluster.scheduler_address), kill_one)
    assert sorted(found) == [each.identity for each in todo]
    # What the dead worker had in hand is done again, and what it had done and not yet handed over; not all of it.
    assert 8 <= len(asked(tmp_path)) < 16


class Processes:
    """A cluster of processes of its own: a scheduler, and workers that nobody starts again but `keep`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = ["--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard"]
        self._ended = threading.Event()
        self._keepers: list[threading.Thread] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", kind, *self._place, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ
            | {"PYTHONPATH": str(Path(__file__).parents[3]), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"},
        )

    def worker(self) -> subprocess.Popen[bytes]:
        """One more, without a nanny and without an eye on its memory."""
        plain = ("--no-nanny", "--memory-limit", "0", "--nthreads", "1", "--local-directory", str(self._folder))
        started = self._start("worker", *plain)
        self.workers.append(started)
        return started

    def keep(self, count: int) -> None:
        """So many workers, each started anew whenever it dies, however long that takes."""

        def again() -> None:
            while not self._ended.is_set():
                self.worker().wait()

        self._keepers = [threading.Thread(target=again) for _ in range(count)]
        for keeper in self._keepers:
            keeper.start()

    def address(self, workers: int = 1) -> str:
        """As soon as so many workers are there; the test's own limit ends the wait."""
        with Client(scheduler_file=str(self._folder / "scheduler.json"), set_as_default=False, timeout=LONG) as client:
            client.wait_for_workers(workers, timeout=LONG)
        found: str = json.loads((self._folder / "scheduler.json").read_text())["address"]
        return found

    def end(self) -> None:
        self._ended.set()
        for process in (self.scheduler, *self.workers):
            process.kill()
        for keeper in self._keepers:
            keeper.join()
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()


LONG = 600
"""Seconds for what takes one on an idle machine, and a minute on a busy one."""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    try:
        yield started
    finally:
        started.end()


def deadly(given: Order) -> Finished:
    os._exit(1) if given.task.seed == 1 else None
    return Finished(given, (), None, 0.0, 0, "")


def test_an_order_that_kills_every_worker_is_given_up_and_the_others_are_done(
    tmp_path: Path, processes: Processes
) -> None:
    processes.keep(2)
    with by_value():
        found = {
            finished.order.task.seed: finished.problem
            for finished in carry_out(orders(tmp_path, 3), 1, processes.address(), do=deadly, patience=LONG)
        }
    assert found[0] is found[2] is None
    assert "given up by the cluster" in str(found[1])


def after_the_first(given: Order) -> Finished:
    """The first order at once; the others when a file is there that their program names."""
    while given.task.seed and not Path(given.program[0]).exists():
        time.sleep(0.05)
    return Finished(given, (), None, 0.0, 0, "")


def held(folder: Path, count: int, seconds: float = 30) -> tuple[list[Order], Path]:
    """Orders of which all but the first wait for a file."""
    gate = folder / "gate"
    return [order((str(gate),), seed, seconds=seconds) for seed in range(count)], gate


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compare.sweep.scheduling.LOOK_EVERY_SECONDS", 0.1)


@pytest.mark.usefixtures("quick_looks")
def test_a_cluster_whose_last_worker_is_gone_ends_the_sweep_with_what_to_do(
    tmp_path: Path, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="compare.sweep")
    worker = processes.worker()
    todo, _ = held(tmp_path, 3)
    with by_value():
        found = carry_out(todo, 1, processes.address(), do=after_the_first, patience=1)
        assert next(found).order == todo[0]
        worker.kill()
        with pytest.raises(
            BridgeError, match=r"no worker that takes tasks for 1 s, 2 of 3 tasks were not done"
        ) as caught:
            list(found)
    assert "Start workers (dask worker tcp://" in caught.value.remedy
    assert "same command again" in caught.value.remedy
    assert "waiting 1 s for one" in caplog.text


@pytest.mark.usefixtures("quick_looks")
def test_a_worker_that_comes_back_goes_on(
    tmp_path: Path, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="compare.sweep")
    todo, gate = held(tmp_path, 4)

    class ComesBack(logging.Handler):
        """A new worker as soon as the sweep says that it has none."""

        def emit(self, record: logging.LogRecord) -> None:
            assert "has no worker" in record.getMessage()
            gate.touch()
            processes.worker()

    worker, handler = processes.worker(), ComesBack()
    logging.getLogger("compare.sweep").addHandler(handler)
    try:
        with by_value():
            found = carry_out(todo, 1, processes.address(), do=after_the_first, patience=LONG)
            first = next(found)
            worker.kill()
            done = [first, *found]
    finally:
        logging.getLogger("compare.sweep").removeHandler(handler)
    assert {finished.order.identity for finished in done} == {each.identity for each in todo}
    assert all(finished.problem is None for finished in done)


def paused(dask_worker: Any) -> None:
    """As Dask does when a worker's memory is full."""
    dask_worker.status = Status.paused


@pytest.mark.usefixtures("quick_looks")
def test_workers_that_are_paused_for_longer_than_any_task_takes_are_none(tmp_path: Path, processes: Processes) -> None:
    processes.worker()
    todo, gate = held(tmp_path, 3, seconds=1)
    with by_value():
        address = processes.address()
        found = carry_out(todo, 1, address, do=after_the_first, patience=0.5)
        next(found)
        with Client(address, set_as_default=False, timeout=LONG) as client:
            client.run(paused)
        with pytest.raises(BridgeError, match=r"no worker that takes tasks for 1\.5 s, 2 of 3 tasks"):
            list(found)
    gate.touch()


@pytest.mark.usefixtures("quick_looks")
def test_a_scheduler_that_does_not_answer_ends_the_sweep(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.worker()
    todo, _ = held(tmp_path, 3)
    with by_value():
        found = carry_out(todo, 1, processes.address(), do=after_the_first, patience=1)
        next(found)
        processes.scheduler.send_signal(signal.SIGSTOP)
        monkeypatch.setattr("compare.sweep.scheduling.CONNECT_SECONDS", 1)
        with pytest.raises(BridgeError, match=r"scheduler has not answered for 1 s, 2 of 3 tasks"):
            list(found)


def test_a_scheduler_that_dies_ends_the_sweep_with_what_to_do(
    tmp_path: Path, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    processes.worker()
    todo, _ = held(tmp_path, 20)
    with by_value():
        found = carry_out(todo, 1, processes.address(), do=after_the_first)
        next(found)
        processes.scheduler.kill()
        with pytest.raises(BridgeError, match=r"scheduler is gone, 19 of 20 tasks were not done") as caught:
            list(found)
    assert "same command again" in caught.value.remedy
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "tcp://"])
def test_an_address_where_no_cluster_is_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("compare.sweep.scheduling.CONNECT_SECONDS", 1)
    with pytest.raises(BridgeError, match="no cluster answers there") as caught:
        list(carry_out(orders(tmp_path, 1), 1, address))
    assert "dask scheduler" in caught.value.remedy
    clients = [each for each in gc.get_objects() if isinstance(each, Client)]
    assert {client.status for client in clients} <= {"closed"}, "one that is half made can block the next one"


def test_a_cluster_without_workers_is_said(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(BridgeError, match="has no workers"),
    ):
        list(carry_out(orders(tmp_path, 1), 1, empty.scheduler_address))


def test_as_many_at_once_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(psutil, "virtual_memory", type("Memory", (), {"available": 10_000_000_000}))
    assert jobs_that_fit(3000) == 3
    assert jobs_that_fit(500) == 8
    assert jobs_that_fit(20_000) == 1
