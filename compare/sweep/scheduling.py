"""Carrying out many orders: on this machine's cores or on a Dask cluster, results as they arrive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bridge.errors import BridgeError
from compare.sweep.limits import Finished, Order, execute

CONNECT_SECONDS = 10
ATTEMPTS = 3
"""How often the pool may break without a single result in between."""


def jobs_that_fit(megabytes: int) -> int:
    """As many as there are cores, and as the memory that is free now can hold; at least one."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available) // (megabytes * 1_000_000)))


def carry_out(
    orders: Sequence[Order], jobs: int, dask: str | None = None, do: Callable[[Order], Finished] = execute
) -> Iterator[Finished]:
    """The orders' results in the order they are done: `jobs` at a time here, or as many as the cluster has threads.

    What a dying worker had in hand is given out again. Raises `BridgeError` when the cluster cannot be reached, or local
    workers die again and again without one result.
    """
    return _locally(orders, jobs, do) if dask is None else _on_cluster(orders, dask, do)


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


def _on_cluster(orders: Sequence[Order], dask: str, do: Callable[[Order], Finished]) -> Iterator[Finished]:
    """By Dask's own client: through joblib's backend (1.6.0), a task that Dask gives up is waited for without end."""
    from distributed import as_completed

    with _client(dask) as client:
        futures = {
            client.submit(do, order, key=f"{order.task.label} {order.identity}", pure=False): order for order in orders
        }
        for future in as_completed(list(futures), loop=client.loop):
            order = futures.pop(future)
            if future.status == "finished":
                yield future.result()
            else:
                said = str(future.exception()).partition("\n")[0]
                yield Finished(order, (), f"given up by the cluster: {said[:300]}", 0.0, 0, "")
            future.release()


@contextlib.contextmanager
def _client(dask: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(dask, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        said = str(error).splitlines()
        raise BridgeError(
            where=f"--dask {dask}",
            problem=f"no cluster answers there ({said[0] if said else type(error).__name__})",
            remedy="Start one with 'dask scheduler' and 'dask worker tcp://host:8786', and name its address.",
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise BridgeError(
                where=f"--dask {dask}",
                problem="the cluster has no workers",
                remedy=f"Start some: dask worker {dask} --nthreads 1",
            )
        yield client
