"""Carrying out many orders: on this machine's cores or on a Dask cluster, both through joblib; results as they arrive."""

from __future__ import annotations

import contextlib
import os
import warnings
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
    """The orders' results in the order they are done.

    A worker that dies takes its order with it; what has no result then is given out again. Raises `BridgeError` when the
    cluster cannot be reached, or workers die again and again without one result.
    """
    left = {order.identity: order for order in orders}
    attempts = 0
    with _backend(dask) as (options, broken):
        while left:
            before = len(left)
            try:
                for finished in _parallel(list(left.values()), jobs, options, do):
                    del left[finished.order.identity]
                    yield finished
            except broken as error:
                attempts = attempts + 1 if len(left) == before else 0
                if attempts >= ATTEMPTS:
                    raise BridgeError(
                        where="the sweep's workers",
                        problem=f"died {ATTEMPTS} times without finishing a task ({type(error).__name__})",
                        remedy="Allow fewer jobs at a time (--jobs), or look into the workers' own log.",
                    ) from error


def _parallel(
    orders: Sequence[Order], jobs: int, options: dict[str, Any], do: Callable[[Order], Finished]
) -> Iterator[Finished]:
    from joblib import Parallel, delayed

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        parallel = Parallel(
            n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs", **options
        )
        yield from parallel(delayed(do)(order) for order in orders)


@contextlib.contextmanager
def _backend(dask: str | None) -> Iterator[tuple[dict[str, Any], tuple[type[BaseException], ...]]]:
    """joblib's options for the backend, and what it raises when a worker has died."""
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    if dask is None:
        yield {"backend": "loky"}, (TerminatedWorkerError, BrokenProcessPool)
        return
    import joblib
    from distributed import Client, KilledWorker
    from distributed.comm import CommClosedError

    try:
        client = Client(dask, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise BridgeError(
            where=f"--dask {dask}",
            problem=f"no cluster answers there ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            remedy="Start one with 'dask scheduler' and 'dask worker tcp://host:8786', and name its address.",
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise BridgeError(
                where=f"--dask {dask}",
                problem="the cluster has no workers",
                remedy=f"Start some: dask worker {dask} --nthreads 1",
            )
        with joblib.parallel_config(backend="dask", client=client, wait_for_workers_timeout=CONNECT_SECONDS):
            yield {}, (KilledWorker, CommClosedError)
