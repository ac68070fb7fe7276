"""Named, pinned toolchains: which there are, and their environments. What runs inside them is worker.py, and that alone."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from bridge.errors import BridgeError
from compare.toolchains.model import Toolchain, read

__all__ = ["CURRENT", "Toolchain", "matching", "toolchains"]

CURRENT = "current"
"""The id of the toolchain that this program runs in."""
_PINS = Path(__file__).parent / "pins"


@cache
def toolchains() -> tuple[Toolchain, ...]:
    """The current one, then the pinned ones, oldest first."""
    pinned = [read(path) for path in _PINS.glob("*.toml")]
    return (_current(), *sorted(pinned, key=lambda each: (each.as_of, each.id)))


def matching(patterns: Sequence[str]) -> tuple[Toolchain, ...]:
    """The toolchains whose id matches any of the globs; all without globs.

    Raises `BridgeError` when a glob matches nothing.
    """
    everything = toolchains()
    for pattern in patterns:
        if not any(fnmatchcase(each.id, pattern) for each in everything):
            raise BridgeError(
                where=f"--toolchains '{pattern}'",
                problem="matches no toolchain",
                remedy=f"There are: {', '.join(each.id for each in everything)}.",
            )
    return tuple(
        each for each in everything if not patterns or any(fnmatchcase(each.id, pattern) for pattern in patterns)
    )


def _current() -> Toolchain:
    return Toolchain(
        id=CURRENT,
        about="this project's own environment",
        as_of="",
        python=None,
        requirements=(),
        routes=("exact", "onnx2tf", "keras", "keras-legacy"),
        runtime="ai_edge_litert",
        disk_mb=0,
    )
