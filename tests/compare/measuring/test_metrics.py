"""Figures of one .tflite, on values one can compute in the head."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from compare.measuring import metrics
from compare.tflite.file import OperatorInfo, TensorInfo, TfliteFile


def tensor(dtype="int8", scale=(), zero_point=()):
    return TensorInfo("t", (1,), dtype, scale, zero_point, constant=False)


def test_pixels_are_rounded_half_to_even_and_clamped():
    codes = metrics.quantize_input(np.array([0.0, 0.25, 0.75, 1.25, 99.0], np.float32), 0.5, -128, np.int8)
    assert codes.tolist() == [-128, -128, -126, -126, 70]
    assert metrics.quantize_input(np.array([1000.0], np.float32), 0.5, -128, np.int8).tolist() == [127]


def test_accuracy_is_the_share_of_right_classes():
    logits = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert metrics.accuracy(logits, np.array([0, 1, 1, 0])) == 0.75


def test_distance_counts_changed_classes_and_steps():
    reference = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    moved = np.array([[1.0, 0.0], [0.0, -1.0]], np.float32)
    apart = metrics.distance(moved, reference, lsb=0.5)
    assert (apart.disagreements, apart.max_difference, apart.max_lsb, apart.equal) == (1, 2.0, 4.0, 0.75)


def test_activation_roles_follow_the_operators_not_the_names():
    pixels, conv, logits, weight = (tensor(scale=(s,), zero_point=(0,)) for s in (0.1, 0.2, 0.3, 0.4))
    file = TfliteFile(
        operators=(OperatorInfo("CONV_2D", (0, 3, -1), (1,)), OperatorInfo("FULLY_CONNECTED", (1, 3), (2,))),
        tensors=(pixels, conv, logits, weight),
        inputs=(0,),
        outputs=(2,),
    )
    assert metrics.activations(file) == {"input": pixels, "conv": conv, "dense": logits}


def test_activations_left_in_float_have_no_role():
    file = TfliteFile((OperatorInfo("CONV_2D", (0,), (0,)),), (tensor("float32"),), (0,), (0,))
    assert metrics.activations(file) == {}


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (tensor(scale=(0.5,), zero_point=(-3,)), True),
        (tensor("uint8", scale=(0.5,), zero_point=(125,)), True),
        (tensor(scale=(0.5,), zero_point=(-2,)), False),
        (tensor(scale=(0.50001,), zero_point=(-3,)), False),
        (None, False),
    ],
    ids=["equal", "uint8 is shifted by 128", "other zero point", "other scale", "not there"],
)
def test_a_scale_is_kept_when_scale_and_zero_point_are(found, kept):
    assert metrics.keeps(found, (0.5, -3)) is kept


def test_seven_bit_codes_count_as_kept_in_either_place():
    lower = tensor(scale=(0.5,), zero_point=(-128,))
    assert metrics.keeps(lower, (0.5, 0), seven_bit=True)
    assert not metrics.keeps(lower, (0.5, 0))


def test_a_scale_one_unit_in_the_last_place_away_is_the_trained_one():
    near = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert metrics.keeps(tensor(scale=(near,), zero_point=(-3,)), (0.5, -3))


def test_a_file_the_runtime_refuses_is_one_clear_error():
    with pytest.raises(BridgeError, match="LiteRT refuses the model on its xnnpack kernels"):
        metrics.interpreter(b"\x1c\x00\x00\x00TFL3" + bytes(64))
