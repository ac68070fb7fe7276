"""How two sets of numbers differ: codes in LSBs, real numbers in units of their range, integers by being equal or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

STEPS = 255
"""From the lowest int8 code to the highest: 1 LSB of a real output is this part of its range."""


@dataclass(frozen=True)
class Range:
    """From the lowest to the highest value that the reference gave, zero included, as every quantized range has it."""

    low: float = 0.0
    high: float = 0.0

    @property
    def width(self) -> float:
        return self.high - self.low

    def joined(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Distance:
    """How codes differ, or real numbers on their grid; an LSB is one step of the output's scale."""

    count: int
    histogram: Mapping[int, int]
    """How many outputs lie how many LSBs away, signs ignored; without those that are not finite."""
    argmax_changed: int | None
    """Samples whose largest output is another one; None where outputs are not a vector per sample."""
    samples: int
    margin: int = 0
    """Where the argmax changed: by how many LSBs, at most, the reference preferred its own."""
    not_finite: int = 0
    """Outputs that are NaN, or infinite on one side only."""
    spans: Range = Range()
    """In LSB from the zero point: what the reference gave."""

    @property
    def equal(self) -> float:
        """The share of outputs that are equal."""
        return self.histogram.get(0, 0) / max(self.count, 1)

    @property
    def worst(self) -> float:
        """The largest difference in LSB; infinite where one side is not finite."""
        return math.inf if self.not_finite else max(self.histogram, default=0)

    @property
    def fraction(self) -> float:
        """The largest difference as a part of the range that the reference gave."""
        return _part(self.worst, self.spans.width)

    def joined(self, other: Distance) -> Distance:
        """Both of them: more samples of the same output."""
        histogram = dict(self.histogram)
        for step, count in other.histogram.items():
            histogram[step] = histogram.get(step, 0) + count
        return Distance(
            self.count + other.count,
            dict(sorted(histogram.items())),
            _sum(self.argmax_changed, other.argmax_changed),
            self.samples + other.samples,
            max(self.margin, other.margin),
            self.not_finite + other.not_finite,
            self.spans.joined(other.spans),
        )

    def __str__(self) -> str:
        worst = _infinite(self.not_finite) if self.not_finite else f"worst {self.worst} LSB"
        return f"{self.equal:.4%} equal, {worst}{_changed(self, f'{self.margin} LSB')}"


@dataclass(frozen=True)
class RealDistance:
    """How real numbers without a grid differ; an LSB of theirs is 1/255 of the range that the reference gave."""

    count: int
    differing: int
    """How many are not equal to the last bit."""
    difference: float
    """The largest difference of two finite numbers, in the output's own unit."""
    argmax_changed: int | None
    samples: int
    margin: float = 0.0
    """Where the argmax changed: by how much, at most, the reference preferred its own."""
    not_finite: int = 0
    spans: Range = Range()

    @property
    def equal(self) -> float:
        """The share of outputs that are equal to the last bit."""
        return 1 - self.differing / max(self.count, 1)

    @property
    def fraction(self) -> float:
        """The largest difference as a part of the range that the reference gave; infinite where one is not finite."""
        return math.inf if self.not_finite else _part(self.difference, self.spans.width)

    @property
    def worst(self) -> float:
        """The largest difference in steps of 1/255 of the range that the reference gave."""
        return self.fraction * STEPS

    def joined(self, other: RealDistance) -> RealDistance:
        """Both of them: more samples of the same output."""
        return RealDistance(
            self.count + other.count,
            self.differing + other.differing,
            max(self.difference, other.difference),
            _sum(self.argmax_changed, other.argmax_changed),
            self.samples + other.samples,
            max(self.margin, other.margin),
            self.not_finite + other.not_finite,
            self.spans.joined(other.spans),
        )

    def __str__(self) -> str:
        worst = f"worst {self.difference:.3g}, {_percent(self.fraction)} of the range"
        worst = _infinite(self.not_finite) if self.not_finite else worst
        return f"{self.equal:.4%} equal, {worst}{_changed(self, f'{self.margin:.3g}')}"


@dataclass(frozen=True)
class ExactDistance:
    """How many integers differ (an index, a count); there is no small difference between them."""

    count: int
    differing: int
    samples: int
    argmax_changed: None = None

    @property
    def equal(self) -> float:
        return 1 - self.differing / max(self.count, 1)

    @property
    def worst(self) -> float:
        """0, or infinite: beyond every limit."""
        return math.inf if self.differing else 0.0

    @property
    def fraction(self) -> float:
        return self.worst

    def joined(self, other: ExactDistance) -> ExactDistance:
        """Both of them: more samples of the same output."""
        return ExactDistance(self.count + other.count, self.differing + other.differing, self.samples + other.samples)

    def __str__(self) -> str:
        return f"{self.equal:.4%} equal, {self.differing} of {self.count} integers differ"


AnyDistance = Distance | RealDistance | ExactDistance


def distance(codes: np.ndarray, reference: np.ndarray, zero_point: int = 0) -> Distance:
    """The distance of integer codes (samples, ...) from reference codes of the same shape."""
    codes, reference = codes.astype(np.int64), reference.astype(np.int64)
    changed, margin = _argmax(codes, reference)
    steps = _counted(np.abs(codes - reference))
    return Distance(codes.size, steps, changed, len(codes), int(margin), spans=_range(reference - zero_point))


def distance_on_grid(real: np.ndarray, reference: np.ndarray, scale: float) -> Distance:
    """The distance of real numbers (samples, ...) from reference ones on a grid, in its steps: a dequantized output."""
    apart, not_finite = _differences(real, reference)
    steps = apart / scale
    # Less than a hundredth of a step is float32; anything else is one step at least.
    whole = np.where(steps > 0.01, np.maximum(np.rint(steps), 1), 0)
    changed, margin = _argmax(real, reference)
    spans = _range(reference / scale)
    return Distance(real.size, _counted(whole), changed, len(real), round(margin / scale), not_finite, spans)


def real_distance(real: np.ndarray, reference: np.ndarray) -> RealDistance:
    """The distance of real numbers (samples, ...) from reference ones of the same shape."""
    apart, not_finite = _differences(real, reference)
    changed, margin = _argmax(real, reference)
    differing = int(np.count_nonzero(apart)) + not_finite
    largest = float(apart.max(initial=0.0))
    return RealDistance(real.size, differing, largest, changed, len(real), margin, not_finite, _range(reference))


def exact_distance(values: np.ndarray, reference: np.ndarray) -> ExactDistance:
    """The distance of integers or truth values (samples, ...) from reference ones of the same shape."""
    return ExactDistance(values.size, int(np.count_nonzero(values != reference)), len(values))


def joined(distances: Sequence[Any]) -> Any:
    """Distances of one output on several batches, all of one kind, as one."""
    return reduce(lambda one, other: one.joined(other), distances)


def _differences(values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, int]:
    """Differences of what is finite or the same infinity on both sides, signs ignored; and how many others there are.

    NaN on both sides is no agreement: nothing was compared there.
    """
    values, reference = values.astype(np.float64), reference.astype(np.float64)
    same = values == reference
    compared = same | (np.isfinite(values) & np.isfinite(reference))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(values - reference))
    return apart[compared], int(np.count_nonzero(~compared))


def _counted(steps: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(steps, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def _argmax(values: np.ndarray, reference: np.ndarray) -> tuple[int | None, float]:
    """How often the largest of a sample is another one, and by how much the reference preferred its own."""
    if values.ndim != 2 or values.shape[1] < 2:
        return None, 0.0
    theirs = values.argmax(1)
    changed = theirs != reference.argmax(1)
    preferred = np.take_along_axis(reference, theirs[:, None], 1)[:, 0]
    margins = (reference.max(1).astype(np.float64) - preferred)[changed]
    return int(np.count_nonzero(changed)), float(margins[np.isfinite(margins)].max(initial=0.0))


def _range(values: np.ndarray) -> Range:
    finite = values[np.isfinite(values)]
    return Range(float(finite.min(initial=0)), float(finite.max(initial=0)))


def _part(difference: float, width: float) -> float:
    if difference == 0:
        return 0.0
    return difference / width if width > 0 else math.inf


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _percent(value: float) -> str:
    return f"{value:.3%}" if math.isfinite(value) else "infinitely many times"


def _infinite(count: int) -> str:
    return f"{count} not finite"


def _changed(found: Distance | RealDistance, margin: str) -> str:
    if found.argmax_changed is None:
        return ""
    within = f" (within {margin})" if found.argmax_changed else ""
    return f", {found.argmax_changed} of {found.samples} argmax changed{within}"
