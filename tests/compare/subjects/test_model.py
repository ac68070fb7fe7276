"""Figures of what is compared."""

import numpy as np
import pytest

from compare.subjects.model import reference_lsb


def test_one_lsb_is_the_trained_scale_or_a_255th_of_a_float_networks_range():
    logits = np.array([[-1.0, 1.55]], np.float32)
    assert reference_lsb(logits, 0.125) == 0.125
    assert reference_lsb(logits, None) == pytest.approx(0.01)
