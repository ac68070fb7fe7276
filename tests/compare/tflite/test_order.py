"""Inputs and outputs of files beside those of their models: kept names, TensorFlow's names, numbers, places."""

import pytest

from compare.tflite.order import paired


@pytest.mark.parametrize(
    ("model", "file", "found"),
    [
        (["a", "b"], ["b", "a"], ["b", "a"]),
        (["a", "b"], ["serving_default_b:0", "serving_default_a:0"], ["b", "a"]),
        (["x/left", "x.right"], ["serving_default_x_right:0", "serving_default_x_left:0"], ["x.right", "x/left"]),
        (["map", "boxes", "scores"], ["PartitionedCall:1", "PartitionedCall:0", "PartitionedCall:2"], ["boxes", "map", "scores"]),
        (["one", "two"], ["StatefulPartitionedCall_1:1", "StatefulPartitionedCall_1:0"], ["two", "one"]),
        (["one", "two"], ["p", "q"], ["one", "two"]),
        (["one", "two"], ["PartitionedCall:1", "q"], ["one", "two"]),
        (["one", "two"], ["PartitionedCall:1", "PartitionedCall:1"], ["one", "two"]),
        (["one"], ["p", "q"], ["one"]),
        (["one", "two"], ["PartitionedCall:0"], ["one"]),
        (["a.b", "a/b"], ["serving_default_a_b:0", "serving_default_a_b_1:0"], ["a.b", "a/b"]),
    ],
)  # fmt: skip
def test_each_of_the_files_has_its_own_of_the_models(model, file, found):
    assert paired(model, file) == found
