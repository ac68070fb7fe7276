"""By which operator one trained scale becomes another."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.exact.arithmetic import dequantize, quantize
from bridge.exact.requantize import requantized_by
from bridge.exact.writer import write
from bridge.verifying.litert import Runner
from tests.builders import activation, ops, single_node

X, Y = activation("x", (1, 256), 0.5, 3), activation("y", (1, 256), 0.3, -7)


def change(x=X, y=Y, by="ADD"):
    return requantized_by(by, single_node("QUANTIZE", x, output=y))


def test_a_change_of_scale_is_an_addition_of_zero():
    graph = change()
    (node,) = graph.nodes
    zero = graph.operands(node)[1]
    assert (node.op, node.attrs) == ("ADD", {"fused_activation": "NONE"})
    assert (zero.values.item(), str(zero.q)) == (0, "scale 0.5, zero point 0")


def test_quantize_is_kept_where_it_is_asked_for():
    assert ops(change(by="QUANTIZE")) == ["QUANTIZE"]


def test_the_border_from_float_stays_a_quantize():
    assert ops(change(x=activation("x", (1, 4)))) == ["QUANTIZE"]


def test_a_change_to_a_scale_that_add_cannot_reach_stays_a_quantize():
    assert ops(change(y=activation("y", (1, 256), 0.5 / 2**20))) == ["QUANTIZE"]


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_every_code_is_rescaled_exactly_by_addition(kernels):
    codes = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    got = Runner(write(change()), kernels)({"x": codes})["y"]
    # 0.5 / 0.3 makes no ties, so that every rounding agrees: 0 LSB.
    assert_array_equal(got, quantize(dequantize(codes, X.q), Y.q))
