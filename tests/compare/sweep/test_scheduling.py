"""Orders on local processes and on a real Dask cluster: a worker that dies costs time and nothing else."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from distributed import Client, LocalCluster

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
    assert 8 <= len(asked(tmp_path)) <= 10  # what the dead worker had in hand is done again, what it had done is not


def deadly(given: Order) -> Finished:
    os._exit(1) if given.task.seed == 1 else None
    return Finished(given, (), None, 0.0, 0, "")


def test_an_order_that_kills_every_worker_is_given_up_and_the_others_are_done(
    tmp_path: Path, cluster: LocalCluster
) -> None:
    with by_value():
        found = {
            finished.order.task.seed: finished.problem
            for finished in carry_out(orders(tmp_path, 3), 1, cluster.scheduler_address, do=deadly)
        }
    assert found[0] is found[2] is None
    assert "given up by the cluster" in str(found[1])


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster of one scheduler, to be killed, and one worker, each a process of its own."""
    written = tmp_path / "scheduler.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    place = ["--scheduler-file", str(written), "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *place], **quiet)
    worker = subprocess.Popen([*dask, "worker", *place, "--nthreads", "1", "--local-directory", str(tmp_path)], **quiet)
    try:
        with Client(scheduler_file=str(written), set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        yield json.loads(written.read_text())["address"], scheduler
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def test_a_scheduler_that_dies_ends_the_sweep_with_what_to_do(
    tmp_path: Path, mortal: tuple[str, subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    address, scheduler = mortal
    found = carry_out(orders(tmp_path, 20), 1, address)
    next(found)
    scheduler.kill()
    with pytest.raises(BridgeError, match=r"scheduler is gone, 1[89] of 20 tasks were not done") as caught:
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
