"""A folder of files to run, the same on every processor, and what came out of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.arm.machine import Core, Machine
from bridge.errors import BridgeError
from bridge.verifying.litert import KernelSet

INSIDE = Path(__file__).with_name("inside.py")
HOST = "x86"
"""The processor that all others are held against: this one."""


@dataclass
class Jobs:
    """What is to be run; `failed` says by processor and job why there is nothing to compare.

    A job is named after what it holds, so that a folder that is kept has the outputs of the runs before.
    """

    folder: Path
    names: list[tuple[str, tuple[KernelSet, ...]]] = field(default_factory=list)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def add(self, tflite: bytes, inputs: Mapping[str, np.ndarray], kernels: Sequence[KernelSet] = ("xnnpack",)) -> str:
        """A file with its inputs, samples along a first axis of their own; returns the job's name."""
        content = hashlib.sha256(tflite)
        for given, array in sorted(inputs.items()):
            content.update(f"{given}{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
        name = content.hexdigest()[:20]
        inputs_to, beside = self.folder / f"{name}.npz", self.folder / f"{name}.{os.getpid()}.part.npz"
        if not inputs_to.exists():  # whole or not at all, so that two runs may share the folder
            (self.folder / f"{name}.tflite").write_bytes(tflite)
            np.savez(beside, **inputs)
            beside.replace(inputs_to)
        if (name, tuple(kernels)) not in self.names:
            self.names.append((name, tuple(kernels)))
        return name

    def run_here(self, seconds: float) -> None:
        self._run(HOST, [sys.executable, "-B", INSIDE], dict(os.environ), seconds)

    def run_on(self, machine: Machine, cores: Sequence[Core], seconds: float) -> None:
        """A process for each core, as many at once as this machine has processors; `seconds` for each."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = [
                pool.submit(self._run, core.name, machine.command(core, INSIDE), machine.variables(), seconds)
                for core in cores
            ]
            try:
                for each in as_completed(running):
                    each.result()
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        """End the processes of all threads: the exception that one of them raised is waiting for them."""
        self._stopped.set()
        for process in list(self._processes):
            process.kill()

    def outputs(self, name: str, processor: str, kernels: KernelSet = "xnnpack") -> list[np.ndarray] | None:
        """In the order of the file, samples along the first axis; None where it did not run."""
        path = self.folder / f"{name}.{processor}.{kernels}.npz"
        if not path.exists():
            return None
        with np.load(path) as kept:
            return [kept[str(place)] for place in range(len(kept.files))]

    def _run(self, tag: str, command: Sequence[str | Path], variables: Mapping[str, str], seconds: float) -> None:
        """All jobs in one process, another one after a job that ended it; `seconds` for all of them."""
        waiting = [(name, kernels) for name, kernels in self.names if not self._is_there(name, tag, kernels)]
        listed = self.folder / f"jobs-{tag}-{os.getpid()}.json"
        while waiting and not self._stopped.is_set():
            listed.write_text(json.dumps(waiting))
            done: list[str] = []
            started, code = self._process(tag, [*command, listed, tag], variables, seconds, done)
            listed.unlink()
            if code == 0 or self._stopped.is_set():
                return
            if started is None:
                raise BridgeError(
                    where=f"LiteRT on {tag}",
                    problem=f"ends with code {code} before it runs a file",
                    remedy="Remove the folder 'arm' of the cache, and run this again.",
                )
            self.failed[tag, started] = "the process ended" + (f" (signal {-code})" if code < 0 else f" (code {code})")
            waiting = [job for job in waiting if job[0] not in (*done, started)]

    def _is_there(self, name: str, tag: str, kernel_sets: Sequence[KernelSet]) -> bool:
        return all((self.folder / f"{name}.{tag}.{kernels}.npz").exists() for kernels in kernel_sets)

    def _process(
        self, tag: str, command: Sequence[str | Path], variables: Mapping[str, str], seconds: float, done: list[str]
    ) -> tuple[str | None, int]:
        """The job that was running when the process ended, and its exit code."""
        started = None
        with subprocess.Popen(  # noqa: S603 - our own program
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        ) as process:
            self._processes.append(process)
            if self._stopped.is_set():
                process.kill()
            late = threading.Event()

            def end() -> None:
                late.set()
                os.killpg(process.pid, signal.SIGKILL)

            timer = threading.Timer(seconds, end)
            timer.start()
            try:
                for line in process.stdout or ():
                    said = json.loads(line)
                    if "start" in said:
                        started = said["start"]
                        continue
                    done.append(said["done"])
                    started = None
                    for kernels, reason in said["refused"].items():
                        self.failed[tag, said["done"]] = f"{kernels} refuses it: {reason}"
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
        if late.is_set():
            raise BridgeError(
                where=f"LiteRT on {tag}",
                problem=f"had done {len(done)} files after {seconds:.0f} s, and was stopped",
                remedy="Ask for less (--images, --photos, --graphs, --cores), or go on with --work and a longer --seconds.",
            )
        return started, process.returncode
