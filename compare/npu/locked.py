"""Environments of the targets' software: locked for each Python that this project runs on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compare.toolchains.environments import Environment, this_python

PYTHONS = ("3.10", "3.11", "3.12")
"""There is a lock for each of them."""
_LOCKS = Path(__file__).parent / "locks"
_AS_OF = "2026-11-01"


def locked(name: str, requirements: tuple[str, ...], from_source: tuple[str, ...] = ()) -> Environment:
    """An environment with the Python that runs this program."""
    here = this_python()
    return Environment(name, requirements, _lock(name, here), here, _AS_OF, from_source=from_source)


def on(python: str, environment: Environment) -> Environment:
    """The same environment with another Python, which has a lock of its own."""
    return replace(environment, python=python, lock=_lock(environment.name, python))


def _lock(name: str, python: str) -> Path:
    return _LOCKS / f"{name}-py{python}.txt"
