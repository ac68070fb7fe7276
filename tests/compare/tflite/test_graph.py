"""Files that two kernels read as two networks are not opened as if they were one."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import Node
from compare.mismatches.parts.files import activation, codes, tflite_of
from compare.tflite.graph import open_tflite


def depthwise(multiplier: int) -> bytes:
    """Four channels, four filters, and what the option says of them."""
    options = {
        "padding": "VALID", "stride_w": 1, "stride_h": 1, "depth_multiplier": multiplier, "fused_activation": "NONE",
        "dilation_w_factor": 1, "dilation_h_factor": 1,
    }  # fmt: skip
    x, y = activation("x", (1, 2, 2, 4), 0.5), activation("y", (1, 2, 2, 4), 0.5)
    weight = codes("w", np.ones((1, 1, 1, 4)), [0.5] * 4, axis=3)
    bias = codes("b", np.zeros(4), [0.25] * 4, axis=0, dtype=np.int32)
    node = Node("DEPTHWISE_CONV_2D", "conv", ("x", "w", "b"), ("y",), options)
    return tflite_of([node], [x, weight, bias, y], ["x"], ["y"])


@pytest.mark.parametrize("multiplier", [2, 4])
def test_a_depth_multiplier_that_the_shapes_contradict_is_refused_because_xnnpack_computes_with_it(multiplier):
    with pytest.raises(BridgeError, match=f"4 filters for 4 channels and depth multiplier {multiplier}"):
        open_tflite(depthwise(multiplier))


@pytest.mark.parametrize("multiplier", [0, 1])
def test_a_depth_multiplier_that_fits_or_is_not_given_is_read(multiplier):
    assert open_tflite(depthwise(multiplier)).graph.nodes[0].op == "DEPTHWISE_CONV_2D"


def moved(op: str, dtype: type) -> bytes:
    """An operator that only moves values: x of `dtype`, y int8."""
    x = codes("x", np.ones((1, 4)), 0.5, dtype=dtype)
    y = activation("y", (1, 4) if op != "CONCATENATION" else (1, 8), 0.5)
    other = codes("shape", [1, 4], 1.0, dtype=np.int32)
    inputs = ("x", "shape") if op != "CONCATENATION" else ("z", "x")
    return tflite_of([Node(op, "moves", inputs, ("y",), {})], [x, activation("z", (1, 4), 0.5), other, y], ["z"], ["y"])


@pytest.mark.parametrize("op", ["RESHAPE", "TRANSPOSE", "GATHER", "PAD", "CONCATENATION"])
def test_an_operator_that_would_move_values_as_another_type_is_refused_because_kernels_run_over_their_buffers(op):
    with pytest.raises(BridgeError, match=f"{op} reads .*int32.* and writes int8"):
        open_tflite(moved(op, np.int32))
    assert open_tflite(moved(op, np.int8)).graph.nodes[0].op == op
