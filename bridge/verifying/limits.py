"""How far a caller lets a file be from its reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.errors import BridgeError
from bridge.verifying.distance import AnyDistance, Distance, RealDistance


@dataclass(frozen=True)
class Limits:
    """The largest difference of an output that passes; None: any.

    `max_lsb` is in steps of the output's scale; of a float output, in 1/255 of the range that the reference gave.
    `max_diff` is a fraction of the range that the reference gave on the samples, zero included: 0.01 is 1 %.
    Outputs that are NaN, or infinite on one side only, never pass; integers pass where they are equal, once a limit is set.
    """

    max_lsb: float | None = None
    max_diff: float | None = None

    def __post_init__(self) -> None:
        for option, value, highest in (("--max-lsb", self.max_lsb, math.inf), ("--max-diff", self.max_diff, 1.0)):
            if value is not None and not (0 <= value <= highest and math.isfinite(value)):
                raise BridgeError(
                    where=f"{option} {value}",
                    problem="is no limit: "
                    + ("it takes 0 or more LSB" if option == "--max-lsb" else "it takes a fraction from 0 to 1"),
                    remedy="For example: --max-lsb 1"
                    if option == "--max-lsb"
                    else "For 1 % of the range: --max-diff 0.01",
                )

    def missed(self, found: AnyDistance) -> Iterator[str]:
        """What the distance misses, a sentence each."""
        if isinstance(found, Distance | RealDistance) and found.not_finite:
            yield f"{found.not_finite} of {found.count} values are not finite"
            return
        if self.max_lsb is not None and found.worst > self.max_lsb:
            yield f"{_number(found.worst)} LSB, more than --max-lsb {self.max_lsb:g}"
        if self.max_diff is not None and found.fraction > self.max_diff:
            yield f"{_percent(found.fraction)} of the range, more than --max-diff {self.max_diff:g}"


def _number(value: float) -> str:
    return "infinitely many" if math.isinf(value) else f"{value:.4g}"


def _percent(value: float) -> str:
    return "an infinite part" if math.isinf(value) else f"{value:.3%}"
