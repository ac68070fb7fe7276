"""ONNX Runtime's QOperator files: what each operator says, and what has no fixed scale is refused by name.

Drawn: types, scales, zero points, per-channel weights, biases, windows. ONNX Runtime runs the file as it is.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.verifying import reference
from bridge.verifying.verification import verify
from compare.testing import assert_bridge_exact, assert_no_mismatch

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

MICROSOFT = "com.microsoft"

in_the_laboratory = pytest.mark.skipif(
    find_spec("platformdirs") is None, reason="the pytest plugin records as the laboratory does"
)


class Drawn:
    """A model of one QOperator behind a QuantizeLinear for each real input and before a DequantizeLinear."""

    def __init__(self, seed, shapes, dtype=None):
        self.random = np.random.default_rng(seed)
        self.constants, self.nodes = {}, []
        self.shapes = shapes
        self.dtype = dtype or self.random.choice([np.uint8, np.int8])
        self.quantized = [self.input(f"x{place}") for place in range(len(shapes))]

    def scale(self, low=0.02, high=0.06, size=()):
        return self.constant("scale", self.random.uniform(low, high, size).astype(np.float32))

    def zero(self, dtype=None, around=0):
        dtype = dtype or self.dtype
        middle = 128 if dtype == np.uint8 else 0
        return self.constant("zero", np.asarray(middle + around, dtype))

    def constant(self, name, value):
        name = f"{name}{len(self.constants)}"
        self.constants[name] = value
        return name

    def input(self, name):
        scale, zero = self.scale(), self.zero(around=int(self.random.integers(-20, 20)))
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}q"]))
        return [f"{name}q", scale, zero]

    def weight(self, shape, channels=None, per_channel=True):
        dtype = np.int8
        scale = self.scale(0.005, 0.02, channels if channels and per_channel else ())
        codes = self.random.integers(-120, 121, shape).astype(dtype)
        zero = self.constant("zero", np.zeros(np.shape(self.constants[scale]), dtype))
        return [self.constant("w", codes), scale, zero]

    def output(self, low=0.05, high=0.1):
        return [self.scale(low, high), self.zero(around=int(self.random.integers(-10, 10)))]

    def model(self, op, inputs, shape, domain=MICROSOFT, **attributes):
        scale, zero = inputs[-3:-1] if op == "QLinearConv" and len(inputs) == 9 else inputs[-2:]
        if op == "QLinearConcat":
            scale, zero = inputs[:2]
        self.nodes.append(helper.make_node(op, inputs, ["yq"], "it", domain=domain, **attributes))
        self.nodes.append(helper.make_node("DequantizeLinear", ["yq", scale, zero], ["y"]))
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(self.shapes)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def convolution(seed):
    it = Drawn(seed, [(1, 4, 7, 6)])
    groups = int(it.random.choice([1, 4]))
    inputs = [*it.quantized[0], *it.weight((8, 4 // groups, 3, 2), 8, it.random.random() < 0.5), *it.output(0.1, 0.3)]
    if it.random.random() < 0.5:
        inputs.append(it.constant("b", it.random.integers(-900, 900, 8).astype(np.int32)))
    return it.model("QLinearConv", inputs, (1, 8, 7, 5), "", group=groups, pads=[1, 0, 1, 0])


def matrix_product(seed):
    it = Drawn(seed, [(3, 12)])
    inputs = [*it.quantized[0], *it.weight((12, 5), 5, it.random.random() < 0.5), *it.output(0.1, 0.3)]
    return it.model("QLinearMatMul", inputs, (3, 5), "")


def gemm(seed):
    it = Drawn(seed, [(2, 12)])
    turned = int(it.random.integers(0, 2))
    weight = it.weight((5, 12) if turned else (12, 5), 5, it.random.random() < 0.5)
    bias = it.constant("b", it.random.integers(-900, 900, 5).astype(np.int32)) if it.random.random() < 0.5 else ""
    return it.model("QGemm", [*it.quantized[0], *weight, bias, *it.output(0.1, 0.3)], (2, 5), transB=turned, alpha=1.0)


def of_two(op):
    def draw(seed):
        it = Drawn(seed, [(1, 3, 5, 4), (1, 3, 5, 4)])
        return it.model(op, [*it.quantized[0], *it.quantized[1], *it.output(0.03, 0.2)], (1, 3, 5, 4))

    return draw


def of_one(op, shape=(1, 3, 6, 4), **attributes):
    def draw(seed):
        it = Drawn(seed, [(1, 3, 6, 4)])
        return it.model(op, [*it.quantized[0], *it.output(0.02, 0.05)], shape, **attributes)

    return draw


def on_256(op, **attributes):
    """LOGISTIC and SOFTMAX of TFLite have one output grid: 1/256 from -128 on."""

    def draw(seed):
        it = Drawn(seed, [(2, 12)])
        output = [
            it.constant("scale", np.float32(1 / 256)),
            it.constant("zero", np.asarray(0 if it.dtype == np.uint8 else -128, it.dtype)),
        ]
        return it.model(op, [*it.quantized[0], *output], (2, 12), **attributes)

    return draw


def concatenation(seed):
    it = Drawn(seed, [(1, 3, 4, 4), (1, 2, 4, 4)])
    return it.model("QLinearConcat", [*it.output(0.03, 0.1), *it.quantized[0], *it.quantized[1]], (1, 5, 4, 4), axis=1)


OPERATORS = {
    "QLinearConv": convolution,
    "QLinearMatMul": matrix_product,
    "QGemm": gemm,
    "QLinearAdd": of_two("QLinearAdd"),
    "QLinearMul": of_two("QLinearMul"),
    "QLinearConcat": concatenation,
    "QLinearAveragePool": of_one("QLinearAveragePool", (1, 3, 3, 2), kernel_shape=[2, 2], strides=[2, 2]),
    "QLinearGlobalAveragePool": of_one("QLinearGlobalAveragePool", (1, 3, 1, 1), channels_last=0),
    "QLinearSigmoid": on_256("QLinearSigmoid"),
    "QLinearLeakyRelu": of_one("QLinearLeakyRelu", alpha=0.1),
    "QLinearSoftmax": on_256("QLinearSoftmax", axis=-1, opset=17),
}


def samples(model, seed):
    random = np.random.default_rng(seed + 1000)
    shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.input}
    return {name: random.normal(size=(8 * shape[0], *shape[1:])).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("op", OPERATORS)
def test_a_file_says_what_onnx_runtime_says_of_the_operator(op, seed, tmp_path):
    model = OPERATORS[op](seed)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    conversion = convert(tmp_path / "m.onnx")
    found = verify(tmp_path / "m.onnx", conversion.graph, conversion.tflite, samples(model, seed))
    (distance,) = found.outputs["xnnpack"].values()
    assert distance.worst <= 1  # integer kernels of both sides round ties apart
    assert distance.equal > 0.9
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())


@in_the_laboratory
@pytest.mark.parametrize("op", OPERATORS)
def test_the_gate_takes_such_a_file_too(op):
    model = OPERATORS[op](0)
    content, tflite = model.SerializeToString(), convert(model).tflite
    assert_no_mismatch(content, tflite)
    assert_bridge_exact(content, tflite, samples(model, 0))


@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"])
def test_what_computes_its_scales_when_it_runs_is_refused_by_name(op):
    it = Drawn(0, [(3, 12)])
    model = it.model(op, [it.quantized[0][0], *it.weight((12, 5))[:1]], (3, 5), "")
    with pytest.raises(BridgeError, match=rf"{op} 'it'.*\n?.*when the model runs[\s\S]*quantize_static"):
        convert(model)


def test_an_attribute_that_means_another_order_of_axes_is_refused():
    with pytest.raises(BridgeError, match="channels_last"):
        convert(of_one("QLinearGlobalAveragePool", (1, 1, 1, 4), channels_last=1)(0))


def test_a_scale_that_is_computed_is_refused():
    model = convolution(0)
    node = next(node for node in model.graph.node if node.op_type == "QLinearConv")
    model.graph.node.insert(0, helper.make_node("Identity", [node.input[4]], ["computed"]))
    node.input[4] = "computed"
    with pytest.raises(BridgeError, match="'computed': is a scale or zero point that is no constant of numbers"):
        convert(model)


def test_a_missing_operand_is_said():
    model = convolution(0)
    node = next(node for node in model.graph.node if node.op_type == "QLinearConv")
    del node.input[5:]
    with pytest.raises(BridgeError, match="has no operand"):
        convert(model)


def test_the_domain_of_onnx_runtime_changes_nothing_of_a_qdq_pair():
    model = OPERATORS["QLinearConv"](1)
    plain = convert(model).tflite
    model = OPERATORS["QLinearConv"](1)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = MICROSOFT
    assert convert(model).tflite == plain


@pytest.mark.parametrize(("zero", "low", "high"), [(127, 0, 255), (100, 0, 228), (128, 1, 256)])
def test_uint8_weights_whose_numbers_fit_int8_keep_them(zero, low, high, tmp_path):
    it = Drawn(0, [(3, 12)], np.uint8)  # ONNX Runtime has no kernel for uint8 weights with int8 activations
    codes = it.constant("w", it.random.integers(low, high, (12, 5)).astype(np.uint8))
    weight = [codes, it.scale(), it.constant("zero", np.uint8(zero))]
    model = it.model("QLinearMatMul", [*it.quantized[0], *weight, *it.output(0.3, 0.6)], (3, 5), "")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    conversion = convert(tmp_path / "m.onnx")
    found = verify(tmp_path / "m.onnx", conversion.graph, conversion.tflite, samples(model, 0))
    assert next(iter(found.outputs["xnnpack"].values())).worst <= 1


def test_what_quantize_static_writes_is_converted(tmp_path):
    """A network of ONNX Runtime's own quantizer, in its QOperator format."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    random = np.random.default_rng(0)
    w = [random.normal(size=shape).astype(np.float32) * 0.3 for shape in ((8, 3, 3, 3), (8, 8, 3, 3), (8, 10))]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], "second", pads=[1] * 4),
        helper.make_node("Add", ["b", "c"], ["d"], "sum"),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], "average"),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("MatMul", ["g", "w2"], ["y"], "dense"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))],
        [numpy_helper.from_array(value, f"w{place}") for place, value in enumerate(w)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]

        def get_next(self):
            return self.left.pop() if self.left else None

    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "m.onnx", Reader(), quant_format=quantization.QuantFormat.QOperator,
        weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    conversion = convert(tmp_path / "m.onnx")
    images = {"x": random.normal(size=(32, 3, 8, 8)).astype(np.float32)}
    found = verify(tmp_path / "m.onnx", conversion.graph, conversion.tflite, images)
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    assert next(iter(found.outputs["xnnpack"].values())).worst <= 2


def test_probabilities_that_onnx_runtime_wraps_around_are_refused():
    it = Drawn(0, [(2, 12)])
    with pytest.raises(BridgeError, match=r"ends at 0\.4\d*, and probabilities reach 1"):
        convert(it.model("QLinearSoftmax", [*it.quantized[0], *_at_half(it)], (2, 12), axis=-1, opset=17))


def _at_half(it):
    zero = 0 if it.dtype == np.uint8 else -128
    return [it.constant("scale", np.float32(1 / 600)), it.constant("zero", np.asarray(zero, it.dtype))]


def test_where_onnx_runtime_saturates_its_integer_operators_are_not_the_reference(tmp_path, monkeypatch):
    """Without VNNI a QLinearConv adds in 16 bits, whatever a session's options say (M80)."""
    path = tmp_path / "m.onnx"
    path.write_bytes(OPERATORS["QLinearConv"](0).SerializeToString())
    model = reference.loaded(path)
    for saturates in (False, True):
        monkeypatch.setattr(reference.onnx_runtime, "saturates", lambda saturates=saturates: saturates)
        assert reference.asked(path, model) is (model if saturates else path)
    path.write_bytes(model.SerializeToString())
    assert reference.asked(path, model) is path  # Q/DQ runs unoptimized in float, everywhere


@in_the_laboratory
@pytest.mark.parametrize("apart", [1, 255])
def test_weights_whose_channels_have_zero_points_of_their_own_are_held_against_their_qdq_spelling(apart, tmp_path):
    model = OPERATORS["QLinearConv"](0)
    node = next(node for node in model.graph.node if node.op_type == "QLinearConv")
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    channels = held[node.input[3]].dims[0]
    scale, zero = (numpy_helper.to_array(held[node.input[place]]) for place in (4, 5))
    scales = np.full(channels, scale.ravel()[0], np.float32)
    zeros = (np.iinfo(zero.dtype).min + apart * (np.arange(channels) % 2)).astype(zero.dtype)
    for place, array in ((4, scales), (5, zeros)):
        node.input[place] = f"{node.input[place]}/each channel"
        model.graph.initializer.append(numpy_helper.from_array(array, node.input[place]))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())

    conversion = convert(path)

    found = verify(path, conversion.graph, conversion.tflite, samples(model, 0))
    assert max(distance.worst for each in found.outputs.values() for distance in each.values()) <= 1
    assert_bridge_exact(path.read_bytes(), conversion.tflite, samples(model, 0))


@in_the_laboratory
def test_the_assertion_takes_the_same_reference(monkeypatch):
    model, asked = OPERATORS["QLinearConv"](0), []
    session = reference.onnx_runtime.session
    monkeypatch.setattr(reference.onnx_runtime, "saturates", lambda: True)
    monkeypatch.setattr(
        reference.onnx_runtime, "session", lambda given, **options: asked.append(given) or session(given, **options)
    )
    assert_bridge_exact(model.SerializeToString(), convert(model).tflite, samples(model, 0))
    assert not any(node.op_type == "QLinearConv" for node in asked[-1].graph.node)
