"""What a target says of a .tflite: one verdict per operator with its reason and source, and what they add up to. Records only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from compare.tflite.graph import OpenedTflite

Placement = Literal["npu-fast", "npu-slow", "driver-cpu", "cpu-fallback", "fails", "unverified"]
PLACEMENTS: tuple[Placement, ...] = ("npu-fast", "npu-slow", "driver-cpu", "cpu-fallback", "fails", "unverified")
ON_THE_NPU: frozenset[Placement] = frozenset({"npu-fast", "npu-slow"})
"""The MAC array or a tensor unit, and the slower shader or vector unit."""

Basis = Literal["compiled", "run", "rules"]
"""The vendor's compiler said so; the runtime really ran it; or rules, each with its source, were applied to the file."""


@dataclass(frozen=True)
class OperatorVerdict:
    """Where one operator of the main subgraph runs, and why."""

    index: int
    """Its place in execution order, from 0."""
    op: str
    """The operator's name in the schema, or `CUSTOM:name`."""
    tensor: str
    """Name of its first output."""
    placement: Placement
    reason: str
    """In words; for `npu-fast` it may be empty."""
    source: str
    """The rule's source line, or the tool and version that said it."""
    macs: int
    """Multiply-accumulates; 0 for what has none."""


@dataclass(frozen=True)
class Estimate:
    """What the vendor's own tool predicts; never comparable between tools."""

    what: str
    """Tool, version and configuration."""
    inference_seconds: float | None = None
    cycles: int | None = None
    memory_bytes: int | None = None
    """SRAM, or the interpreter's arena."""


@dataclass(frozen=True)
class TargetVerdict:
    """One file on one target."""

    target: str
    """Id of the target: `imx93`, `imx8mp`, ..."""
    software: str
    """What judged, with its version."""
    basis: Basis
    operators: tuple[OperatorVerdict, ...]
    estimate: Estimate | None = None
    notes: tuple[str, ...] = ()
    """What holds for the whole file; where a verdict comes from rules or a simulator and not from a board, that too."""

    def count(self, *placements: Placement) -> int:
        """Operators with one of these placements."""
        return sum(each.placement in placements for each in self.operators)

    @property
    def share_of_operators(self) -> float:
        """On the NPU, fast or slow, 0..1; 0 for a file without operators."""
        return self.count(*ON_THE_NPU) / len(self.operators) if self.operators else 0.0

    @property
    def share_of_macs(self) -> float:
        """Multiply-accumulates on the NPU's fast unit, 0..1; 1 for a file without any."""
        total = sum(each.macs for each in self.operators)
        fast = sum(each.macs for each in self.operators if each.placement == "npu-fast")
        return fast / total if total else 1.0

    @property
    def crossings(self) -> int:
        """How often execution order goes from the NPU to the CPU or back; each one costs a copy."""
        sides = [each.placement in ON_THE_NPU for each in self.operators]
        return sum(one != other for one, other in pairwise(sides))

    @property
    def passes(self) -> bool:
        """Everything runs on the NPU's fast unit: nothing falls back, fails, is slow or is not known."""
        return bool(self.operators) and self.count("npu-fast") == len(self.operators)


@dataclass(frozen=True)
class Target:
    """One piece of hardware with the software that runs .tflite files on it."""

    id: str
    name: str
    about: str
    """Which chips, which software, and what the verdicts are based on."""
    basis: Basis
    judge: Callable[[bytes, OpenedTflite, Path], TargetVerdict]
    """The file's bytes, the same file opened, and the cache folder.

    Raises `BridgeError` when the target's own software is not to be had. Software of others runs in a subprocess with
    a time limit: it may crash on odd files.
    """
    prepare: Callable[[Path], object] = lambda cache: None  # noqa: ARG005 - most need nothing
    """Gets the target's own software ready in the cache folder; raises `BridgeError` where it cannot be had."""
    by_default: int | None = None
    """Its place among the targets that every run judges its files for, one of each kind; None: only where it is asked for."""
