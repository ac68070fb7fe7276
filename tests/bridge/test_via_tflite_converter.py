"""What TensorFlow's converter makes of the three Keras models in every mode, through both entries."""

import itertools

import numpy as np
import pytest
import tflite
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.verifying import litert
from bridge.via_tflite_converter import ENTRIES, MODES, convert, first_meaningful_line

PLUMBING = {"QUANTIZE", "DEQUANTIZE", "SHAPE", "STRIDED_SLICE", "PACK"}
OPERATOR_NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
EVERY_CASE = pytest.mark.parametrize(
    ("mode", "entry"), list(itertools.product(MODES, ENTRIES)), ids=lambda value: value
)
ONE_LSB = 1  # XNNPACK and the fake-quantized float graph may round a tie apart (catalogue entry M30)


@pytest.fixture(scope="session")
def digits():
    """(images uint8 (320, 28, 28), labels): class c is a bright bar at rows 2c+4, 2c+5 on dark noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(320) % 10
    images = generator.integers(0, 60, (320, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6, 4:24] = 255
    return images, labels


@pytest.fixture(scope="session")
def calibration(digits):
    """40 of the digits as the models see them: float32 0..1."""
    return digits[0][:40].astype(np.float32) / np.float32(255)


@pytest.fixture(scope="session")
def models(digits):
    """{"baseline", "qat", "dense-only"}: trained Keras models of the article's network."""
    from keras_side.network import build_network
    from keras_side.qat import quantize_dense_only, quantize_whole
    from keras_side.training import train

    settings = {"batch_size": 32, "validation_split": 0.1, "seed": 0}
    baseline = build_network(0)
    train(baseline, *digits, epochs=2, learning_rate=1e-2, **settings)
    made = {"baseline": baseline, "qat": quantize_whole(baseline), "dense-only": quantize_dense_only(baseline)}
    for name in ("qat", "dense-only"):
        train(made[name], *digits, epochs=1, learning_rate=1e-3, **settings)
    return made


@pytest.fixture(scope="session")
def converted(models, calibration):
    """converted(name, mode, entry) -> bytes; each combination is converted once."""
    done = {}

    def get(name, mode, entry):
        if (name, mode, entry) not in done:
            done[name, mode, entry] = convert(models[name], mode, entry, calibration)
        return done[name, mode, entry]

    return get


def operators(content):
    """The operator names of a .tflite, in order."""
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    codes = [model.OperatorCodes(graph.Operators(i).OpcodeIndex()) for i in range(graph.OperatorsLength())]
    return [OPERATOR_NAMES[code.BuiltinCode()] for code in codes]


def computing_operators(content):
    return [name for name in operators(content) if name not in PLUMBING]


def has_float_operator(content):
    """Whether any operator other than QUANTIZE and DEQUANTIZE reads or writes float32 or float16."""
    graph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    floating = {tflite.TensorType.FLOAT32, tflite.TensorType.FLOAT16}
    for index, name in enumerate(operators(content)):
        operator = graph.Operators(index)
        touched = [*operator.InputsAsNumpy(), *operator.OutputsAsNumpy()]
        if name not in {"QUANTIZE", "DEQUANTIZE"} and {graph.Tensors(int(t)).Type() for t in touched} & floating:
            return True
    return False


def scales(content):
    """The set of (scale, zero point) pairs of every per-tensor quantized tensor."""
    graph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    parameters = [graph.Tensors(index).Quantization() for index in range(graph.TensorsLength())]
    return {(q.Scale(0), q.ZeroPoint(0)) for q in parameters if q is not None and q.ScaleLength() == 1}


def run(content, pixels):
    """(N, 10) float32 logits of float32 (N, 28, 28) pixels, through int8 input and output where the model has them."""
    interpreter = litert.interpreter(content)
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    logits = []
    for pixel in pixels:
        interpreter.set_tensor(source["index"], to_input(pixel[np.newaxis], source))
        interpreter.invoke()
        logits.append(to_real(interpreter.get_tensor(sink["index"])[0], sink))
    return np.stack(logits)


def to_input(values, details):
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return np.clip(np.round(values / scale) + zero_point, -128, 127).astype(details["dtype"])


def to_real(values, details):
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


@EVERY_CASE
@pytest.mark.parametrize("name", ["baseline", "qat", "dense-only"])
def test_every_combination_runs_and_classifies_as_its_keras_model_does(models, converted, digits, name, mode, entry):
    from keras_side.training import predict, scale_pixels

    images = digits[0][:64]
    expected = predict(models[name], images).argmax(1)
    content = converted(name, mode, entry)
    assert (run(content, scale_pixels(images)).argmax(1) == expected).mean() >= 0.95


@EVERY_CASE
def test_input_and_output_are_int8_in_the_integer_only_mode_alone(converted, mode, entry):
    interpreter = litert.interpreter(converted("qat", mode, entry))
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert {d["dtype"] for d in details} == {np.int8 if mode == "integer-only" else np.float32}


@pytest.mark.parametrize("mode", MODES)
def test_the_fixed_shape_of_the_concrete_entry_is_what_removes_the_shape_arithmetic(converted, mode):
    fixed, free = converted("baseline", mode, "concrete"), converted("baseline", mode, "keras")
    shape_arithmetic = ["SHAPE", "STRIDED_SLICE", "PACK"]
    assert [name for name in operators(free) if name in shape_arithmetic] == shape_arithmetic
    assert not set(operators(fixed)) & set(shape_arithmetic)
    assert computing_operators(fixed) == computing_operators(free)
    assert litert.interpreter(fixed).get_input_details()[0]["shape_signature"].tolist() == [1, 28, 28]
    assert litert.interpreter(free).get_input_details()[0]["shape_signature"].tolist() == [-1, 28, 28]


@pytest.mark.parametrize(
    ("name", "float_modes"),
    [
        ("baseline", {"none", "dynamic-range", "float16"}),
        ("qat", {"none"}),  # [DEFAULT] alone makes it all integer; so does float16, against its name
        ("dense-only", {"none", "dynamic-range", "float16"}),  # no operator is integer, not even Dense
    ],
)
def test_which_modes_leave_float_operators(converted, name, float_modes):
    assert {mode for mode in MODES if has_float_operator(converted(name, mode, "concrete"))} == float_modes


def test_quantizing_a_qat_model_again_adds_nothing_to_default_optimization(converted, calibration):
    default, float16, again = (
        converted("qat", mode, "concrete") for mode in ("dynamic-range", "float16", "full-integer")
    )
    assert operators(default) == operators(float16) == operators(again)
    assert scales(default) == scales(float16) == scales(again)
    assert_array_equal(run(default, calibration), run(again, calibration))


def test_a_qat_models_scales_are_the_trained_ones_whatever_the_calibration_data(models, converted, calibration):
    from keras_side.qat import activation_scales

    trained = set(activation_scales(models["qat"]).values())
    wrong = convert(models["qat"], "integer-only", "concrete", calibration * 4)
    assert trained <= scales(wrong)
    assert scales(wrong) == scales(converted("qat", "integer-only", "concrete"))


def test_a_dense_only_models_gaps_are_filled_from_the_calibration_data(models, converted, calibration):
    from keras_side.qat import activation_scales

    right = scales(converted("dense-only", "integer-only", "concrete"))
    wrong = scales(convert(models["dense-only"], "integer-only", "concrete", calibration * 4))
    assert set(activation_scales(models["dense-only"]).values()) <= right & wrong
    assert right != wrong


def test_a_qat_model_without_optimization_is_a_float_model_full_of_uint8_pairs(converted):
    names = operators(converted("qat", "none", "concrete"))
    assert names.count("QUANTIZE") == names.count("DEQUANTIZE") == 5
    graph = tflite.Model.GetRootAs(converted("qat", "none", "concrete"), 0).Subgraphs(0)
    types = {graph.Tensors(index).Type() for index in range(graph.TensorsLength())}
    assert tflite.TensorType.UINT8 in types
    assert tflite.TensorType.INT8 not in types


def test_integer_logits_are_within_one_step_of_the_fake_quantized_model(models, converted, digits):
    from keras_side.qat import output_scale
    from keras_side.training import predict, scale_pixels

    images = digits[0][:64]
    expected = predict(models["qat"], images)
    got = run(converted("qat", "integer-only", "concrete"), scale_pixels(images))
    steps = np.abs(got - expected) / output_scale(models["qat"])
    assert steps.max() <= ONE_LSB + 1e-3  # 1e-3: float32 noise of the division


def test_integer_files_are_about_a_quarter_of_the_float_file(converted):
    whole = len(converted("baseline", "none", "concrete"))
    small = {mode: len(converted("baseline", mode, "concrete")) / whole for mode in ("dynamic-range", "integer-only")}
    assert max(small.values()) < 0.30
    assert len(converted("dense-only", "dynamic-range", "concrete")) / whole > 0.99


def original_entry(model, entry):
    """The converter as the article and TensorFlow's guide open it, with the Keras model itself saved on the way."""
    import tensorflow as tf

    if entry == "keras":
        return tf.lite.TFLiteConverter.from_keras_model(model)
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, 28, 28), tf.float32))
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")  # held back in convert, not here
@pytest.mark.parametrize("mode", ["none", "full-integer"])  # what is saved does not depend on the mode
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", ["baseline", "qat", "dense-only"])
def test_the_light_stand_in_gives_the_bytes_of_the_original_entry(models, converted, calibration, name, mode, entry):
    from bridge import via_tflite_converter

    converter = original_entry(models[name], entry)
    via_tflite_converter._apply(converter, via_tflite_converter.SETTINGS[mode], calibration)
    assert converter.convert() == converted(name, mode, entry)


def test_the_same_model_gives_the_same_bytes_and_nothing_is_left_behind(models, calibration, tmp_path, monkeypatch):
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    first, second = (convert(models["qat"], "full-integer", "keras", calibration) for _ in range(2))
    assert first == second
    assert not [*work.iterdir(), *temporary.iterdir()]


@pytest.mark.parametrize("mode", ["full-integer", "integer-only"])
def test_integer_modes_without_calibration_data_are_refused_with_the_reason(models, mode):
    with pytest.raises(BridgeError, match="demands it, even when QAT trained every range") as refusal:
        convert(models["qat"], mode, "concrete", None)
    assert "mode 'dynamic-range'" in refusal.value.remedy


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((2, 28, 28), np.uint8), r"is uint8 \(2, 28, 28\); expected float32 \(N, 28, 28\)"),
        (np.zeros((2, 1, 28, 28), np.float32), r"is float32 \(2, 1, 28, 28\)"),
        (np.zeros((0, 28, 28), np.float32), r"is float32 \(0, 28, 28\)"),
        (np.full((1, 28, 28), np.inf, np.float32), "not finite"),
    ],
    ids=["bytes", "PyTorch layout", "empty", "infinite"],
)
def test_calibration_data_of_another_form_is_refused(models, data, said):
    with pytest.raises(BridgeError, match=said):
        convert(models["baseline"], "integer-only", "concrete", data)


def test_unknown_modes_and_entries_are_answered_with_the_known_ones(models):
    with pytest.raises(
        BridgeError, match=r"no mode 'int4'\n.*none, dynamic-range, float16, full-integer, integer-only"
    ):
        convert(models["baseline"], "int4", "concrete", None)
    with pytest.raises(BridgeError, match=r"no entry 'onnx'\n.*concrete, keras"):
        convert(models["baseline"], "none", "onnx", None)


def test_a_model_with_two_outputs_is_refused_with_their_names():
    from keras_side.legacy import import_keras

    keras = import_keras()
    pixels = keras.Input((4,), name="pixels")
    two = keras.Model(pixels, [keras.layers.ReLU(name="a")(pixels), keras.layers.ReLU(name="b")(pixels)], name="two")
    with pytest.raises(BridgeError, match=r"model 'two': has inputs \['pixels'\] and outputs \['a', 'b'\]"):
        convert(two, "none", "concrete", None)


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_the_converter_refuses_is_told_in_one_line(entry):
    from keras_side.legacy import import_keras, import_tensorflow

    keras, tf = import_keras(), import_tensorflow()
    layer = keras.layers.Lambda(tf.math.special.bessel_j0, name="bessel")
    unsupported = keras.Sequential([keras.layers.InputLayer(input_shape=(4,), name="input"), layer], name="odd")
    with pytest.raises(
        BridgeError, match=r"refuses model 'odd': 'tf\.BesselJ0' op is neither a custom op nor a flex op\n"
    ):
        convert(unsupported, "none", entry, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Could not translate MLIR to FlatBuffer.a.py:7:1: error: no such op\n  x = f(y)\n^", "no such op"),
        ("\n<unknown>:0: note: called from\n<unknown>:0: error: no such op\nmore", "no such op"),
        ("Only one output is supported.", "Only one output is supported."),
        ("  \n", "it gives no reason"),
    ],
)
def test_the_first_meaningful_line_has_no_source_position(text, line):
    assert first_meaningful_line(text) == line
