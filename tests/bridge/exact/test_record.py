"""What a conversion says of itself: one record for programs, a few lines for people."""

import json

import pytest

from bridge.exact.convert import Options, convert
from bridge.exact.record import lines, record, scales_kept, warnings
from tests.builders import Pair, float_constant, integers, qdq_model, weight

PAIRS = {"x": Pair(0.5, -3), "c": Pair(0.25, 4)}


def conversion(codes=1, **options):
    """Conv to a trained scale, then a Sigmoid without a pair."""
    model = qdq_model(
        ("Conv", "x w", "c"), ("Sigmoid", "c", "y"),
        inputs={"x": (1, 1, 2, 2)}, pairs=PAIRS, outputs="y", constants=[weight("w", [[[[codes]]]], [0.5])],
    )  # fmt: skip
    return convert(model, Options(**options))


def test_the_record_is_plain_data():
    made = record(conversion())
    assert json.loads(json.dumps(made)) == made


def test_the_record_describes_inputs_and_outputs():
    made = record(conversion())
    assert made["inputs"]["x"] == {
        "shape": [1, 2, 2, 1],
        "axes": [0, 2, 3, 1],
        "layout": "N,H,W,C",
        "dtype": "int8",
        "quantization": {"scale": 0.5, "zero_point": -3},
    }
    assert made["outputs"]["y"]["quantization"] == {"scale": 1 / 256, "zero_point": -128}
    assert made["operators_out"] == {"CONV_2D": 1, "LOGISTIC": 1}


def test_float_inputs_have_no_quantization():
    assert record(conversion(io="float32"))["inputs"]["x"]["quantization"] is None


def test_trained_scales_are_counted_without_what_tflite_prescribes_and_what_is_derived():
    assert scales_kept(conversion()) == 3  # x, w, c: not the bias, and not the output of the sigmoid


def test_the_lines_say_what_goes_in_and_comes_out():
    said = "\n".join(lines(conversion()))
    assert "out   CONV_2D 1, LOGISTIC 1" in said
    assert "takes x int8 [1, 2, 2, 1] N,H,W,C, scale 0.5, zero point -3" in said
    assert "kept  3 trained scales, 1 fixed" in said


def test_what_should_not_be_overlooked_is_counted_with_its_first_place():
    model = qdq_model(
        ("Gemm", "x w", "c", {"transB": 1}),
        inputs={"x": (1, 2)}, pairs=PAIRS, outputs="c", constants=[weight("w", [[-128, -128]], [0.5])],
    )  # fmt: skip
    (said,) = warnings(convert(model))
    assert said.startswith(
        "1 weights whose codes of -128 are not as trained, or are wrong on ARM; first: FULLY_CONNECTED 'c', "
        "weight 'w/c': 2 codes of -128 in channel 0 of 1, made -127: "
    )


def test_codes_that_are_harmless_are_no_warning():
    assert list(warnings(conversion(codes=-128))) == []


def test_a_sound_conversion_has_no_warnings():
    assert list(warnings(conversion())) == []


@pytest.mark.parametrize(
    ("shape", "order", "said"),
    [
        ((1, 2, 3), "nchw", "as in the model"),
        ((1, 2, 3), "nhwc", "N,L,C"),
        ((1, 2, 3, 4), "nhwc", "N,H,W,C"),
        ((1, 2, 3, 4, 5), "nhwc", "N,D,H,W,C"),
        ((1, 2, 1, 2, 1, 2), "nhwc", "axis 0,axis 2,axis 3,axis 4,axis 5,axis 1"),
    ],
)
def test_the_record_and_the_lines_say_what_every_axis_means(shape, order, said):
    model = qdq_model(
        ("Relu", "x", "r"), ("Reshape", "r s", "y"),
        inputs={"x": shape}, pairs=PAIRS, outputs="y", constants=[integers("s", [1, -1])],
    )  # fmt: skip
    done = convert(model, Options(layouts={"x": order}))
    made = record(done)

    assert made["inputs"]["x"]["layout"] == said
    assert [shape[axis] for axis in made["inputs"]["x"]["axes"]] == made["inputs"]["x"]["shape"]
    assert made["outputs"]["y"]["layout"] == "as in the model"
    assert f"takes x int8 {made['inputs']['x']['shape']} {said}, scale" in "\n".join(lines(done))


@pytest.mark.parametrize("allow_float", [False, True])
def test_a_derived_constant_is_a_warning(allow_float):
    model = qdq_model(
        ("Add", "x k", "c"), inputs={"x": (1, 2)}, pairs=PAIRS, outputs="c", constants=[float_constant("k", [1.0])]
    )
    (said,) = warnings(convert(model, Options(allow_float=allow_float)))
    assert said.startswith("1 constants without a trained scale, quantized by their largest magnitude; first: Add 'c'")
