"""Orders on local processes and on a real Dask cluster: a worker that dies costs time and nothing else."""

from __future__ import annotations

import os
import signal
import sys
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


def test_the_clusters_processes_do_the_work(tmp_path: Path, cluster: LocalCluster) -> None:
    """Both workers were at it at the same time: what takes four thirds of a second alone takes less."""
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        assert len(set(client.run(os.getpid).values())) == 2
    todo = orders(tmp_path, 4)
    assert len(collected(carry_out(todo, 1, cluster.scheduler_address))) == 4


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
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        found = {
            finished.order.task.seed: finished.problem
            for finished in carry_out(orders(tmp_path, 3), 1, cluster.scheduler_address, do=deadly)
        }
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert found[0] is found[2] is None
    assert "given up by the cluster" in str(found[1])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "tcp://"])
def test_an_address_where_no_cluster_is_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("compare.sweep.scheduling.CONNECT_SECONDS", 1)
    with pytest.raises(BridgeError, match="no cluster answers there") as caught:
        list(carry_out(orders(tmp_path, 1), 1, address))
    assert "dask scheduler" in caught.value.remedy


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
