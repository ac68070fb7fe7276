"""What a mismatch is: how to make it, how to see it, how to undo it, and what it costs. Records only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from compare.subjects.case import Case

Side = Literal[
    "PyTorch",
    "ONNX",
    "onnx2tf",
    "TensorFlow converter",
    "Keras/TF-MOT",
    "litert-torch",
    "runtime",
    "NPU",
    "environment",
]

Severity = Literal["fault", "risk", "note"]
SEVERITIES: Mapping[Severity, str] = {
    "fault": "the files are not what was trained, are not integer, or do not run; or a tool stops: mend it",
    "risk": "right as it is here; less exact, slower or refused on another chip, with other data or another version",
    "note": "nothing is wrong; worth knowing before numbers are compared, or a model is trained again",
}
"""What each means, the worst first. Only a fault that is sure makes `compare.doctor --fail` and the assertions fail."""


@dataclass(frozen=True)
class Sighting:
    """A mismatch seen in a case."""

    where: str
    """The tensor, operator, module, package or file."""
    fact: str
    """The numbers that show it."""
    remedy: str
    """What to do, for this very place."""
    sure: bool = True
    """False where the same picture can have an innocent cause; the fact says which."""
    severity: Severity | None = None
    """Where this place weighs more or less than its entry; None: as the entry says."""


@dataclass(frozen=True)
class Effect:
    """What a mismatch costs in its reproduction, measured: broken against repaired."""

    quantity: str
    """`outputs that differ (share)`, `largest difference (LSB)`, `accuracy (points)`, `float operators`, ..."""
    at_least: float
    """The recorded size; the test demands as much."""


@dataclass(frozen=True)
class Mismatch:
    """One entry of the catalogue."""

    id: str
    """`M01` ...; the number never changes."""
    name: str
    side: Side
    severity: Severity
    """Of a sighting that does not say otherwise."""
    versions: str
    """What it was seen with."""
    source: str
    """Who reported it: repository and issue number, kernel file, specification section."""
    cause: str
    """What goes wrong, in a few sentences for a user."""
    way_out: str
    """What to change."""
    detect: Callable[[Case], Iterator[Sighting]]
    reproduce: Callable[[], Case]
    """The smallest real case that shows it: seconds, no network, always the same."""
    repair: Callable[[Case], Case]
    """The way out applied to a case; where `automatic` is False, to the reproduction only."""
    measure: Callable[[Case, Case], float]
    """The effect's quantity of (broken, repaired)."""
    effect: Effect
    automatic: bool = True
    requantizes: bool = False
    """The repair rounds numbers of the file again: where several are applied, what is damaged must be mended first."""
    brings: tuple[str, ...] = ()
    """Ids of other entries that are rightly seen in the reproduction."""
