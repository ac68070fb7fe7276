"""What the suite says of itself at its end: which test waited longest, beside pytest's own list of the slowest."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_WAITED = pytest.StashKey[dict[str, tuple[float, float]]]()
"""(seconds, seconds of them without any work of this process or of children that ended) by test."""
_SHOWN = 5


def _busy() -> float:
    """Processor seconds of this process, all threads, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _shared() -> tuple[Any, ...]:
    """What belongs to the whole process, and tests that come later stand on."""
    root = logging.getLogger()
    return root.level, root.manager.disable, logging.getLogger("compare").level, Path.cwd()


@pytest.fixture(autouse=True)
def leaves_the_process_as_it_was() -> Iterator[None]:
    """A log level or a folder that one test changes and leaves so turns another one red, in some orders only."""
    before = _shared()
    yield
    assert _shared() == before, "root log level, logging.disable, level of 'compare', current folder"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    started, busy = time.perf_counter(), _busy()
    result: Any = yield
    seconds = time.perf_counter() - started
    waited = max(0.0, seconds - (_busy() - busy))
    item.config.stash.setdefault(_WAITED, {})[item.nodeid] = (seconds, waited)
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = sorted(config.stash.get(_WAITED, {}).items(), key=lambda each: -each[1][1])
    shown = [(name, seconds, waited) for name, (seconds, waited) in found[:_SHOWN] if waited >= 1]
    if shown:
        terminalreporter.section("longest waiting")
        for name, seconds, waited in shown:
            terminalreporter.line(f"{waited:.1f} of {seconds:.1f} s without work: {name}")
