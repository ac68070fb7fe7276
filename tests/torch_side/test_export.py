"""Frozen fake-quant and its ONNX, judged by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq

from bridge.errors import BridgeError
from torch_side import export, qconfigs, training

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
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    pixels = (images.astype(np.float32) / np.float32(255))[:, None]
    return np.concatenate([session.run(None, {"input": pixel[None]})[0] for pixel in pixels])


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
    frozen = export.activation_scales(export.freeze(qat("qnnpack")))
    converted = export.activation_scales(training.to_int8_engine(qat("qnnpack"), "qnnpack"))
    assert list(frozen) == ["quant", "conv", "dense"]
    assert {role: (np.float32(scale), zero) for role, (scale, zero) in frozen.items()} == {
        role: (np.float32(scale), zero) for role, (scale, zero) in converted.items()
    }


def test_a_relu_output_has_the_lowest_int8_zero_point(qat):
    for name in ("fbgemm", "qnnpack", "symmetric"):
        _, zero_point = export.activation_scales(export.freeze(qat(name)))["conv"]
        assert zero_point == -128


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
