"""A call in a child process of its own: a kernel that ends the process is an answer, not the end of the tests."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

SECONDS = 60
"""Of processor time, not of the clock: how busy the machine is does not matter."""


def bounded(function: Callable[[], Any]) -> Any:
    """What the function returns, the `BridgeError` it raises, or the signal that ended it, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(function, read, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    kind, value = pickle.loads(answer)  # noqa: S301 - our own child wrote it
    if kind == "raised":
        raise value
    return value


def _answer(function: Callable[[], Any], read: int, write: int) -> None:
    import faulthandler
    import resource

    code = 0
    try:
        faulthandler.disable()  # pytest's, which would print the stack of the parent
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)  # what a kernel says before it ends the process
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer = pickle.dumps(("returned", function()))
        except Exception as error:  # noqa: BLE001 - handed to the parent, which raises it
            answer = pickle.dumps(("raised", error))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(answer)
    except BaseException:  # noqa: BLE001 - a child never returns into the tests
        code = 1
    os._exit(code)
