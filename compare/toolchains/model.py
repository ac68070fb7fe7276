"""What a toolchain is, and how its file of pins is read. Records only."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError
from compare.toolchains.environments import Environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ABILITIES = ("exact", "onnx2tf", "keras", "keras-legacy", "litert-torch", "ort-quantize", "fake-quant")
"""What worker.py can do to make a model, as far as the packages are there; a producer's are its recipes."""
RUNTIMES = ("tflite_runtime", "ai_edge_litert", "tensorflow")
"""Modules with an interpreter for .tflite files."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Toolchain:
    """Packages that are used together, as a team would have installed them on a given day.

    Always true: a pinned toolchain names a Python, a date and at least one requirement; what it brings along is what the
    index had on that date. `python` is None for the current one alone. Raises `ValueError` when one of these fails.
    """

    id: str
    about: str
    """One sentence: what it stands for."""
    as_of: str
    """`2024-03-01`; empty for the current one."""
    python: str | None
    """`major.minor`."""
    requirements: tuple[str, ...]
    routes: tuple[str, ...] = ()
    """Which of ABILITIES it is used for."""
    runtime: str | None = None
    """The module whose interpreter loads .tflite files; None: it only makes them."""
    disk_mb: int = 500
    """What a build takes, wheels and environment together, rounded up from a measurement."""
    lock: Path = Path()
    """Every package with its hashes: the file beside the pins. None for the current one."""

    def __post_init__(self) -> None:
        if self.python is not None and not (_DATE.fullmatch(self.as_of) and self.requirements):
            raise ValueError("needs a date as_of, such as 2024-03-01, and requirements")
        unknown = [*({*self.routes} - {*ABILITIES}), *({self.runtime} - {*RUNTIMES, None})]
        if unknown:
            raise ValueError(
                f"does not know {', '.join(map(str, unknown))}; there are {', '.join(ABILITIES + RUNTIMES)}"
            )
        if not self.routes and self.runtime is None:
            raise ValueError("neither makes models nor runs them")

    def environment(self) -> Environment | None:
        """The environment to be built; None for the current one, which is there."""
        if self.python is None:
            return None
        return Environment(self.id, self.requirements, self.lock, self.python, self.as_of, self.disk_mb * 10**6)


def read(path: Path) -> Toolchain:
    """The toolchain that a file of pins describes; its id is the file's name.

    Raises `BridgeError` for a file that is no TOML, lacks a field or has an unknown one.
    """
    try:
        content = tomllib.loads(path.read_text())
        given: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in content.items()}
        return Toolchain(**{"id": path.stem, **given, "lock": path.with_suffix(".txt")})
    except (OSError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        names = ", ".join(field.name for field in fields(Toolchain) if field.name not in ("id", "lock"))
        raise BridgeError(
            where=f"toolchain '{path.stem}' ({path})",
            problem=f"cannot be read: {error}",
            remedy=f"Its fields are: {names}.",
        ) from error
