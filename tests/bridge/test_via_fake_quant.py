"""The control bridge keeps what training decided, says what it cannot keep, and refuses the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tflite
import torch
from numpy.testing import assert_allclose, assert_array_equal
from onnx import helper, numpy_helper
from torch import nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

from bridge.errors import BridgeError
from bridge.fake_quant_rules import RULES
from bridge.verifying import litert, onnx_runtime
from bridge.via_fake_quant import SCALE_DRIFT, ControlConversion, convert
from compare.tflite import file as tflite_file
from torch_side import export, training
from torch_side.network import build_network

ONE_LSB = 1  # one operator: kernels round ties apart (catalogue entry M30)
TWO_LSB = 2  # a network of a few layers (M13, "FakeQuant bridge")
QCONFIGS = ("qnnpack", "symmetric-per-channel", "tflite", "fbgemm")
EVERY_EXPORT = pytest.mark.parametrize(
    ("qconfig", "exporter"), [(q, e) for q in QCONFIGS for e in export.EXPORTERS], ids=lambda value: value
)
SIDES = {"conv": (3, 3), "dense": (13, 13)}  # height and width of the article's weights
PER_CHANNEL_DENSE = ["RESHAPE", "CONV_2D", "RESHAPE"]  # M29


def operators(content: bytes) -> list[str]:
    return [operator.name for operator in tflite_file.read(content, "control").operators]


def constants(content: bytes, dtype: str, ranks: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(codes, scales) of the constants of a type and rank, in the order of the operators that read them."""
    model, read = tflite.Model.GetRootAs(content, 0), tflite_file.read(content, "control")
    found = []
    for index in (index for operator in read.operators for index in operator.inputs if index >= 0):
        info, tensor = read.tensors[index], model.Subgraphs(0).Tensors(index)
        if info.constant and info.dtype == dtype and info.scale and len(info.shape) in ranks:
            codes = model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype).reshape(info.shape)
            found.append((codes, np.array(info.scale, np.float32)))
    return found


def weights(content: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    return constants(content, "int8", ranks=(2, 4))


def biases(content: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    return constants(content, "int32", ranks=(1,))


def grids(content: bytes) -> list[tuple[float, int]]:
    """The different (scale, zero point) of the activations, in the order they are computed."""
    read = tflite_file.read(content, "control")
    indices = [*read.inputs, *(index for operator in read.operators for index in operator.outputs)]
    return list(dict.fromkeys((read.tensors[i].scale[0], read.tensors[i].zero_point[0]) for i in indices))


def lsb_distance(content: bytes, path: Path, images: np.ndarray) -> np.ndarray:
    """How many steps of its output scale the .tflite is away from onnxruntime on the Q/DQ graph, unfused."""
    session = onnx_runtime.session(path)
    interpreter = litert.interpreter(content)
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["dtype"] == sink["dtype"] == np.int8
    distances = []
    for image in images[:, None]:
        (expected,) = session.run(None, {session.get_inputs()[0].name: image})
        scale, zero_point = source["quantization"]
        codes = np.clip(np.rint(image / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes)
        interpreter.invoke()
        scale, zero_point = sink["quantization"]
        found = scale * (interpreter.get_tensor(sink["index"]).astype(np.float64) - zero_point)
        distances.append(
            np.rint((found - (expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected)) / scale)
        )
    return np.abs(np.stack(distances))


# Networks from PyTorch, by way of both exporters.


def pixels(*shape: int, brightest: float = 1.0) -> np.ndarray:
    return np.random.default_rng(7).random(shape, np.float32) * np.float32(brightest)


def observed(network: nn.Module, qconfig: str, images: np.ndarray) -> nn.Module:
    """The network with fake-quant that has seen a few batches, as after a training."""
    model = training.prepare_for_qat(network, qconfig)
    with training.expected_warnings():
        for batch in torch.from_numpy(images).split(8):
            model(batch)
    return model.eval()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """exported(qconfig, exporter) -> (frozen model, ONNX file, conversion) of the article's network; each made once."""
    done: dict = {}

    def get(qconfig: str, exporter: export.Exporter) -> tuple[nn.Module, Path, ControlConversion]:
        if (qconfig, exporter) not in done:
            path = tmp_path_factory.mktemp("onnx") / f"{qconfig}-{exporter}.onnx"
            frozen = export.freeze(observed(build_network(0), qconfig, pixels(32, 1, 28, 28)))
            export.export_onnx(frozen, pixels(1, 1, 28, 28), path, exporter)
            done[qconfig, exporter] = frozen, path, convert(path)
        return done[qconfig, exporter]

    return get


@EVERY_EXPORT
def test_operators_are_those_of_the_network(exported, qconfig, exporter):
    _, _, control = exported(qconfig, exporter)
    dense = ["RESHAPE", "FULLY_CONNECTED"] if qconfig == "qnnpack" else PER_CHANNEL_DENSE
    expected = ["CONV_2D", "MAX_POOL_2D", *dense]
    if qconfig == "fbgemm":  # the lower limit of 0..127 (M01) at the image and the logits; the convolution has a ReLU
        expected = ["RELU", *expected, "MAXIMUM"]
    assert operators(control.tflite) == expected
    limited = [note for note in control.notes if "its lower limit, code 0, is an operator of its own" in note]
    assert len(limited) == (2 if qconfig == "fbgemm" else 0)


@EVERY_EXPORT
def test_trained_scales_and_zero_points_are_in_the_file(exported, qconfig, exporter):
    frozen, _, control = exported(qconfig, exporter)
    trained = list(export.activation_scales(frozen).values())
    assert_allclose([s for s, _ in grids(control.tflite)], [s for s, _ in trained], rtol=SCALE_DRIFT)
    assert [z for _, z in grids(control.tflite)] == [z for _, z in trained]
    assert not any("trained scale" in note for note in control.notes)


@EVERY_EXPORT
def test_weight_and_bias_codes_are_the_trained_ones(exported, qconfig, exporter):
    frozen, _, control = exported(qconfig, exporter)
    (image, _), (conv, _), _ = export.activation_scales(frozen).values()
    clamped = 0
    for name, input_scale, found, found_bias in zip(
        ("conv", "dense"), (image, conv), weights(control.tflite), biases(control.tflite), strict=True
    ):
        layer = getattr(frozen, name)[0]
        scale = layer.weight_fake_quant.get_buffer("scale").numpy().reshape(-1)
        weight = layer.layer.weight.detach().numpy().reshape(-1, 12 if name == "dense" else 1, *SIDES[name])
        codes = np.rint(weight / scale.reshape(-1, 1, 1, 1)).transpose(0, 2, 3, 1)  # C, H, W to H, W, C (M18)
        clamped += int((codes == -128).sum())
        assert_allclose(found[1], scale, rtol=SCALE_DRIFT)
        assert_array_equal(found[0].ravel(), np.maximum(codes, -127).ravel())
        bias = layer.layer.bias.detach().numpy() / (input_scale * scale.astype(np.float64))
        assert_allclose(found_bias[0], bias, rtol=0, atol=0.501)  # the nearest integer
    assert control.clamped_weights == clamped
    assert any("of -128 became -127" in note for note in control.notes) == (clamped > 0)


@EVERY_EXPORT
@pytest.mark.parametrize("brightest", [1.0, 1.5], ids=["as trained", "brighter than trained"])
def test_outputs_are_those_of_onnxruntime_on_the_same_graph(exported, qconfig, exporter, brightest):
    _, path, control = exported(qconfig, exporter)
    assert lsb_distance(control.tflite, path, pixels(50, 1, 28, 28, brightest=brightest)).max() <= TWO_LSB


@pytest.mark.parametrize("bits", [7, 8])
def test_a_fake_quant_over_the_clipped_range_has_another_scale(bits):
    """Why 7-bit activations get a fake-quant over 256 codes: trained is 0.01 * 0..127, this way gives 1.27 / 255."""
    import tensorflow as tf

    clipped = tf.function(
        lambda x: tf.nn.max_pool2d(tf.quantization.fake_quant_with_min_max_vars(x, 0.0, 1.27, bits), 2, 2, "VALID")
    )
    function = clipped.get_concrete_function(tf.TensorSpec((1, 4, 4, 1), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    ((scale, _),) = grids(converter.convert())
    assert scale == pytest.approx(1.27 / 255)


def bias_codes(path: Path) -> list[np.ndarray]:
    """The int32 codes behind the bias of every Conv and Gemm."""
    model = onnx.load(path)
    codes = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    names = [codes[node.input[2]] for node in model.graph.node if node.op_type in {"Conv", "Gemm"}]
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None) for name in names)
    return list(onnx_runtime.session(model).run(names, {"input": pixels(1, 1, 28, 28)}))


@pytest.mark.parametrize("qconfig", ["qnnpack", "fbgemm"])
def test_converted_int8_models_keep_scales_and_bias_codes(tmp_path, qconfig):
    """They have no Clip: torch's int8 engine saturates at 255 (M02)."""
    converted = training.to_int8_engine(observed(build_network(0), qconfig, pixels(32, 1, 28, 28)), qconfig)
    path = tmp_path / "int8.onnx"
    export.export_onnx(converted, pixels(1, 1, 28, 28), path, "torchscript")
    control = convert(path)

    trained = list(dict.fromkeys(export.activation_scales(converted).values()))
    assert_allclose([s for s, _ in grids(control.tflite)], [s for s, _ in trained], rtol=SCALE_DRIFT)
    assert [z for _, z in grids(control.tflite)] == [z for _, z in trained]
    for (found, _), expected in zip(biases(control.tflite), bias_codes(path), strict=True):
        assert_array_equal(found, expected)
    assert not {"MAXIMUM", "MINIMUM"} & set(operators(control.tflite))
    assert lsb_distance(control.tflite, path, pixels(50, 1, 28, 28)).max() <= TWO_LSB


class Residual(nn.Module):
    """Strided, depthwise and residual convolutions, then the mean over the map."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.sum = FloatFunctional()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.quant(x)))
        x = self.sum.add_relu(x, self.depthwise(x))
        logits: torch.Tensor = self.dequant(self.dense(self.pool(x).flatten(1)))
        return logits


class Branches(nn.Module):
    """Two convolutions whose outputs differ in range, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.relu, self.small = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(3, 4, 3)
        nn.init.uniform_(self.small.weight, -0.1, 0.1)
        self.cat = FloatFunctional()
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.quant(x)
        x = self.cat.cat([self.relu(self.conv(x)), self.small(x)], dim=1)
        result: torch.Tensor = self.dequant(self.last(x))
        return result


def converted(network: type[nn.Module], path: Path, exporter: export.Exporter) -> tuple[nn.Module, ControlConversion]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network()
    frozen = export.freeze(observed(model, "tflite", pixels(32, 3, 8, 8)))
    export.export_onnx(frozen, pixels(1, 3, 8, 8), path, exporter)
    return frozen, convert(path)


@pytest.mark.parametrize("exporter", export.EXPORTERS)
def test_a_residual_network_keeps_every_scale(tmp_path, exporter):
    frozen, control = converted(Residual, tmp_path / "residual.onnx", exporter)
    assert operators(control.tflite) == ["PAD", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "CONV_2D", "RESHAPE"]
    assert_allclose(
        sorted(s for s, _ in grids(control.tflite)),
        sorted(s for s, _ in export.activation_scales(frozen).values()),
        rtol=SCALE_DRIFT,
    )
    assert not [note for note in control.notes if "trained scale" in note]
    assert lsb_distance(control.tflite, tmp_path / "residual.onnx", pixels(50, 3, 8, 8)).max() <= TWO_LSB


@pytest.mark.parametrize("exporter", export.EXPORTERS)
def test_a_concatenation_gives_its_inputs_the_scale_of_its_output_and_a_note_says_so(tmp_path, exporter):
    """The limit of M13: TensorFlow's converter unifies scales (M33), here that of the branch with the small range."""
    frozen, control = converted(Branches, tmp_path / "branches.onnx", exporter)
    trained = export.activation_scales(frozen)
    found = [s for s, _ in grids(control.tflite)]
    kept = {name for name, (scale, _) in trained.items() if np.isclose(scale, found, rtol=SCALE_DRIFT).any()}
    lost = [note for note in control.notes if "is not in the .tflite; the converter put another" in note]
    assert "small" in trained.keys() - kept
    assert len(lost) == len(trained.keys() - kept)
    assert f"trained scale {trained['small'][0]:.6g}" in " ".join(lost)


# Single operators, built by hand: each image has another height, width and number of channels.


class Drawing:
    """An ONNX graph in the making: every method adds nodes and returns the name of the result."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.nodes, self.constants = shape, [], []
        self.random = np.random.default_rng(3)

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def q(self, x: str, scale: float = 1 / 64, zero_point: int = 128) -> str:
        grid = self.constant(scale), self.constant(zero_point, np.uint8)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *grid), *grid)

    def weight(self, codes: object, scale: object, axis: int = 0) -> str:
        zeros = self.constant(np.zeros(np.shape(scale)), np.int8)
        return self.op("DequantizeLinear", self.constant(codes, np.int8), self.constant(scale), zeros, axis=axis)

    def layer(self, kind: str, x: str, *shape: int, axis: int = 0, **attributes: object) -> str:
        codes = self.random.integers(-127, 128, shape)
        scale = self.random.uniform(0.001, 0.004, shape[axis])
        bias = self.constant(self.random.uniform(-0.5, 0.5, shape[axis]))
        return self.op(kind, x, self.weight(codes, scale, axis), bias, **attributes)

    def save(self, path: Path, output: str) -> Path:
        values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", self.shape), (output, None))]
        graph = helper.make_graph(self.nodes, "drawing", values[:1], values[1:], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def matmul_with_bias(d: Drawing, x: str, scale: object) -> str:
    flat = d.op("Flatten", x)
    product = d.op("MatMul", flat, d.weight(d.random.integers(-127, 128, (120, 3)), scale, axis=1))
    return d.q(d.op("Add", d.constant([0.5, -0.25, 0.125]), product))


CASES = {
    "convolution, same padding": (lambda d, x: d.q(d.layer("Conv", x, 6, 4, 3, 3, pads=[1] * 4)), ["CONV_2D"]),
    "padding on one side": (
        lambda d, x: d.q(d.layer("Conv", x, 6, 4, 3, 3, pads=[2, 0, 0, 1], strides=[2, 1])),
        ["PAD", "CONV_2D"],
    ),
    "dilated": (lambda d, x: d.q(d.layer("Conv", x, 6, 4, 2, 3, dilations=[2, 2])), ["CONV_2D"]),
    "depthwise": (
        lambda d, x: d.q(d.layer("Conv", x, 4, 1, 3, 3, group=4, pads=[1] * 4)),
        ["DEPTHWISE_CONV_2D"],
    ),
    "depthwise, two outputs a channel, dilated": (
        lambda d, x: d.q(d.layer("Conv", x, 8, 1, 3, 2, group=4, dilations=[2, 2])),
        ["DEPTHWISE_CONV_2D"],
    ),
    "two groups": (lambda d, x: d.q(d.layer("Conv", x, 6, 2, 3, 3, group=2)), ["CONV_2D"]),
    "ReLU": (lambda d, x: d.q(d.op("Relu", d.layer("Conv", x, 6, 4, 1, 1)), 1 / 128, 0), ["CONV_2D"]),
    "ReLU6": (
        lambda d, x: d.q(d.op("Clip", d.layer("Conv", x, 6, 4, 1, 1), d.constant(0), d.constant(6)), 1 / 32, 0),
        ["CONV_2D"],
    ),
    "maximum, padded below zero": (
        lambda d, x: d.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        ["PADV2", "MAX_POOL_2D"],
    ),
    "maximum, rounded up": (
        lambda d, x: d.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        ["MAX_POOL_2D"],
    ),
    "average": (lambda d, x: d.op("AveragePool", x, kernel_shape=[2, 2]), ["AVERAGE_POOL_2D"]),
    "average of the image alone": (
        lambda d, x: d.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
        ["AVERAGE_POOL_2D"],
    ),
    "average with the padding": (
        lambda d, x: d.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        ["PAD", "AVERAGE_POOL_2D"],
    ),
    "global average": (lambda d, x: d.q(d.op("GlobalAveragePool", x), 1 / 256), ["MEAN"]),
    "mean over height and width": (lambda d, x: d.op("ReduceMean", x, axes=[-1, -2], keepdims=0), ["MEAN"]),
    "dense behind a map": (
        lambda d, x: d.q(d.layer("Gemm", d.op("Flatten", x), 3, 120, transB=1), 1 / 16),
        PER_CHANNEL_DENSE,
    ),
    "dense, inputs first": (
        lambda d, x: d.q(d.layer("Gemm", d.op("Reshape", x, d.constant([1, -1], np.int64)), 120, 3, axis=1), 1 / 16),
        PER_CHANNEL_DENSE,
    ),
    "MatMul and Add": (lambda d, x: matmul_with_bias(d, x, [0.002]), ["RESHAPE", "FULLY_CONNECTED"]),
    "MatMul and Add per channel": (lambda d, x: matmul_with_bias(d, x, [0.001, 0.002, 0.003]), PER_CHANNEL_DENSE),
    "Add": (lambda d, x: d.q(d.op("Add", x, d.q(d.op("Relu", x), 1 / 100, 0)), 1 / 40), ["RELU", "ADD"]),
    "Mul": (lambda d, x: d.q(d.op("Mul", x, d.q(d.op("GlobalAveragePool", x), 1 / 200))), ["MEAN", "MUL"]),
    "Concat over the height": (lambda d, x: d.q(d.op("Concat", x, x, axis=2)), ["CONCATENATION"]),
    "Sigmoid": (lambda d, x: d.q(d.op("Sigmoid", x), 1 / 256, 0), ["LOGISTIC"]),
    "Softmax over the channels": (lambda d, x: d.op("Softmax", x, axis=1), ["SOFTMAX"]),
    "what does nothing": (
        lambda d, x: d.op(
            "MaxPool", d.op("Identity", d.op("Dropout", d.op("Transpose", x, perm=[0, 1, 2, 3]))), kernel_shape=[2, 2]
        ),
        ["MAX_POOL_2D"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_operator_computes_what_onnxruntime_computes(tmp_path, case):
    build, expected = CASES[case]
    drawing = Drawing(1, 4, 6, 5)
    path = drawing.save(tmp_path / "one.onnx", build(drawing, drawing.q("x")))
    control = convert(path)
    images = np.random.default_rng(5).uniform(-2, 2, (20, 4, 6, 5)).astype(np.float32)
    assert operators(control.tflite) == expected
    assert lsb_distance(control.tflite, path, images).max() <= ONE_LSB


def test_a_bias_of_one_number_in_every_channel_is_quantized_with_the_scale_of_each(tmp_path):
    """TensorFlow 2.19 takes the first channel's scale for all of them, [100, 100]: an ulp between them prevents it."""
    drawing = Drawing(1, 2, 4, 4)
    weight = drawing.weight([[[[1]], [[1]]], [[[2]], [[2]]]], [0.5, 0.25])
    layer = drawing.op("Conv", drawing.q("x", 0.5), weight, drawing.constant([25.0, 25.0]))
    ((codes, scales),) = biases(convert(drawing.save(tmp_path / "bias.onnx", drawing.q(layer))).tflite)
    assert_array_equal(scales, [0.25, 0.125])
    assert_array_equal(codes, [100, 200])


def test_weight_codes_of_minus_128_become_minus_127_and_are_counted(tmp_path):
    drawing = Drawing(1, 2, 4, 4)
    layer = drawing.op("Conv", drawing.q("x"), drawing.weight([[[[-128]], [[3]]], [[[127]], [[-128]]]], [0.5, 0.25]))
    control = convert(drawing.save(tmp_path / "weights.onnx", drawing.q(layer)))
    ((codes, _),) = weights(control.tflite)
    assert_array_equal(codes.ravel(), [-127, 3, 127, -127])
    assert control.clamped_weights == 2
    assert control.notes == ("2 weight code(s) of -128 became -127, the end of TFLite's weight range (M04)",)


def test_a_weight_scale_below_tensorflows_smallest_range_is_named_as_lost(tmp_path):
    """FakeQuant widens ranges below 1e-6, so a dead channel's scale of 1e-9 becomes 3.9e-9 (M05)."""
    drawing = Drawing(1, 1, 4, 4)
    layer = drawing.op("Conv", drawing.q("x"), drawing.weight([[[[100]]], [[[100]]]], [1e-9, 0.25]))
    control = convert(drawing.save(tmp_path / "dead.onnx", drawing.q(layer)))
    assert "trained scale 1e-09, zero point 0 is not in the .tflite" in control.notes[0]


def test_the_same_file_gives_the_same_bytes_and_nothing_is_left_behind(exported, tmp_path, monkeypatch):
    _, path, control = exported("tflite", "torchscript")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert convert(path).tflite == control.tflite
    assert not list(tmp_path.iterdir())


def test_the_rebuilt_graph_is_kept_where_the_caller_wants_it(exported, tmp_path):
    _, path, control = exported("tflite", "torchscript")
    assert convert(path, tmp_path / "work").tflite == control.tflite
    assert (tmp_path / "work" / "saved_model.pb").is_file()


def conv_with(**attributes: object):
    return lambda d: d.q(d.layer("Conv", d.q("x"), 6, 4, 3, 3, **attributes))


REFUSED = {
    "unsupported operator": (
        lambda d: d.q(d.op("Erf", d.q("x"))),
        r"node 'Erf2' \(Erf\): this operator has no fake-quant rule\n  There are rules for: Add, AveragePool,",
    ),
    "no Q/DQ": (lambda d: d.op("Relu", "x"), "has no Q/DQ pair, so no trained scales"),
    "weight without scale": (
        lambda d: d.op("Conv", d.q("x"), d.constant(np.ones((6, 4, 1, 1)))),
        r"\(Conv\): weight 'constant2' has no Q/DQ pair",
    ),
    "weight with a zero point": (
        lambda d: d.op(
            "Conv",
            d.q("x"),
            d.op("DequantizeLinear", d.constant(np.ones((6, 4, 1, 1)), np.int8), d.constant(1), d.constant(7, np.int8)),
        ),
        "'constant2' is int8 with zero point 7",
    ),
    "layer without input scale": (
        lambda d: d.layer("Conv", d.op("Relu", d.q("x")), 6, 4, 1, 1),
        "'Relu2' has no trained",
    ),
    "scales along the inputs": (
        lambda d: d.op("Conv", d.q("x"), d.weight(np.ones((6, 4, 1, 1)), [1] * 4, axis=1)),
        r"shape \(6, 4, 1, 1\) and its scales along axis 1; expected rank 4, axis 0",
    ),
    "scale of zero": (lambda d: d.q("x", 0.0), r"scale 0\.0 is not positive and finite"),
    "bias beyond int32": (
        lambda d: d.op("Conv", d.q("x", 0.5), d.weight(np.ones((1, 4, 1, 1)), [1e-9]), d.constant([5.0])),
        "bias channel 0: 1e\\+10 does not fit int32",
    ),
    "another DQ": (
        lambda d: d.op(
            "DequantizeLinear",
            d.op("QuantizeLinear", "x", d.constant(0.5), d.constant(0, np.uint8)),
            d.constant(0.25),
            d.constant(0, np.uint8),
        ),
        "does not undo a QuantizeLinear of the same scale",
    ),
    "automatic padding": (conv_with(auto_pad="SAME_UPPER"), "attribute auto_pad is b'SAME_UPPER'"),
    "average without its padding": (
        lambda d: d.op("AveragePool", d.q("x"), kernel_shape=[3, 3], pads=[2, 2, 0, 0]),
        "an average that leaves out padding",
    ),
    "other limits": (lambda d: d.q(d.op("Clip", d.q("x"), d.constant(-1), d.constant(1))), "limits -1.0, 1.0"),
    "other axes": (lambda d: d.op("ReduceMean", d.q("x"), axes=[1]), r"a mean over axes \[1\] is not covered"),
    "other shape": (lambda d: d.op("Reshape", d.q("x"), d.constant([4, 30], np.int64)), r"\[4, 30\] is not covered"),
    "other order": (lambda d: d.op("Transpose", d.q("x"), perm=[0, 2, 3, 1]), r"permutation \[0, 2, 3, 1\]"),
    "flattened map at the end": (lambda d: d.op("Flatten", d.q("x")), "output 'Flatten2'.*only Gemm can"),
    "constant operand": (lambda d: d.q(d.op("Mul", d.q("x"), d.constant(2))), "operand 'constant2' is a constant"),
    "left in float": (lambda d: d.op("Relu", d.op("Relu", d.op("Add", *[d.q("x")] * 2))), "computes in float at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_covered_is_refused_with_the_node_and_the_reason(tmp_path, case):
    build, said = REFUSED[case]
    drawing = Drawing(1, 4, 6, 5)
    path = drawing.save(tmp_path / "odd.onnx", build(drawing))
    with pytest.raises(BridgeError, match=rf"(?s)odd\.onnx.*{said}"):
        convert(path)


def test_an_open_shape_is_refused(tmp_path):
    drawing = Drawing("batch", 4, 6, 5)
    with pytest.raises(BridgeError, match=r"open.onnx: input 'x' has the open shape \['batch', 4, 6, 5\]"):
        convert(drawing.save(tmp_path / "open.onnx", drawing.q("x")))


@pytest.mark.parametrize("kept", [0, 100, 3000], ids=lambda size: f"{size} bytes")
def test_a_file_cut_short_is_refused(exported, tmp_path, kept):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported("tflite", "torchscript")[1].read_bytes()[:kept])
    with pytest.raises(BridgeError, match=r"cut\.onnx: "):
        convert(cut)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BridgeError, match=r"nowhere\.onnx: not a readable ONNX file \(.*No such file"):
        convert(tmp_path / "nowhere.onnx")


def test_every_rule_is_exercised():
    """`CASES` and the exported networks between them; Cast comes with the converted int8 models."""
    drawing = Drawing(1, 4, 6, 5)
    for build, _ in CASES.values():
        build(drawing, drawing.q("x"))
    assert set(RULES) - {node.op_type for node in drawing.nodes} == {"Cast"}
