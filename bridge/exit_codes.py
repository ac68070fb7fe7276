"""How every command of this project ends: one table, and the wrapper that keeps to it.

| code | meaning |
|---|---|
| 0 | finished; findings are results |
| 1 | a limit that the caller set was missed (`--max-lsb`, `--fail`, `--fail-under`, `--target`) |
| 2 | the input or the usage: a sentence says where, what, and what to do |
| 70 | our own defect: one line and how to report it; `--traceback` shows the whole |
| 130 | Ctrl-C |
| 143 | SIGTERM |
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import select
import signal
import sys
import threading
import traceback as tracebacks
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Annotated, Any

import typer

from bridge.errors import BridgeError, printable
from bridge.terminal import Terminal

DONE, MISSED, USAGE, DEFECT, INTERRUPTED, TERMINATED = 0, 1, 2, 70, 130, 143

OURS = ("bridge", "compare", "torch_side", "keras_side")
SURROUNDINGS = {
    errno.ENOSPC: "Make room on that disk, and run the same command again.",
    errno.EDQUOT: "Make room on that disk, and run the same command again.",
    errno.EROFS: "Choose a folder that you may write to.",
    errno.EACCES: "Choose a path that you may read and write.",
    errno.EPERM: "Choose a path that you may read and write.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
    errno.EMFILE: "Allow more open files (ulimit -n), and run the same command again.",
    errno.ENFILE: "Close other programs, and run the same command again.",
    errno.EIO: "The disk does not answer; choose another folder.",
    errno.ENOMEM: "Close other programs, or allow more memory (ulimit -v).",
}
"""What the machine refuses; every other `OSError` that no command foresaw is our defect."""


class Terminated(BaseException):
    """SIGTERM, as an exception, so that half-written files are removed and workers are ended."""


_reached: ContextVar[bool] = ContextVar("_reached", default=False)
"""Whether the body of a command has begun: what ends before is its help, or wrong usage."""


class Program(typer.Typer):
    """A command line whose help and usage errors keep to the table, too: typer ends with 1 where nobody reads them."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        _reached.set(False)
        try:
            return super().__call__(*arguments, **options)
        except SystemExit as end:
            if end.code != MISSED or _reached.get():
                raise
            _stdout_is_gone()
            _print_error(str(_NOBODY_READS))
            raise SystemExit(USAGE) from None
        except OSError as error:
            raise SystemExit(_said(error, with_traceback=False)) from None


def ends_properly(command: Callable[..., None]) -> Callable[..., None]:
    """The body of a command, so that it ends with a code of the table, whatever happens; adds `--traceback`."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def ended(*arguments: Any, traceback: bool = False, **options: Any) -> None:
        code: int = DONE
        _reached.set(True)
        try:
            with _terminated_as_exception():
                try:
                    command(*arguments, **options)
                except typer.Exit as asked:
                    code = asked.exit_code
                if sys.stdout is not None:
                    sys.stdout.flush()  # a reader that has gone away is found out here, and not when Python ends
        except BaseException as error:  # noqa: BLE001 - the one place where nothing may get past
            code = _said(error, with_traceback=traceback)
        raise typer.Exit(code)

    shown = inspect.Parameter(
        "traceback",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--traceback", help="Show the traceback of what goes wrong.")],
    )
    parameters = (*signature.parameters.values(), shown)
    ended.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    ended.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return ended


@contextmanager
def _terminated_as_exception() -> Iterator[None]:
    def terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form of a handler
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is under way
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _said(error: BaseException, *, with_traceback: bool) -> int:
    """Print what has to be said about an exception on standard error; the code to end with."""
    if with_traceback:
        _print_error("".join(tracebacks.format_exception(error)))
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Terminated):
        return TERMINATED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else DONE if error.code is None else USAGE
    if isinstance(error, BrokenPipeError) and _stdout_is_gone():
        _print_error(str(_NOBODY_READS))
        return USAGE
    foreseen = error if isinstance(error, BridgeError) else _of_the_surroundings(error)
    if foreseen is not None:
        _print_error(str(foreseen))
        return USAGE
    what = printable(f"{type(error).__name__}: {error}").replace("\n", " ")[:400]
    _print_error(
        f"This is a defect of ours, not of your input: {what}\n"
        "  Please report it to the maintainers: run the command again with --traceback, and send what it prints, with "
        "the file if you may share it."
    )
    return DEFECT


_NOBODY_READS = BridgeError(
    where="standard output",
    problem="was closed before everything was printed",
    remedy="Files that the command writes are complete. Redirect to a file to keep what it prints.",
)


def _stdout_is_gone() -> bool:
    """Whether nobody reads standard output; then it leads nowhere from here on, so that Python ends quietly."""
    if sys.stdout is None:
        return True
    with suppress(OSError, ValueError, AttributeError):  # a stream without a descriptor, a system without poll
        watch = select.poll()
        watch.register(sys.stdout.fileno(), select.POLLOUT)
        if not any(events & (select.POLLERR | select.POLLNVAL) for _, events in watch.poll(0)):
            return False  # the broken pipe is another one
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return True


def _of_the_surroundings(error: BaseException) -> BridgeError | None:
    """What the machine, its packages or its limits refuse, as a sentence; None for everything else."""
    if isinstance(error, MemoryError):
        return BridgeError(
            where="memory",
            problem="is not enough for this input",
            remedy="Close other programs, allow more memory (ulimit -v), or use a machine with more.",
        )
    if isinstance(error, RecursionError):
        return BridgeError(
            where="input",
            problem="is nested deeper than this program follows",
            remedy="Export it again; no real model is nested like this. --traceback shows where.",
        )
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in OURS:
        package = error.name.split(".")[0]
        return BridgeError(
            where=f"package '{package}'",
            problem="is needed for this, and it is not installed",
            remedy="Install the extra that has it, for example: pip install '.[all]'",
        )
    if isinstance(error, OSError) and error.errno in SURROUNDINGS:
        return BridgeError(
            where=str(error.filename or "this machine"),
            problem=f"cannot be used ({error.strerror})",
            remedy=SURROUNDINGS[error.errno],
        )
    return None


def _print_error(text: str) -> None:
    """On standard error, red; nothing where that is closed too."""
    with suppress(OSError, ValueError):
        Terminal(stderr=True, soft_wrap=True).print(text, style="red", markup=False)
