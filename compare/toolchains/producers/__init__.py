"""Producers: the tools that teams quantize with, each pinned, and what they do to the same three networks.

What runs inside their environments is worker.py with recipes.py and networks.py beside it, and those alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError
from compare.running.globs import chosen
from compare.toolchains.environments import Environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HERE = Path(__file__).parent
PROGRAMS = (_HERE / "recipes.py", _HERE / "networks.py")
"""What a producer's worker has beside it; the first has the jobs."""
_PINS = _HERE / "pins"


@dataclass(frozen=True)
class Producer:
    """A tool that quantizes networks, as a team would have installed it on a given day."""

    id: str
    about: str
    """One sentence: who makes it, and what it takes."""
    as_of: str
    """What the requirements bring along is as the index had it on this day: `2026-11-20`."""
    python: str
    """`major.minor`."""
    requirements: tuple[str, ...]
    recipes: tuple[str, ...]
    """Jobs of recipes.py."""
    disk_mb: int
    """What a build takes, rounded up from a measurement."""
    lock: Path
    """Every package with its hashes: the file beside the pins."""

    def environment(self) -> Environment:
        """The environment to be built."""
        return Environment(self.id, self.requirements, self.lock, self.python, self.as_of, self.disk_mb * 10**6)


@cache
def producers() -> tuple[Producer, ...]:
    """All of them, by name. Raises `BridgeError` for pins that lack a field or have an unknown one."""
    return tuple(_read(path) for path in sorted(_PINS.glob("*.toml")))


def matching(patterns: Sequence[str]) -> tuple[Producer, ...]:
    """The producers whose id matches any of the globs; all without globs.

    Raises `BridgeError` when a glob matches nothing.
    """
    return chosen({each.id: each for each in producers()}, patterns, "--toolchains", "matches no producer")


def _read(path: Path) -> Producer:
    try:
        content = tomllib.loads(path.read_text())
        given: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in content.items()}
        return Producer(**{"id": path.stem, **given, "lock": path.with_suffix(".txt")})
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        names = ", ".join(field.name for field in fields(Producer) if field.name not in ("id", "lock"))
        raise BridgeError(
            where=f"producer '{path.stem}' ({path})",
            problem=f"cannot be read: {error}",
            remedy=f"Its fields are: {names}.",
        ) from error
