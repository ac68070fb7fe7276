"""Waiting for something to come true, however slow or busy the machine is: the test's own limit ends a wait in vain."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")
LONG = 800
"""Seconds after which a command is given up: just under the limit of a test, so that it fails by itself."""


def until(asked: Callable[[], _Found]) -> _Found:
    """The first answer that counts as true."""
    while True:
        found = asked()
        if found:
            return found
        time.sleep(0.02)
