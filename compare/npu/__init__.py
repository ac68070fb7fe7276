"""Verdicts per operator for real NPUs: every module in here that defines TARGETS."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError
from compare.npu.model import Estimate, OperatorVerdict, Placement, Target, TargetVerdict
from compare.tflite.graph import OpenedTflite, open_tflite
from compare.toolchains.environments import Environment, cache_folder

__all__ = [
    "Estimate",
    "OperatorVerdict",
    "Placement",
    "Target",
    "TargetVerdict",
    "by_default",
    "environments",
    "judge",
    "target",
    "targets",
]


@functools.cache
def targets() -> tuple[Target, ...]:
    """Every target, by id; raises `AssertionError` for an id that is given twice."""
    found = sorted(_defined("TARGETS"), key=lambda each: each.id)
    ids = [each.id for each in found]
    if len(set(ids)) != len(ids):
        raise AssertionError(f"ids given twice: {sorted({i for i in ids if ids.count(i) > 1})}")
    return tuple(found)


def by_default() -> tuple[Target, ...]:
    """The targets that every run judges its files for."""
    chosen = [(each.by_default, each.id, each) for each in targets() if each.by_default is not None]
    return tuple(each for *_, each in sorted(chosen, key=lambda place: place[:2]))


def environments() -> tuple[Environment, ...]:
    """What the targets' software is installed in."""
    return tuple(_defined("ENVIRONMENTS"))


def _defined(name: str) -> Iterator[Any]:
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(("_", "ask_")):  # programs
            continue
        yield from getattr(importlib.import_module(f"{__name__}.{module.name}"), name, ())


def target(identity: str) -> Target:
    """The target of this id; raises `BridgeError` that lists the ids when there is none."""
    for each in targets():
        if each.id == identity:
            return each
    raise BridgeError(
        where=f"--target {identity}",
        problem="is not a known target",
        remedy=f"Known are: {', '.join(each.id for each in targets())}.",
    )


def judge(
    content: bytes, where: str = ".tflite", only: Sequence[str] = (), cache: Path | None = None
) -> tuple[TargetVerdict, ...]:
    """The verdict of every target, or of those named; raises `BridgeError` for a file that is not a readable .tflite."""
    chosen = tuple(target(identity) for identity in only) or targets()
    opened = open_tflite(content, where)
    return tuple(_judged_by(each, content, opened, cache or cache_folder()) for each in chosen)


def _judged_by(target: Target, content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    """Rules take operands for what each operator has; of a file that LiteRT does not run they may be anything."""
    from compare.running.trying import tried  # which counts multiplications by this package

    try:
        return target.judge(content, opened, cache)
    except (IndexError, KeyError, ValueError, ZeroDivisionError, OverflowError, TypeError):
        problems = tried(content).problems
        if not problems:
            raise
        raise BridgeError(
            where=f"target '{target.id}'",
            problem=f"is not judged: {problems[0]}",
            remedy="Convert the model again, and check that the file was copied whole.",
        ) from None
