"""What a conversion says of itself: one record for programs, a few lines for people."""

import json

import numpy as np
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
        "quantization": {"scale": 0.5, "zero_point": -3, "codes": [-128, 127]},
    }
    assert made["outputs"]["y"]["quantization"] == {"scale": 1 / 256, "zero_point": -128, "codes": [-128, 127]}
    assert made["operators_out"] == {"CONV_2D": 1, "LOGISTIC": 1}


def test_float_inputs_have_no_quantization():
    assert record(conversion(io="float32"))["inputs"]["x"]["quantization"] is None


def test_trained_scales_are_counted_without_what_tflite_prescribes_and_what_is_derived():
    assert scales_kept(conversion()) == 3  # x, w, c: not the bias, and not the output of the sigmoid


def test_the_lines_say_what_goes_in_and_comes_out():
    said = "\n".join(lines(conversion()))
    assert "out   CONV_2D 1, LOGISTIC 1" in said
    assert "takes x int8 [1, 2, 2, 1] N,H,W,C, scale 0.5, zero point -3" in said
    assert "kept  3 trained scales" in said


def test_what_should_not_be_overlooked_is_counted_with_its_first_place():
    model = qdq_model(
        ("Gemm", "x w", "c", {"transB": 1}),
        inputs={"x": (1, 2)}, pairs=PAIRS, outputs="c", constants=[weight("w", [[-128, -128]], [0.5])],
    )  # fmt: skip
    (said,) = warnings(convert(model))
    assert said.startswith(
        "1 weights whose codes of -128 are not as trained, or are wrong on ARM, up to 260 LSB of 'c'; first: "
        "FULLY_CONNECTED 'c', weight 'w/c': 2 codes of -128 in channel 0 of 1, made -127: "
    )


def sound():
    model = qdq_model(
        ("Conv", "x w", "c"),
        inputs={"x": (1, 1, 2, 2)}, pairs=PAIRS, outputs="c", constants=[weight("w", [[[[1]]]], [0.5])],
    )  # fmt: skip
    return convert(model)


def test_codes_that_are_harmless_are_no_warning():
    assert not [line for line in warnings(conversion(codes=-128)) if "-128" in line and "Conv" in line]


def test_a_sound_conversion_has_no_warnings():
    assert list(warnings(sound())) == []


def test_repr_is_one_line_and_str_is_the_summary():
    done = conversion()
    assert repr(done) == (
        f"<Conversion: {len(done.tflite):,} bytes, 2 operators, 3 trained scales kept; notes: 1 fixed>"
    )
    assert str(done).splitlines()[-1] == f"note  {next(iter(warnings(done)))}"


def pooled(*, size=2, features=2, head=0.5, io_scale=0.25, **options):
    """Convolution, global average without a pair, dense layer."""
    model = qdq_model(
        ("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
        inputs={"x": (1, features, size, size)}, pairs={"x": Pair(0.5, -3), "y": Pair(io_scale)}, outputs="y",
        constants=[weight("w", [[100] * features, [-3] * features], [head, head])],
    )  # fmt: skip
    return convert(model, Options(**options))


def test_an_inherited_scale_says_by_how_many_lsb_it_can_move_the_next_trained_tensor():
    (note,) = [note for note in pooled(mean="inherit").notes if note.kind == "inherited"]
    assert note.of == "y"
    assert note.lsb == 0.25 * 2 * 100 * 0.5 / 0.25  # half a step of 0.5, two weights of 50, in steps of 0.25
    (line,) = warnings(pooled(mean="inherit"))
    assert "up to 100 LSB of 'y'" in line
    assert "QuantStub" in line


def test_the_worst_kind_and_the_worst_case_come_first():
    model = qdq_model(
        ("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
        ("GlobalAveragePool", "x", "n"), ("Flatten", "n", "g"), ("Gemm", "g v", "z", {"transB": 1}),
        ("Sigmoid", "z", "s"),
        inputs={"x": (1, 1, 2, 2)}, pairs={"x": Pair(0.5), "y": Pair(0.5), "z": Pair(0.5)}, outputs="y s",
        constants=[weight("w", [[2]], [0.5]), weight("v", [[100]], [0.5])],
    )  # fmt: skip
    first, second = warnings(convert(model, Options(mean="inherit")))
    assert first.startswith("2 averages")
    assert "up to 25.0 LSB of 'z'; worst: Mean 'n'" in first
    assert "up to 0.5 LSB of 's'" in second


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
def test_a_derived_constant_that_8_bits_do_not_hold_is_a_warning(allow_float):
    values = np.linspace(0.0, 2.54, 10_000).reshape(5000, 2)
    model = qdq_model(
        ("Mul", "x k", "c"),
        inputs={"x": (1, 5000, 2)}, pairs=PAIRS, outputs="c", constants=[float_constant("k", values)],
    )  # fmt: skip
    (said,) = warnings(convert(model, Options(allow_float=allow_float)))
    assert said.startswith(
        "1 constants without a trained scale, quantized to 8 bits by their range, up to 1.3 LSB of 'c'"
    )


def test_a_derived_constant_that_8_bits_hold_is_none():
    model = qdq_model(
        ("Add", "x k", "c"), inputs={"x": (1, 2)}, pairs=PAIRS, outputs="c", constants=[float_constant("k", [1.0])]
    )
    assert list(warnings(convert(model))) == []


def test_a_bound_names_the_tensor_of_the_model_behind_a_clamp_of_its_own():
    model = qdq_model(
        ("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
        inputs={"x": (1, 1, 2, 2)}, pairs={"x": Pair(0.5), "y": Pair(0.5, clip=(-100, 100))}, outputs="y",
        constants=[weight("w", [[2]], [0.5])],
    )  # fmt: skip
    (note,) = [note for note in convert(model, Options(mean="inherit")).notes if note.kind == "inherited"]
    assert (note.of, note.lsb) == ("y", 0.5)
