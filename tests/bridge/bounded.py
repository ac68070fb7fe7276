"""`python -m bridge` in children with a limit on memory and work: a server that has imported everything forks for each.

A fork costs milliseconds where a new interpreter costs a second, and the limits are the child's own: address space,
processor time, and a wall clock far beyond both for what waits for ever.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SERVER = r"""
import json, os, resource, signal, sys, tempfile
sys.path.insert(0, sys.argv[1])
megabytes, seconds = int(sys.argv[2]), int(sys.argv[3])
import numpy, onnx, onnx.inliner
from bridge.__main__ import app
import bridge.arrays, bridge.exact.convert, bridge.exact.reader, bridge.exact.record
import gc
said = sys.stderr
with open(os.devnull, "w") as sys.stderr:
    try:
        app(["/nowhere/model.onnx"])  # typer imports the half of itself when it is first called
    except SystemExit:
        pass
sys.stderr = said
gc.collect(); gc.freeze()  # a collection in the child would copy every page of what was imported

for line in sys.stdin:
    arguments = json.loads(line)
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    pid = os.fork()
    if pid == 0:
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        grown = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limit = grown + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(120)
        try:
            app(arguments, standalone_mode=True)
        except SystemExit as end:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(end.code or 0)
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
        os._exit(0)
    _, status, used = os.wait4(pid, 0)
    texts = []
    for file in (out, err):
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
        file.close()
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([code, *texts, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How one command ended; a signal is a negative code."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    """Of work, waiting not counted."""
    peak_mb: float


class Server:
    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def run(self, *arguments: object) -> Ended:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


@contextmanager
def server(megabytes: int = 1024, seconds: int = 20, first: Sequence[str] = ()) -> Iterator[Server]:
    """A server whose children may take this much memory beyond what was imported, and this much work."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(ROOT), str(megabytes), str(seconds), *first],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield Server(process)
        assert process.stdin
        process.stdin.close()
