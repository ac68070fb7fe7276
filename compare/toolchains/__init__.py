"""Named, pinned toolchains: which there are, and their environments. What runs inside them is worker.py, and that alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from compare.running.globs import chosen
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


def matching(patterns: Sequence[str], option: str = "--toolchains") -> tuple[Toolchain, ...]:
    """The toolchains whose id matches any of the globs; all without globs.

    Raises `BridgeError`, in the words of the `option`, when a glob matches nothing.
    """
    return chosen({each.id: each for each in toolchains()}, patterns, option, "matches no toolchain")


def _current() -> Toolchain:
    return Toolchain(
        id=CURRENT,
        about="this project's own environment",
        as_of="",
        python=None,
        requirements=(),
        routes=("exact", "onnx2tf", "keras", "keras-legacy", "ort-quantize", "fake-quant"),
        runtime="ai_edge_litert",
        disk_mb=0,
    )
