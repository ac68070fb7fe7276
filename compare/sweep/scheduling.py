"""Carrying out many orders: on this machine's cores or on a Dask cluster, results as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bridge.errors import BridgeError
from compare.sweep.limits import Finished, Order, execute

CONNECT_SECONDS = 30
"""For a connection to the scheduler, and for each of its answers."""
WITHOUT_WORKERS_SECONDS = 300
"""How long a cluster may be without a worker. Dask's nanny gives up when its worker dies while it is being started
(distributed 2026.8.0, Nanny._on_worker_exit, status `starting`), and nothing on the cluster will ever start another one."""
LOOK_EVERY_SECONDS = 5
"""How often the cluster is asked for its workers while no result comes."""
_LOG = logging.getLogger("compare.sweep")
ATTEMPTS = 3
"""How often the pool may break without a single result in between."""


def jobs_that_fit(megabytes: int) -> int:
    """As many as there are cores, and as the memory that is free now can hold; at least one."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available) // (megabytes * 1_000_000)))


def carry_out(
    orders: Sequence[Order],
    jobs: int,
    dask: str | None = None,
    do: Callable[[Order], Finished] = execute,
    *,
    patience: float = WITHOUT_WORKERS_SECONDS,
) -> Iterator[Finished]:
    """The orders' results in the order they are done: `jobs` at a time here, or as many as the cluster has threads.

    What a dying worker had in hand is given out again. Raises `BridgeError` when the cluster cannot be reached, when it
    has been without a worker for `patience` seconds, or when local workers die again and again without one result.
    """
    return _locally(orders, jobs, do) if dask is None else _on_cluster(orders, dask, do, patience)


def _locally(orders: Sequence[Order], jobs: int, do: Callable[[Order], Finished]) -> Iterator[Finished]:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    left = {order.identity: order for order in orders}
    attempts = 0
    while left:
        before = len(left)
        parallel = Parallel(
            jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs", backend="loky"
        )
        try:
            for finished in parallel(delayed(do)(order) for order in list(left.values())):
                del left[finished.order.identity]
                yield finished
        except (TerminatedWorkerError, BrokenProcessPool) as error:
            attempts = attempts + 1 if len(left) == before else 0
            if attempts >= ATTEMPTS:
                raise BridgeError(
                    where="the sweep's workers",
                    problem=f"died {ATTEMPTS} times without finishing a task ({type(error).__name__})",
                    remedy="Allow fewer jobs at a time (--jobs), or look into the system's log.",
                ) from error


def _on_cluster(
    orders: Sequence[Order], dask: str, do: Callable[[Order], Finished], patience: float
) -> Iterator[Finished]:
    """By Dask's own client: through joblib's backend (1.6.0), a task that Dask gives up is waited for without end.

    Dask blames a worker's death on all it held, waiting orders too, and gives up what was held by four of them. Only an
    order that kills its workers when it is the only one on the cluster is given up here.
    """
    from distributed.scheduler import KilledWorker

    blamed: list[Order] = []
    with _client(dask) as client:
        for order, outcome in _done(client, dask, orders, do, "sweep", patience):
            if isinstance(outcome, KilledWorker):
                blamed.append(order)
            else:
                yield _finished(order, outcome)
        for alone in blamed:
            for order, outcome in _done(client, dask, [alone], do, "alone", patience):
                yield _finished(order, outcome)


def _done(
    client: Any, dask: str, orders: Sequence[Order], do: Callable[[Order], Finished], mark: str, patience: float
) -> Iterator[tuple[Order, Finished | Exception]]:
    """Each order, with its result or with why it has none, as they are done.

    Raises `BridgeError` when the scheduler is gone, or has no worker for too long: Dask's own `as_completed` would wait
    for ever. The keys start alike, so that Dask counts them as one group: of a large one it keeps what is waiting on the
    scheduler, and hands a worker little more than it can run.
    """
    from distributed import CancelledError

    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    futures = {
        client.submit(do, order, key=f"{mark}-{order.task.label} {order.identity}", pure=False): order
        for order in orders
    }
    watch = _Watch(client, patience, longest=max((order.seconds for order in orders), default=0))
    look_every = min(LOOK_EVERY_SECONDS, patience / 4)
    for future in futures:
        future.add_done_callback(arrived.put)
    while futures:
        try:
            future = arrived.get(timeout=look_every)
        except queue.Empty:
            watch.look(dask, f"{len(futures)} of {len(orders)} tasks were not done")
            continue
        outcome: Finished | Exception
        try:
            outcome = future.result(timeout=look_every)
        except CancelledError as error:
            raise BridgeError(
                where=f"--dask {dask}",
                problem=f"the cluster's scheduler is gone, {len(futures)} of {len(orders)} tasks were not done",
                remedy="Start the cluster, and run the same command again: what was done stays done.",
            ) from error
        except Exception as error:  # noqa: BLE001 - whatever a worker raised, or Dask on its behalf
            if future.status not in {"error", "cancelled"}:
                # The result went with its worker, or is on its way: it arrives once more when it is there again.
                future.add_done_callback(arrived.put)
                watch.look(dask, f"{len(futures)} of {len(orders)} tasks were not done")
                continue
            outcome = error
        yield futures.pop(future), outcome
        future.release()


class _Watch:
    """Ends a wait for workers that do not come."""

    def __init__(self, client: Any, patience: float, longest: float) -> None:
        self._client = client
        self._patience = patience
        self._longest = longest
        self._since: float | None = None

    def look(self, dask: str, left: str) -> None:
        """Raises `BridgeError` where no worker takes orders, and none has for long; a word when that begins."""
        running, known, answered = self._workers()
        if running:
            self._since = None
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
            _LOG.warning("The cluster has no worker that takes tasks; waiting %g s for one.", self._patience)
        # A worker that Dask has paused (its memory is full) may be at a task still, and go on behind it.
        waited, limit = now - self._since, self._patience + (self._longest if known else 0)
        if waited < limit:
            return
        problem = f"the cluster has had no worker that takes tasks for {limit:g} s"
        if not answered:
            problem = f"the cluster's scheduler has not answered for {limit:g} s"
        raise BridgeError(
            where=f"--dask {dask}",
            problem=f"{problem}, {left}",
            remedy=f"Start workers (dask worker {dask} --nthreads 1), and run the same command again: what was done stays "
            "done. --wait-for-workers waits longer.",
        )

    def _workers(self) -> tuple[int, int, bool]:
        """(Workers that take orders, workers there are, whether the scheduler answered)."""
        scheduler = self._client.scheduler
        try:
            running, known = (
                len(self._client.sync(ask, callback_timeout=CONNECT_SECONDS))
                for ask in (scheduler.ncores_running, scheduler.ncores)
            )
        except (OSError, TimeoutError, asyncio.TimeoutError):
            return 0, 0, False
        return running, known, True


def _finished(order: Order, outcome: Finished | Exception) -> Finished:
    if isinstance(outcome, Finished):
        return outcome
    said = str(outcome).partition("\n")[0] or type(outcome).__name__
    return Finished(order, (), f"given up by the cluster: {said[:300]}", 0.0, 0, "")


@contextlib.contextmanager
def _client(dask: str) -> Iterator[Any]:
    from distributed import Client

    try:
        asyncio.run(_reach(dask))
        client = Client(dask, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        said = str(error).splitlines()
        raise BridgeError(
            where=f"--dask {dask}",
            problem=f"no cluster answers there ({said[0] if said else type(error).__name__})",
            remedy="Start one with 'dask scheduler' and 'dask worker tcp://host:8786', and name its address.",
        ) from error
    with _silent("distributed.client"), client:
        if not client.scheduler_info()["workers"]:
            raise BridgeError(
                where=f"--dask {dask}",
                problem="the cluster has no workers",
                remedy=f"Start some: dask worker {dask} --nthreads 1",
            )
        yield client


@contextlib.contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Keeps the library's tracebacks off the terminal: what goes wrong is said once, by an error of ours."""
    named = logging.getLogger(logger)
    level = named.level
    named.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        named.setLevel(level)


async def _reach(dask: str) -> None:
    """A connection made and closed, before there is a client.

    A client that fails while it is made lives on until its error is collected; its destructor then takes the lock of
    distributed's `LoopRunner`, and a client or cluster that is just being made holds that lock for ever (2026.8.0).
    """
    from distributed.comm import connect

    connection = await connect(dask, timeout=CONNECT_SECONDS)
    await connection.close()
