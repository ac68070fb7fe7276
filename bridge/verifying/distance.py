"""How two sets of int8 codes differ, in LSBs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distance:
    """How two sets of int8 codes differ; an LSB is one step of the output's scale."""

    count: int
    histogram: Mapping[int, int]
    """How many outputs lie how many LSBs away, signs ignored."""
    argmax_changed: int | None
    """Samples whose largest output is another one; None where outputs are not a vector per sample."""
    samples: int
    margin: int = 0
    """Where the argmax changed: by how many LSBs, at most, the reference preferred its own."""

    @property
    def equal(self) -> float:
        return self.histogram.get(0, 0) / max(self.count, 1)

    @property
    def worst(self) -> int:
        return max(self.histogram, default=0)

    def __str__(self) -> str:
        changed = "" if self.argmax_changed is None else f", {self.argmax_changed} of {self.samples} argmax changed"
        changed += f" (within {self.margin} LSB)" if self.argmax_changed else ""
        return f"{self.equal:.4%} equal, worst {self.worst} LSB{changed}"


def distance(codes: np.ndarray, reference: np.ndarray) -> Distance:
    """The distance of int8 codes (samples, ...) from reference codes of the same shape."""
    apart = np.abs(codes.astype(np.int32) - reference.astype(np.int32))
    steps, counts = np.unique(apart, return_counts=True)
    changed, margin = None, 0
    if codes.ndim == 2 and codes.shape[1] > 1:
        changed = int(np.count_nonzero(codes.argmax(1) != reference.argmax(1)))
        preferred = np.take_along_axis(reference, codes.argmax(1)[:, None], 1)[:, 0].astype(np.int32)
        margin = int((reference.max(1) - preferred).max(initial=0))
    histogram = {int(step): int(count) for step, count in zip(steps, counts, strict=True)}
    return Distance(int(apart.size), histogram, changed, len(codes), margin)
