"""The instrument itself: differences planted in each kind of output come back as the right number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bridge.verifying.distance import distance, distance_on_grid, exact_distance, joined, real_distance


def codes(*values, dtype=np.int8):
    return np.array(values, dtype)


def real(*values):
    return np.array(values, np.float32)


def test_a_distance_counts_how_many_codes_are_how_far_away():
    found = distance(codes(0, 1, 2, 5), codes(0, 2, 1, 2))
    assert found.histogram == {0: 1, 1: 2, 3: 1}
    assert (found.equal, found.worst) == (0.25, 3)


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.int8, -128, 127), (np.uint8, 0, 255)])
def test_a_distance_does_not_wrap_around(dtype, low, high):
    assert distance(codes(low, dtype=dtype), codes(high, dtype=dtype)).worst == 255
    assert distance(codes(high, dtype=dtype), codes(low, dtype=dtype)).worst == 255


def test_a_changed_argmax_is_counted_for_a_vector_per_sample_with_what_the_reference_preferred_by():
    found = distance(codes([1, 2], [3, 1], [9, 0]), codes([1, 2], [1, 3], [9, 0]))
    assert (found.argmax_changed, found.margin, found.samples) == (1, 2, 3)


def test_there_is_no_argmax_of_an_image():
    assert distance(codes([[1, 2]]), codes([[2, 1]])).argmax_changed is None


def test_the_range_of_codes_is_what_the_reference_gave_from_zero_on():
    found = distance(codes(4, 10), codes(0, 10), zero_point=-10)  # 10 and 20 steps of real value
    assert (found.spans.low, found.spans.high) == (0, 20)
    assert found.fraction == 4 / 20


def test_probabilities_are_not_cut_to_integers():
    found = real_distance(real([0.9, 0.1], [0.2, 0.8]), real([0.5, 0.5], [0.2, 0.8]))
    assert found.difference == pytest.approx(0.4)
    assert found.equal == 0.5
    assert found.spans.high == pytest.approx(0.8)
    assert found.fraction == pytest.approx(0.5)
    assert found.worst == pytest.approx(127.5)
    assert found.argmax_changed == 0


def test_a_difference_of_real_numbers_is_a_part_of_their_range_whatever_their_size():
    small, large = (real_distance(size * real(1, 2, 4), size * real(1, 2, 5)) for size in (1e-20, 1e20))
    assert small.fraction == pytest.approx(large.fraction) == pytest.approx(0.2)


def test_the_last_bit_of_a_real_number_is_seen():
    one = np.float32(1)
    assert real_distance(real(np.nextafter(one, np.float32(2))), real(one)).equal == 0


def test_real_numbers_on_a_grid_are_counted_in_its_steps():
    found = distance_on_grid(real(0.5, 1.0, 1.5), real(0.5, 0.5, 0.0), 0.5)
    assert found.histogram == {0: 1, 1: 1, 3: 1}
    assert found.fraction == 3


def test_a_part_of_a_step_is_a_step_and_the_last_bit_is_none():
    assert distance_on_grid(real(0.2), real(0.0), 0.5).worst == 1
    assert distance_on_grid(real(np.nextafter(np.float32(64), np.float32(65))), real(64.0), 0.5).worst == 0


@pytest.mark.parametrize("compare", [real_distance, lambda a, b: distance_on_grid(a, b, 0.5)])
@pytest.mark.parametrize(
    ("values", "reference", "not_finite"),
    [
        ([math.nan, 1.0], [0.0, 1.0], 1),
        ([0.0, 1.0], [math.nan, 1.0], 1),
        ([math.nan, math.nan], [math.nan, math.nan], 2),
        ([math.inf, 1.0], [0.0, 1.0], 1),
        ([math.inf, 1.0], [-math.inf, 1.0], 1),
        ([math.inf, 1.0], [math.inf, 1.0], 0),
    ],
    ids=["file", "reference", "both", "infinity", "other-sign", "same-infinity"],
)
def test_what_is_not_finite_is_counted_and_infinitely_far(compare, values, reference, not_finite):
    found = compare(real(*values), real(*reference))
    assert found.not_finite == not_finite
    assert found.worst == (math.inf if not_finite else 0)
    assert "not finite" in str(found) or not not_finite


def test_a_difference_where_the_reference_gave_nothing_but_zero_is_infinite():
    assert real_distance(real(1e-9), real(0.0)).fraction == math.inf
    assert real_distance(real(0.0), real(0.0)).fraction == 0


def test_integers_are_equal_or_not():
    found = exact_distance(np.array([1, 2, 2**62]), np.array([1, 3, 2**62 + 1]))
    assert (found.differing, found.count) == (2, 3)
    assert found.worst == math.inf
    assert exact_distance(np.array([7]), np.array([7])).worst == 0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["codes", "grid", "real", "exact"])
def test_batches_joined_are_all_samples_at_once(kind, seed):
    random = np.random.default_rng(seed)
    values, reference = random.integers(-128, 128, (2, 12, 3))
    compare = {
        "codes": lambda a, b: distance(a, b, 3),
        "grid": lambda a, b: distance_on_grid(a * np.float32(0.5), b * np.float32(0.5), 0.5),
        "real": lambda a, b: real_distance(a.astype(np.float32), b.astype(np.float32)),
        "exact": exact_distance,
    }[kind]
    parts = [compare(values[i : i + 4], reference[i : i + 4]) for i in (0, 4, 8)]
    assert joined(parts) == compare(values, reference)
