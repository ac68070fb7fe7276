"""A file that two kernel sets compute in two ways is no file to ship, and a gate says so."""

import numpy as np

from bridge.exact.graph import Node
from compare.measuring.drift import trace_tflite
from compare.measuring.kernel_sets import disagreement
from compare.mismatches.parts.files import activation, codes, tflite_of


def summed(scale):
    """x + 0 at a scale of its own."""
    zero = codes("zero", 0, 1.0)
    node = Node("ADD", "add", ("x", "zero"), ("y",), {"fused_activation": "NONE"})
    return tflite_of(
        [node], [activation("x", (1, 32), 1.0, 127), zero, activation("y", (1, 32), scale, -128)], ["x"], ["y"]
    )


SAMPLES = [np.linspace(-255, 0, 32, dtype=np.float32).reshape(1, 32)]
"""As many as built-in kernels compute at once."""


def test_an_operator_that_one_kernel_set_wraps_around_is_named():
    content = summed(1 / 200)
    said = disagreement(content, trace_tflite(content, SAMPLES))
    assert said is not None
    assert said.startswith("it is two networks: ADD 'y' gives codes up to 255 apart")


def test_kernel_sets_that_only_round_otherwise_agree():
    content = summed(1 / 3)
    assert disagreement(content, trace_tflite(content, SAMPLES)) is None
