"""How long files take on this machine's CPU, taken in turns, so that what slows the machine down slows all of them down."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.verifying import litert

ROUNDS = 15
"""Every file has its turn in each; an odd number, so that the median is one of them."""
TURN_SECONDS = 0.002
"""Of one file in one round: long against the clock's resolution, short against what else goes on."""
MOST_RUNS = 200
_WARM_UP = 10
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Timing:
    """One inference in milliseconds, batch 1, one thread."""

    median_ms: float
    """Of the rounds; each round counts by its own median."""
    low_ms: float
    high_ms: float
    """The interval that holds the median of all such rounds with at least `CONFIDENCE`."""
    p90_ms: float
    """What nine out of ten inferences stay under, all rounds together."""


def interleaved(files: Mapping[str, bytes], *, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time .tflite files round by round, in another order each time; inputs are zeros, as kernels do not look at them.

    For a worker process. Raises `BridgeError` when LiteRT refuses a file.
    """
    ready = {name: _warm(content) for name, content in files.items()}
    counts = {name: _runs(each) for name, each in ready.items()}
    order, random = list(files), np.random.default_rng(seed)
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in files}
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            seconds[name].append(_turn(ready[name], counts[name]))
    return {name: timing(each) for name, each in seconds.items()}


def timing(turns: list[np.ndarray]) -> Timing:
    """Of the seconds of every inference, round by round."""
    medians = np.sort([np.median(each) for each in turns]) * 1e3
    low, high = interval_ranks(len(medians))
    p90 = float(np.percentile(np.concatenate(turns), 90)) * 1e3
    return Timing(float(np.median(medians)), float(medians[low]), float(medians[high]), p90)


def interval_ranks(count: int) -> tuple[int, int]:
    """Places (from 0) of the sorted values that hold the median between them with at least `CONFIDENCE`.

    Order statistics: each value is below the median with probability 1/2, whatever the distribution. With fewer than six
    values the whole range is less than that, and is what there is.
    """
    place, missed = 0, 0.0
    for candidate in range(count // 2):
        missed += 2 * math.comb(count, candidate) / 2**count  # the median is beyond it, on either side
        if missed > 1 - CONFIDENCE:
            break
        place = candidate
    return place, count - 1 - place


def _warm(content: bytes) -> Any:
    ready = litert.interpreter(content, where="LiteRT")
    for detail in ready.get_input_details():
        ready.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    for _ in range(_WARM_UP):
        ready.invoke()
    return ready


def _runs(ready: Any) -> int:
    """Of a turn, from the quickest of a few."""
    return int(min(MOST_RUNS, max(1, TURN_SECONDS / max(_turn(ready, 5).min(), 1e-9))))


def _turn(ready: Any, runs: int) -> np.ndarray:
    seconds = np.empty(runs)
    for index in range(runs):
        started = time.perf_counter()
        ready.invoke()
        seconds[index] = time.perf_counter() - started
    return seconds
