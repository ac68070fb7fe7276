"""The verdict: a pure function of distances and of what the caller allows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.verifying.distance import distance, exact_distance, real_distance
from bridge.verifying.limits import Limits
from bridge.verifying.verification import Verification


def verification(found, reference=None):
    """Two kernel sets, one output each."""
    return Verification("r", 1, {"xnnpack": {"y": found}, "reference": {"y": reference or found}}, ())


TWO_OF_TEN = distance(np.array([0, 10]), np.array([0, 8]))
HALF = real_distance(np.array([0.0, 1.0]), np.array([0.0, 2.0]))


@pytest.mark.parametrize(
    ("found", "limits", "ok"),
    [
        (TWO_OF_TEN, Limits(), True),
        (TWO_OF_TEN, Limits(max_lsb=2), True),
        (TWO_OF_TEN, Limits(max_lsb=1), False),
        (TWO_OF_TEN, Limits(max_diff=0.25), True),
        (TWO_OF_TEN, Limits(max_diff=0.24), False),
        (HALF, Limits(max_diff=0.5), True),
        (HALF, Limits(max_diff=0.49), False),
        (HALF, Limits(max_lsb=128), True),
        (HALF, Limits(max_lsb=127), False),
        (exact_distance(np.array([3]), np.array([3])), Limits(max_lsb=0), True),
        (exact_distance(np.array([3]), np.array([4])), Limits(max_lsb=200), False),
        (exact_distance(np.array([3]), np.array([4])), Limits(max_diff=1), False),
    ],
)
def test_every_kind_of_output_can_miss_either_limit(found, limits, ok):
    assert verification(found).ok(limits) is ok
    assert bool(verification(found).missed(limits)) is not ok


def test_either_kernel_set_can_miss_a_limit_and_is_named():
    right = distance(np.array([0]), np.array([0]))
    found = verification(right, TWO_OF_TEN)
    assert found.missed(Limits(max_lsb=1)) == ("reference y: 2 LSB, more than --max-lsb 1",)


@pytest.mark.parametrize("limits", [Limits(), Limits(max_lsb=255), Limits(max_diff=1)])
def test_nothing_but_nan_never_passes_not_even_when_the_reference_says_the_same(limits):
    nan = np.full(4, np.nan)
    assert verification(real_distance(nan, nan)).missed(limits) == tuple(
        f"{kernels} y: 4 of 4 values are not finite" for kernels in ("xnnpack", "reference")
    )


def test_a_verification_of_nothing_never_passes():
    assert not Verification("r", 0, {"xnnpack": {}, "reference": {}}, ()).ok(Limits())
    empty = real_distance(np.zeros((0, 3)), np.zeros((0, 3)))
    assert not verification(empty).ok(Limits(max_lsb=1))


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -0.5])
def test_what_is_no_limit_is_refused(value):
    with pytest.raises(BridgeError, match=r"--max-lsb .* is no limit"):
        Limits(max_lsb=value)
    with pytest.raises(BridgeError, match=r"--max-diff .* is no limit"):
        Limits(max_diff=value)


def test_a_percentage_is_not_taken_for_a_fraction():
    with pytest.raises(BridgeError, match="a fraction from 0 to 1"):
        Limits(max_diff=5)
