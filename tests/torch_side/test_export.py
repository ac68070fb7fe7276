"""Frozen fake-quant and its ONNX, judged by ONNX Runtime."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq

from bridge.errors import BridgeError
from bridge.verifying import onnx_runtime
from torch_side import export, network, qconfigs, training

EXAMPLE = np.zeros((1, 1, 28, 28), np.float32)


@pytest.fixture(scope="module")
def qat(trained, digits):
    """QAT networks by qconfig, trained once each."""
    known = {}

    def get(name):
        if name not in known:
            known[name] = training.prepare_for_qat(trained, name)
            training.fit(known[name], *digits, epochs=1, batch_size=32, learning_rate=1e-3, seed=1)
        return known[name]

    return get


def run_onnx(path, images):
    pixels = (images.astype(np.float32) / np.float32(255))[:, None]
    (logits,) = onnx_runtime.outputs(onnx_runtime.session(path), {"input": pixels})
    return logits


@pytest.mark.parametrize("name", qconfigs.QCONFIGS)
def test_freezing_changes_no_bit_of_the_output(qat, digits, name):
    frozen = export.freeze(qat(name))
    assert np.array_equal(training.predict(frozen, digits[0]), training.predict(qat(name), digits[0]))


@pytest.mark.parametrize("exporter", export.EXPORTERS)
@pytest.mark.parametrize("name", qconfigs.QCONFIGS)
def test_the_exported_graph_computes_what_training_validated(qat, digits, tmp_path, name, exporter):
    """At most one output step apart: ONNX Runtime sums the convolution in another order."""
    images = digits[0][:32]
    frozen = export.freeze(qat(name))
    export.export_onnx(frozen, EXAMPLE, tmp_path / "model.onnx", exporter)
    step = export.activation_scales(frozen)["dense"][0]
    apart = np.abs(run_onnx(tmp_path / "model.onnx", images) - training.predict(frozen, images))
    assert apart.max() <= 1.001 * step


def test_the_converted_int8_model_exports_too(qat, tmp_path):
    converted = training.to_int8_engine(qat("qnnpack"), "qnnpack")
    export.export_onnx(converted, EXAMPLE, tmp_path / "int8.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"} <= kinds


def test_a_model_that_was_not_frozen_is_refused_and_leaves_no_file(qat, tmp_path):
    with pytest.raises(BridgeError, match="Freeze the QAT model first"):
        export.export_onnx(qat("fbgemm"), EXAMPLE, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_fake_quant_that_never_saw_data_is_named(trained):
    with pytest.raises(BridgeError, match="has never seen data"):
        export.freeze(training.prepare_for_qat(trained, "qnnpack"))


def test_both_engines_and_frozen_model_tell_the_same_scales(qat):
    """To the last bit but one: training divides the range in a fused kernel, PyTorch's convert again in its observer."""
    frozen = export.activation_scales(export.freeze(qat("qnnpack")))
    converted = export.activation_scales(training.to_int8_engine(qat("qnnpack"), "qnnpack"))
    assert list(frozen) == ["quant", "conv", "dense"]
    assert {role: zero for role, (_, zero) in frozen.items()} == {role: zero for role, (_, zero) in converted.items()}
    for role, (scale, _) in frozen.items():
        np.testing.assert_array_max_ulp(np.float32(scale), np.float32(converted[role][0]), maxulp=1)


def test_a_relu_output_has_the_lowest_int8_zero_point(qat):
    for name in ("qnnpack", "symmetric"):
        _, zero_point = export.activation_scales(export.freeze(qat(name)))["conv"]
        assert zero_point == -128


def test_seven_bit_codes_fit_int8_as_they_are(qat):
    _, zero_point = export.activation_scales(export.freeze(qat("fbgemm")))["conv"]

    assert zero_point == 0


class WithBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv, self.bn, self.relu = (
            nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.dequant(self.relu(self.bn(self.conv(self.quant(x)))))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_batch_norm_is_folded_as_pytorchs_own_engine_folds_it(tmp_path):
    torch.manual_seed(0)
    model = tq.fuse_modules_qat(WithBatchNorm().train(), [["conv", "bn", "relu"]])
    model.qconfig = qconfigs.qconfig_named("qnnpack").build()
    tq.prepare_qat(model, inplace=True)
    for _ in range(3):
        model(torch.rand(8, 1, 12, 12))
    model.apply(tq.disable_observer)
    torch.backends.quantized.engine = "qnnpack"
    converted = tq.convert(model.eval(), inplace=False).conv
    frozen = export.freeze(model).conv[0]
    step = float(frozen.weight_fake_quant.scale)
    apart = (frozen.layer.weight - converted.weight().dequantize()).abs().max()
    assert apart <= 1.01 * step  # half a step each, and the two scales differ by 0.4 %: the test below
    assert torch.allclose(frozen.layer.bias, converted.bias(), atol=1e-6)
    export.export_onnx(export.freeze(model), np.zeros((1, 1, 12, 12), np.float32), tmp_path / "bn.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "bn.onnx").graph.node]
    assert "BatchNormalization" not in kinds
    assert "Div" not in kinds


def test_the_frozen_model_keeps_the_weight_scale_of_training_which_convert_replaces(qat):
    """Fused fake-quant trains with max(max / 127, -min / 128); `convert` asks the observer, which says absmax / 127.5.

    The ratio is 254/255 or 256/255, so codes of the int8 engine are not those that were validated.
    """
    trained = float(qat("qnnpack").dense.weight_fake_quant.scale)
    frozen = export.freeze(qat("qnnpack")).dense[0].weight_fake_quant
    replaced = training.to_int8_engine(qat("qnnpack"), "qnnpack").dense.weight().q_scale()
    assert frozen.scalar_scale == trained
    assert min(abs(replaced / trained - ratio) for ratio in (254 / 255, 256 / 255)) < 1e-4


class EveryForm(nn.Module):
    """One of everything that eager QAT prepares: 4 channels of 8 x 8 in, 3 numbers out."""

    def __init__(self):
        super().__init__()
        self.conv_bn = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.conv_bn_relu = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv_relu = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.conv, self.relu6, self.hardswish = nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Hardswish()
        self.sigmoid, self.hardsigmoid = nn.Sigmoid(), nn.Hardsigmoid()
        self.add, self.add_relu, self.mul, self.cat, self.idle = (nn.quantized.FloatFunctional() for _ in range(5))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.up_1d = nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.linear_relu = nn.Sequential(nn.Linear(128, 6), nn.ReLU())
        self.dropout, self.linear = nn.Dropout(), nn.Linear(6, 3)

    def forward(self, x):
        x = self.add.add(self.conv_bn(x), self.conv_bn_relu(x))
        x = self.add_relu.add_relu(x, self.hardswish(self.conv(x)))
        x = self.mul.mul(x, self.hardsigmoid(self.relu6(self.conv_relu(x))))
        x = self.up(self.cat.cat([x, self.sigmoid(x)], 1))
        x = self.up_1d(x.mean(3))
        return self.linear(self.dropout(self.linear_relu(x.flatten(1))))


@pytest.mark.parametrize("name", ["qnnpack", "fbgemm", "tflite"])
def test_every_form_of_layer_is_frozen_and_exported(tmp_path, name):
    torch.manual_seed(0)
    triple = [f"conv_bn_relu.{position}" for position in range(3)]
    pairs = [[f"{name}.0", f"{name}.1"] for name in ("conv_bn", "conv_relu", "linear_relu")]
    with training.expected_warnings():
        model = tq.QuantWrapper(tq.fuse_modules_qat(EveryForm().train(), [triple, *pairs]))
        model.qconfig = qconfigs.qconfig_named(name).build()
        tq.prepare_qat(model, inplace=True)
    images = torch.rand(16, 4, 8, 8)
    for _ in range(3):
        model(images)
    model.apply(tq.disable_observer)
    frozen = export.freeze(model)
    scales = export.activation_scales(frozen)
    assert scales["module.sigmoid"] == scales["module.hardsigmoid"] == (1 / 256, -128)
    assert "module.idle" not in scales
    with torch.no_grad():
        expected, logits = model.eval()(images).numpy(), frozen(images).numpy()
    assert np.abs(logits - expected).max() <= 1.001 * scales["module.linear"][0]
    for exporter in export.EXPORTERS:
        path = tmp_path / f"{exporter}.onnx"
        export.export_onnx(frozen, images[:1].numpy(), path, exporter)
        (outputs,) = onnx_runtime.outputs(onnx_runtime.session(path), {"input": images.numpy()})
        assert np.abs(outputs - logits).max() <= 1.001 * scales["module.linear"][0]


def test_an_activation_that_no_data_reached_is_refused_where_it_is_used(qat):
    """The block itself may stay: torchvision's residual blocks carry an addition that some of them never use."""
    model = copy.deepcopy(qat("qnnpack"))
    model.idle = tq.get_default_qat_qconfig("qnnpack").activation()
    frozen = export.freeze(model)
    with pytest.raises(BridgeError, match="'idle': has never seen data"):
        frozen.idle(torch.zeros(1))


def test_a_channel_of_one_sign_becomes_symmetric_and_is_counted():
    model = network.build_network(0)
    with torch.no_grad():
        model.conv.weight[1] = model.conv.weight[1].abs()
    prepared = training.prepare_for_qat(model, "fbgemm")
    prepared(torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    trained = prepared.conv.weight_fake_quant
    assert trained.zero_point[1] != 0  # what the fused fake-quant trains with

    frozen = export.freeze(prepared)

    layer = next(module for module in frozen.modules() if isinstance(module, export.FrozenLayer))
    assert export.one_signed_channels(frozen)["conv.0"] == int((trained.zero_point != 0).sum())
    assert not layer.weight_fake_quant.zero_point.any()
    assert layer.weight_fake_quant.scale[1] == pytest.approx(float(model.conv.weight[1].abs().max()) / 127)
    assert layer.weight_fake_quant.scale[0] == trained.scale[0]
