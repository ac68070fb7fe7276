"""Operators that only move codes."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from tests.builders import activation, float_constant, lowered

X = activation("x", (1, 4, 4, 2), 0.5, 1)


def one(op, *operands, output=X, **attrs):
    """The only operator, and what its constant operands hold."""
    output = output if isinstance(output, list) else activation("y", output.shape, 0.5, 1)
    graph = lowered(op, *operands, output=output, **attrs)
    (node,) = graph.nodes
    return node, [tensor.values.tolist() for tensor in graph.operands(node) if tensor.is_constant]


def test_reshape_has_the_shape_of_its_output():
    node, (shape,) = one("Reshape", X, output=activation("y", (1, 32), 0.5))
    assert (node.op, shape) == ("RESHAPE", [1, 32])


def test_transpose_has_its_permutation():
    node, (perm,) = one("Transpose", X, perm=(0, 3, 1, 2))
    assert (node.op, perm) == ("TRANSPOSE", [0, 3, 1, 2])


def test_concat_has_its_axis_and_its_inputs_in_order():
    node, _ = one("Concat", X, activation("z", (1, 4, 4, 2), 0.5, 1), axis=3)
    assert (node.op, node.inputs, node.attrs) == ("CONCATENATION", ("x", "z"), {"axis": 3})


PARTS = [activation(name, (1, 4, 4, 1), 0.5, 1) for name in ("y", "z")]


def test_split_into_equal_parts_takes_the_axis_first():
    node, (axis,) = one("Split", X, output=PARTS, axis=3, sizes=[1, 1])
    assert (node.op, axis, node.attrs, node.inputs[1]) == ("SPLIT", 3, {"num_splits": 2}, "x")


def test_split_into_other_parts_names_their_sizes():
    node, (sizes, axis) = one("Split", X, output=PARTS, axis=1, sizes=[1, 3])
    assert (node.op, sizes, axis) == ("SPLIT_V", [1, 3], 1)


def test_slice_has_begin_end_and_strides():
    node, numbers = one("Slice", X, begin=[0, 1, 0, 0], end=[1, 3, 4, 2], strides=[1, 2, 1, 1])
    assert (node.op, numbers) == ("STRIDED_SLICE", [[0, 1, 0, 0], [1, 3, 4, 2], [1, 2, 1, 1]])


def pad(value=0.0, **attrs):
    return one("Pad", X, paddings=[(0, 0), (1, 1), (2, 0), (0, 0)], value=value, **attrs)


def test_pad_with_zeros_leaves_the_zero_point_to_the_kernel():
    node, (paddings,) = pad()
    assert (node.op, paddings) == ("PAD", [[0, 0], [1, 1], [2, 0], [0, 0]])


def test_pad_with_another_value_is_a_code_of_the_tensor():
    node, (_, value) = pad(1.5)
    assert (node.op, value) == ("PADV2", 4)  # 1.5 / 0.5 + 1


def test_pad_by_reflection_is_mirror_pad():
    node, _ = pad(mode="reflect")
    assert (node.op, node.attrs) == ("MIRROR_PAD", {"mode": "REFLECT"})


def test_pad_by_the_edge_is_refused():
    with pytest.raises(BridgeError, match="Pad 'node': pads in mode 'edge'"):
        pad(mode="edge")


def test_pad_by_a_negative_amount_is_refused():
    with pytest.raises(BridgeError, match="or by a negative amount"):
        one("Pad", X, paddings=[(0, 0), (-1, 0), (0, 0), (0, 0)], value=0.0)


def test_gather_has_its_indices_and_axis():
    node, (indices,) = one("Gather", X, axis=3, indices=np.array([1, 0], np.int32))
    assert (node.op, indices, node.attrs) == ("GATHER", [1, 0], {"axis": 3})


def resize(size=8, mode="nearest", centre="asymmetric", rounding="floor", scales=None, x=X, **attrs):
    y = activation("y", (1, size, size, 2), 0.5, 1)
    given = None if scales is None else float_constant("scales", scales)
    attrs = {"mode": mode, "coordinate_transformation_mode": centre, "nearest_mode": rounding, **attrs}
    graph = lowered("Resize", x, None, given, output=y, **attrs)
    (node,) = graph.nodes
    assert_array_equal(graph.tensors[node.inputs[1]].values, [size, size])
    return node.op, node.attrs["align_corners"], node.attrs["half_pixel_centers"]


@pytest.mark.parametrize(
    ("mode", "centre", "expected"),
    [
        ("nearest", "asymmetric", ("RESIZE_NEAREST_NEIGHBOR", False, False)),
        ("linear", "asymmetric", ("RESIZE_BILINEAR", False, False)),
        ("linear", "half_pixel", ("RESIZE_BILINEAR", False, True)),
        ("linear", "pytorch_half_pixel", ("RESIZE_BILINEAR", False, True)),
        ("linear", "align_corners", ("RESIZE_BILINEAR", True, False)),
    ],
)
def test_resize_samples_where_onnx_does(mode, centre, expected):
    assert resize(mode=mode, centre=centre) == expected


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil"])
def test_nearest_at_pixel_centres_is_taken_for_whole_factors(rounding):
    assert resize(12, centre="half_pixel", rounding=rounding) == ("RESIZE_NEAREST_NEIGHBOR", False, False)


@pytest.mark.parametrize(
    "differing",
    [
        {"rounding": "ceil"},
        {"centre": "half_pixel", "rounding": "floor"},
        {"centre": "half_pixel", "rounding": "round_prefer_floor", "size": 6},
        {"mode": "cubic", "centre": "half_pixel"},
        {"mode": "linear", "centre": "half_pixel", "antialias": 1},
        {"mode": "linear", "centre": "half_pixel", "size": 5, "scales": [1, 1, 1.3, 1.3]},
    ],
    ids=["ceil", "half pixel floor", "half pixel 1.5", "cubic", "antialias", "scales are not the sizes"],
)
def test_resize_that_samples_elsewhere_is_refused(differing):
    with pytest.raises(BridgeError, match=r"Resize 'node': resizes by mode .*TFLite's kernels sample elsewhere"):
        resize(**differing)


def test_resize_over_one_axis_is_refused():
    x, y = activation("x", (1, 4, 2), 0.5), activation("y", (1, 8, 2), 0.5)
    with pytest.raises(BridgeError, match=r"factors \[1\.0, 2\.0, 1\.0\]"):
        lowered(
            "Resize", x, output=y, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )
