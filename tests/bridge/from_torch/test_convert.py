"""A team's own model: one call from a prepared module to a file."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.optim.swa_utils import AveragedModel

import bridge
from bridge.errors import BridgeError
from bridge.exact.convert import Options
from bridge.from_torch import frozen_copy
from torch_side import network, training
from torch_side.qconfigs import qconfig_named


@pytest.fixture(scope="module")
def qat():
    """The MNIST network prepared for QAT, with observers that have seen noise."""
    model = training.prepare_for_qat(network.build_network(0), "tflite")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model(torch.rand(16, 1, 28, 28))
    return model.apply(tq.disable_observer).eval()


def test_one_call_writes_a_file_that_says_what_the_model_says(qat, tmp_path):
    conversion = bridge.convert(qat, torch.zeros(1, 1, 28, 28), tmp_path / "model.tflite")
    images = np.random.default_rng(0).random((32, 1, 28, 28), np.float32)

    found = bridge.verify(qat, conversion, images)

    assert (tmp_path / "model.tflite").read_bytes() == conversion.tflite
    assert sorted(conversion.operators_out) == ["CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "RESHAPE"]
    assert found["xnnpack"]["logits"].worst <= 1  # the bias of a fake-quant model is float


def test_a_converted_model_is_taken_as_it_is(tmp_path):
    model = training.prepare_for_qat(network.build_network(0), "qnnpack")
    model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    engine = training.to_int8_engine(model, "qnnpack")
    conversion = bridge.convert(engine, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "model.tflite")
    images = np.random.default_rng(0).random((32, 1, 28, 28), np.float32)

    found = bridge.verify(engine, conversion, images)

    assert found["xnnpack"]["logits"].equal == 1.0


ENGINES = [engine for engine in ("fbgemm", "qnnpack", "onednn") if engine in torch.backends.quantized.supported_engines]


@pytest.fixture
def selected(monkeypatch):
    """Selects an engine of PyTorch; the one before it is back after the test."""
    return lambda engine: monkeypatch.setattr(torch.backends.quantized, "engine", engine)


def three_tenths_of_a_step(layer):
    """A converted layer whose bias is 0.3 steps of its sum: 100 codes where an engine adds it in float, else none."""
    weight = torch.ones(1, 1, 1, 1) if isinstance(layer, torch.ao.nn.quantized.Conv2d) else torch.ones(1, 1)
    layer.set_weight_bias(torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8), torch.tensor([0.3]))
    layer.scale, layer.zero_point = 0.003, 0
    quantize = torch.ao.nn.quantized.Quantize(torch.tensor([1.0]), torch.tensor([0]), torch.quint8)
    return nn.Sequential(quantize, layer, torch.ao.nn.quantized.DeQuantize()).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("other", ENGINES)
@pytest.mark.parametrize("layer", [torch.ao.nn.quantized.Conv2d, torch.ao.nn.quantized.Linear])
def test_the_reference_is_the_engine_of_the_model_whichever_is_selected_now(layer, engine, other, selected):
    selected(engine)
    model = three_tenths_of_a_step(layer(1, 1, 1) if layer is torch.ao.nn.quantized.Conv2d else layer(1, 1))
    x = torch.zeros(1, 1, 1, 1) if layer is torch.ao.nn.quantized.Conv2d else torch.zeros(1, 1)
    said = model(x)
    assert said.item() == pytest.approx(0.0 if engine == "qnnpack" else 0.3, abs=1e-6)
    selected(other)

    assert torch.equal(frozen_copy(model)(x), said)


def test_the_model_is_left_as_it_was(qat, tmp_path):
    before = {name: value.clone() for name, value in qat.state_dict().items()}

    bridge.convert(qat, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "model.tflite")

    assert all(torch.equal(value, before[name]) for name, value in qat.state_dict().items())


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = tq.QuantStub(), tq.QuantStub(), tq.DeQuantStub()
        self.dense = nn.Linear(8, 3)
        self.sum = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, a, b):
        together = self.sum.add(self.left(a), self.right(b))
        return self.out(self.dense(together)), self.out(together)


def test_several_inputs_and_outputs_are_numbered(tmp_path):
    model = TwoInputs().train()
    model.qconfig = qconfig_named("tflite").build()
    prepared = tq.prepare_qat(model)
    prepared(torch.randn(16, 8), torch.randn(16, 8))

    conversion = bridge.convert(prepared.eval(), (torch.zeros(1, 8), torch.zeros(1, 8)), tmp_path / "model.tflite")

    assert conversion.graph.inputs == ("input_0", "input_1")
    assert conversion.graph.outputs == ("output_0", "output_1")


@pytest.mark.parametrize(
    ("model", "example", "said"),
    [
        (nn.Linear(2, 2), np.zeros((1, 2), np.float32), "no trained scale to keep"),
        ("model.onnx", np.zeros((1, 2), np.float32), "not str"),
        (nn.Linear(2, 2), (), "are empty"),
    ],
)
def test_what_has_no_trained_scales_is_refused_and_no_file_is_left(model, example, said, tmp_path):
    with pytest.raises(BridgeError, match=said):
        bridge.convert(model, example, tmp_path / "model.tflite")

    assert not list(tmp_path.iterdir())


# The caller's model ---------------------------------------------------------------------------------------------------


def everything(model):
    """What may not change: parameters, buffers, gradients, flags, hooks, modules."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items() if torch.is_tensor(value)},
        "buffers": {name: (id(value), value.clone()) for name, value in model.named_buffers()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "hooks": {
            name: (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._backward_hooks))
            for name, module in model.named_modules()
        },
        "random": torch.random.get_rng_state(),
    }


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def in_training(qconfig="tflite"):
    """Observers on, gradients there, a hook of the caller's."""
    model = training.prepare_for_qat(network.build_network(0), qconfig)
    model.train()
    model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))).sum().backward()
    next(model.children()).register_forward_hook(lambda *seen: None)  # noqa: ARG005 - a hook that looks at nothing
    return model


def engine():
    model = in_training("qnnpack")
    for module in model.modules():
        module._forward_hooks.clear()
    return training.to_int8_engine(model, "qnnpack").train()


WRAPPERS = {"in training": in_training, "engine": engine, "parallel": lambda: nn.DataParallel(in_training()),
            "compiled": lambda: torch.compile(in_training()), "averaged": lambda: AveragedModel(in_training())}  # fmt: skip


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_neither_conversion_nor_verification_changes_anything_in_the_model(make, tmp_path):
    model = make()
    before = everything(model)

    conversion = bridge.convert(model, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "model.tflite")
    after_conversion = everything(model)
    # Far outside of what the observers have seen: one that still observes would move its range.
    found = bridge.verify(model, conversion, np.random.default_rng(0).random((8, 1, 28, 28), np.float32) * 50)

    assert same(before, after_conversion)
    assert same(before, everything(model))
    assert all(outputs["logits"].equal > 0.95 for outputs in found.values())


def test_a_model_that_keeps_its_last_output_is_told_so(qat, tmp_path):
    conversion = bridge.convert(qat, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "model.tflite")
    keeping = training.prepare_for_qat(network.build_network(0), "tflite")
    keeping.last = keeping(torch.rand(4, 1, 28, 28))
    for call in (
        lambda: bridge.verify(keeping, conversion, np.zeros((1, 1, 28, 28), np.float32)),
        lambda: bridge.convert(keeping, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "again.tflite"),
    ):
        with pytest.raises(BridgeError, match="cannot be copied"):
            call()
    assert not (tmp_path / "again.tflite").exists()


@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_a_file_with_any_inputs_and_outputs_can_be_verified(io, qat, tmp_path):
    zeros = np.zeros((1, 1, 28, 28), np.float32)
    conversion = bridge.convert(qat, zeros, tmp_path / "model.tflite", Options(io=io))

    found = bridge.verify(qat, conversion, np.random.default_rng(0).random((8, 1, 28, 28), np.float32))

    assert found["xnnpack"]["logits"].worst <= 1
    assert found["xnnpack"]["logits"].count == 80


def test_another_model_is_far_away(qat, tmp_path):
    other = training.prepare_for_qat(network.build_network(1), "tflite")
    other(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    conversion = bridge.convert(qat, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "model.tflite")

    found = bridge.verify(other, conversion, np.random.default_rng(0).random((8, 1, 28, 28), np.float32))

    assert all(outputs["logits"].worst > 10 for outputs in found.values())


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros((2, 1, 28, 27), np.float32), r"has shape \(2, 1, 28, 27\)"),
        ((np.zeros((1, 1, 28, 28)), np.zeros((1, 1))), "got 2 inputs; the file takes 1"),
        (np.full((1, 1, 28, 28), np.nan), "holds NaN or infinity"),
        (["text"], "are no arrays of numbers"),
        (torch.zeros(0, 1, 28, 28), "are empty"),
    ],
    ids=["shape", "count", "nan", "text", "empty"],
)
def test_inputs_that_do_not_fit_are_one_sentence(inputs, said, qat, tmp_path):
    conversion = bridge.convert(qat, np.zeros((1, 1, 28, 28), np.float32), tmp_path / "model.tflite")

    with pytest.raises(BridgeError, match=said):
        bridge.verify(qat, conversion, inputs)


def test_inputs_that_require_gradients_are_taken(qat, tmp_path):
    conversion = bridge.convert(qat, torch.zeros(1, 1, 28, 28, requires_grad=True), tmp_path / "model.tflite")

    assert (
        bridge.verify(qat, conversion, torch.zeros(2, 1, 28, 28, requires_grad=True))["xnnpack"]["logits"].count == 20
    )


class Pooled(nn.Module):
    """A depthwise filter without negative weights, a global average, a dense layer."""

    def __init__(self, features=8, classes=4):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.wide, self.relu = nn.Conv2d(2, features, 1), nn.ReLU()
        self.depthwise = nn.Conv2d(features, features, 3, groups=features)
        self.dense = nn.Linear(features, classes)

    def forward(self, x):
        x = self.depthwise(self.relu(self.wide(self.quant(x))))
        return self.dequant(self.dense(x.mean((2, 3))))


def pooled(qconfig, **sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Pooled(**sizes).train()
        with torch.no_grad():
            model.wide.weight.copy_(torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1).expand_as(model.wide.weight))
            model.depthwise.weight.abs_()
        model.qconfig = qconfig_named(qconfig).build()
        prepared = tq.prepare_qat(model)
        prepared(torch.rand(16, 2, 8, 8))
    return prepared.apply(tq.disable_observer).eval()


EXAMPLE = np.zeros((1, 2, 8, 8), np.float32)


def test_weights_of_one_sign_are_said(tmp_path):
    with pytest.warns(bridge.ConversionWarning) as caught:
        conversion = bridge.convert(pooled("fbgemm"), EXAMPLE, tmp_path / "model.tflite")
    (said,) = [str(warning.message) for warning in caught if "one sign" in str(warning.message)]
    assert "8 of 8 channels made symmetric" in said
    assert "Train with qconfig 'tflite'" in said
    assert "LSB of" in said
    assert [note.kind for note in conversion.notes].count("symmetric") == 1


def test_an_average_that_inherits_its_scale_is_said_with_what_would_be_exact(tmp_path):
    with pytest.warns(bridge.ConversionWarning, match=r"averages without a trained scale.*--mean conv.*QuantStub"):
        bridge.convert(pooled("tflite", features=80, classes=80), EXAMPLE, tmp_path / "model.tflite")


def test_a_model_in_which_training_decided_everything_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", bridge.ConversionWarning)
        conversion = bridge.convert(pooled("tflite"), EXAMPLE, tmp_path / "model.tflite")
    assert conversion.operators_out["MEAN"] == 0  # inside the dense layer
    assert len(repr(conversion)) < 200
    assert str(conversion).startswith("read  torch.fx\nin    ")
