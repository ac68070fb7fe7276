"""A process of somebody else's software: time limit, memory figure, output kept; gone with all its children in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)
"""Jobs run side by side and share the cores."""
_NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TF_USE_LEGACY_KERAS", "PYTHONWARNINGS")
"""What this process is run with and another toolchain must not inherit."""
_POLL_SECONDS = 0.02
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
"""`ru_maxrss` is in bytes on macOS, in KiB elsewhere (getrusage(2))."""


@dataclass(frozen=True)
class Ended:
    """How a process ended; `problem` is None when it ended by itself with exit code 0."""

    problem: str | None
    seconds: float
    peak_bytes: int
    """The most memory it ever held, as far as it was seen: looked at fifty times a second."""


def run(
    command: Sequence[str | Path],
    folder: Path,
    output: Path,
    limit: Callable[[float, int], str | None],
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Run in `folder` with both descriptors going to `output`.

    `limit(seconds since the start, process id)` is asked again and again; the sentence it answers with ends the process. So does an
    exception in this thread, Ctrl-C included.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    started = time.monotonic()
    with output.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own worker
            [str(part) for part in command],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            env={**environment, **_ONE_THREAD, **(variables or {})},
        )  # fmt: skip
    peak = 0
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, _held(process.pid))
            problem = limit(time.monotonic() - started, process.pid)
            if problem is not None:
                _end(process.pid)
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = -signal.SIGKILL
                return Ended(problem, time.monotonic() - started, peak or usage.ru_maxrss * _PEAK_UNIT)
            threading.Event().wait(_POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        _end(process.pid)
        if process.returncode is None:
            process.wait()
    return Ended(_problem(process.returncode), time.monotonic() - started, peak or usage.ru_maxrss * _PEAK_UNIT)


def _held(pid: int) -> int:
    """The process's own high-water mark, in bytes; 0 where the system does not tell.

    `ru_maxrss` would not do: it starts with what the process held before its `exec`, which is this one's memory.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def _end(group: int) -> None:
    """End the process and everything it started that is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _problem(code: int) -> str | None:
    if code == 0:
        return None
    if code > 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = " (out of memory, unless somebody ended it)" if name == "SIGKILL" else ""
    return f"crashed with {name}{memory}"
