"""Worker processes for the frameworks: what they print is kept, a crash or a hang is one job's result."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError

JOB_SECONDS = 900
"""A job that takes longer is taken for hung. The slowest one measured takes about a minute."""


@dataclass(frozen=True)
class Outcome:
    """What became of one job: a value or an error text, never both, and all that was printed meanwhile."""

    value: Any
    error: str | None
    log: str
    seconds: float

    def get(self) -> Any:
        """The value; raises `BridgeError` with what the job said, where it has none."""
        if self.error is None:
            return self.value
        where, _, rest = self.error.partition(": ")
        problem, _, remedy = rest.partition("\n")
        raise BridgeError(where=where, problem=problem, remedy=remedy.strip() or "See what it printed before.")


class Lane:
    """A queue with its own worker processes, started when the first job comes.

    Frameworks live in lanes of their own: each is imported once, none sees another's global state, and what they
    print on the file descriptors, C++ included, is caught. Jobs are module-level functions with picklable arguments.
    """

    def __init__(
        self,
        name: str,
        processes: int = 1,
        on_start: Callable[[str], None] | None = None,
        preload: str | None = None,
    ) -> None:
        self._on_start = on_start
        self._context = _context(preload)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix=name, initializer=_without_interrupts)
        self._own = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, label: str, job: Callable[..., Any], *arguments: Any) -> Future[Outcome]:
        """Queue a job; the future always holds an `Outcome`, whatever happens to the process.

        `on_start` hears the label when the job's turn comes, on the lane's own thread.
        """
        return self._threads.submit(self._run, label, job, arguments)

    def finish(self) -> None:
        """Wait for what is queued, and let the processes end by themselves: what they hold in the system goes with them."""
        self._threads.shutdown(wait=True)
        for pool in self._pools:
            pool.shutdown(wait=True)

    def close(self) -> None:
        """Drop what is queued and end the processes now, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            _kill(pool)

    def _run(self, label: str, job: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
        if self._on_start is not None:
            self._on_start(label)
        started = time.perf_counter()
        pool = getattr(self._own, "pool", None)
        if pool is None:
            pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=_prepare)
            self._own.pool = pool
            self._pools.append(pool)
        try:
            return pool.submit(captured, job, arguments).result(timeout=JOB_SECONDS)
        except BrokenProcessPool:
            problem = "its process died without a word (out of memory, or a crash in native code)"
        except TimeoutError:
            problem = f"did not finish within {JOB_SECONDS} s and was ended"
        _kill(pool)
        self._own.pool = None
        return Outcome(None, problem, "", time.perf_counter() - started)


def _context(preload: str | None) -> BaseContext:
    """A fresh interpreter per process; with `preload`, forked from a server that imported that module once.

    One program has one fork server: the first lane with a `preload` decides what it imports.
    """
    if preload is None or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def captured(job: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Run `job` in this process with both output descriptors going to a file."""
    started = time.perf_counter()
    value, error = None, None
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            value = job(*arguments)
        except BridgeError as problem:
            error = str(problem)
        except Exception as defect:  # noqa: BLE001 - one job's defect is one row of the report, with its traceback
            error = f"{type(defect).__name__}: {defect}"
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
        sink.seek(0)
        log = sink.read().decode(errors="replace")
    return Outcome(value, error, log, time.perf_counter() - started)


def _without_interrupts() -> None:
    """Block Ctrl-C in this thread, and so in every process it starts, from its first instruction on.

    A terminal interrupts the whole group. The main thread hears it and ends the workers; one that heard it too, while it
    was still importing, would print a traceback.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _prepare() -> None:
    """What every worker process does first."""
    _end_with_parent()
    _one_thread()


def _end_with_parent() -> None:
    """End this process, and what it started, as soon as the one that it works for is gone, killed or not.

    Its pool would not: a worker holds both ends of the pipe that it waits at for jobs. The thread is heard between two
    steps of Python, so that native code which keeps the interpreter's lock is finished first.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        for child in _children(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="ends with its parent", daemon=True).start()


def _children(pid: int) -> list[int]:
    """Process ids of all that a process started, and they, as far as the system tells (Linux: /proc)."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in listed.read_text().split()]
    return [*found, *(each for child in found for each in _children(child))]


def _one_thread() -> None:
    """One thread per process: lanes share the cores, and sums come out the same at every run."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"


def _kill(pool: ProcessPoolExecutor) -> None:
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
