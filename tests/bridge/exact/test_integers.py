import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.exact.integers import cut, exactly


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(
    size=st.integers(1, 6),
    start=st.integers(-9, 9),
    end=st.integers(-9, 9),
    step=st.sampled_from([-7, -2, -1, 1, 2, 7]),
)
def test_a_cut_takes_what_the_specification_says(size, start, end, step):
    # Effective values first, then clamped: ONNX operator specification, Slice-13.
    first, last = (n + size if n < 0 else n for n in (start, end))
    if step > 0:
        first, last = min(max(first, 0), size), min(max(last, 0), size)
    else:
        first, last = min(max(first, 0), size - 1), min(max(last, -1), size - 1)
    taken = []
    while (step > 0 and first < last) or (step < 0 and first > last):
        taken.append(first)
        first += step
    assert list(cut(start, end, step, size)) == taken


@pytest.mark.parametrize("end", [2**63 - 1, 5])
@pytest.mark.parametrize("step", [2**63 - 1, 5])
def test_a_cut_does_not_wrap_around(step, end):
    assert list(cut(-(2**63), end, step, 5)) == [0]


def test_whole_numbers_that_leave_their_type_are_refused_and_real_ones_are_not():
    largest = np.array([2**63 - 1])
    with pytest.raises(ValueError, match="9223372036854775808 does not fit int64"):
        exactly(np.add, largest, np.array([1]))
    with pytest.raises(ValueError, match="a division by zero"):
        exactly(np.mod, largest, np.array([0]))
    assert exactly(np.multiply, np.array([3], np.int32), np.array([4], np.int32)).dtype == np.int32
    assert exactly(np.add, np.float32([1e38]), np.float32([3e38])) == np.inf
