"""Who is told what, in the words of the tool that the model was made with."""

from __future__ import annotations

import sys
import types

import numpy as np
import onnx
import pytest
import torch
from packaging.version import Version
from torch import nn
from torch.ao import quantization as tq

import bridge
from bridge.errors import BridgeError
from bridge.from_torch import ready
from bridge.from_torch.admission import TOOLKITS
from bridge.from_torch.building import Misread
from bridge.from_torch.exported import read_by_export
from torch_side.qconfigs import qconfig_named

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

EXAMPLE = np.zeros((2, 4), np.float32)


def made_by(package: str, base: type = nn.Linear) -> type:
    """A class of a package that is not installed here."""
    return type("Quantized", (base,), {"__module__": f"{package}.nn"})


def refused(model, tmp_path):
    with pytest.raises(BridgeError) as error:
        bridge.convert(model, EXAMPLE, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
    return str(error.value)


@pytest.mark.parametrize("toolkit", TOOLKITS, ids=lambda each: each.package)
def test_a_model_of_another_toolkit_is_told_its_own_export(toolkit, tmp_path):
    said = refused(nn.Sequential(nn.ReLU(), made_by(toolkit.package)(4, 4)), tmp_path)
    assert f"is quantized with {toolkit.name}" in said
    assert toolkit.export in said


def test_a_simulation_that_is_no_module_is_told_its_own_export_too(tmp_path):
    assert "aimet_torch.onnx.export" in refused(made_by("aimet_torch", object)(), tmp_path)


@pytest.mark.parametrize(
    ("package", "said"), [("keras", "Keras 3 has no quantization-aware training"), ("tf_keras", "from_keras_model")]
)
def test_a_keras_model_is_told_which_way_takes_it(package, said, tmp_path):
    assert said in refused(made_by(package, object)(), tmp_path)


def test_an_onnx_model_in_memory_is_told_which_function_takes_it(tmp_path):
    assert "bridge.exact.convert.convert(model)" in refused(onnx.ModelProto(), tmp_path)


class Small(nn.Module):
    def __init__(self, act=None):
        super().__init__()
        self.quant, self.dense, self.act, self.dequant = (
            tq.QuantStub(),
            nn.Linear(4, 4),
            act or nn.ReLU(),
            tq.DeQuantStub(),
        )

    def forward(self, x):
        return self.dequant(self.act(self.dense(self.quant(x))))


def test_what_quantizes_its_activations_as_it_runs_has_no_static_scale(tmp_path):
    said = refused(tq.quantize_dynamic(Small(), {nn.Linear}), tmp_path)
    assert "quantizes its activations when the model runs: they have no static scale" in said
    assert "prepare_qat_pt2e" in said


def test_torchao_weights_are_dynamic_too(tmp_path, monkeypatch):
    """`quantize_` replaces the parameters by a tensor class of its own."""
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    tensor = type("LinearActivationQuantizedTensor", (nn.Parameter,), {"__module__": "torchao.quantization.linear"})
    model = Small()
    model.dense.weight = tensor(model.dense.weight.detach())
    assert "no static scale" in refused(model, tmp_path)


def prepared_for_calibration():
    model = Small().eval()
    model.qconfig = tq.get_default_qconfig("qnnpack")
    model = tq.prepare(model)
    model(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))
    return model


def test_a_calibrated_model_is_converted_for_its_owner_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.quantized, "engine", "qnnpack")
    model = prepared_for_calibration()
    conversion = bridge.convert(model, EXAMPLE, tmp_path / "model.tflite")
    (found,) = bridge.verify(model, conversion, np.random.default_rng(0).normal(size=(64, 4)))["xnnpack"].values()
    assert found.worst <= 1
    assert any(isinstance(module, tq.ObserverBase) for module in model.modules())


def test_a_float_model_is_told_that_there_is_nothing_to_keep(tmp_path):
    assert "no trained scale to keep" in refused(Small(), tmp_path)


def trained(model=None):
    model = (model or Small()).train()
    model.qconfig = qconfig_named("tflite").build()
    model = tq.prepare_qat(model)
    model(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))
    return model


def test_weights_that_training_lost_are_named(tmp_path):
    model = trained()
    with torch.no_grad():
        model.dense.bias[1] = float("nan")
    said = refused(model, tmp_path)
    assert "'dense.bias': holds NaN or infinity" in said


class Mode(nn.Module):
    """An activation function that the bridge does not write."""

    def forward(self, x):
        return torch.erfinv(x)


def test_what_no_reader_knows_is_named(tmp_path):
    said = refused(trained(Small(Mode())), tmp_path)
    assert "erfinv" in said


class Counting(nn.Module):
    """Python that a trace does not see: the second call computes something else than the first."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.relu() if self.calls % 2 else x


@pytest.mark.parametrize("calls", [0, 1])
def test_python_that_a_trace_does_not_see_is_refused(calls, tmp_path):
    model = trained(Small(Counting()))
    model.act.calls += calls
    assert "computes something else" in refused(model, tmp_path)


def test_what_torch_export_can_read_of_it_is_refused_too():
    """torch.export of torch 2.4 takes what newer ones refuse."""
    model = trained(Small(Counting()))
    with pytest.raises(Misread, match="each time it is called"):
        read_by_export(ready(model), (EXAMPLE,))


class Shown(nn.Module):
    """Writes in place into what another tensor shows."""

    def forward(self, x):
        y = x.view(x.shape)
        x.relu_()
        return y


def test_a_tensor_that_is_written_while_another_one_shows_it_is_refused(tmp_path):
    """torch's exporters trace, too, and write what was shown before: a wrong file without a word.

    torch.export of torch 2.4 writes it as the model computes it, and is taken at its word where every bit agrees.
    """
    model = trained(Small(Shown()))
    if Version(torch.__version__) >= Version("2.9"):
        assert "in place while another one shows its memory" in refused(model, tmp_path)
    else:
        found = bridge.verify(
            model, bridge.convert(model, EXAMPLE, tmp_path / "model.tflite"), np.eye(4, dtype=np.float32)
        )
        assert max(each.worst for outputs in found.values() for each in outputs.values()) == 0


class Reading(nn.Module):
    """Reads a number out of a tensor: every trace writes down what it was for the example."""

    def forward(self, x):
        return x * float(x.abs().max().item() > 0.5) + x


def test_a_number_that_python_reads_from_a_tensor_is_not_written_down_for_ever(tmp_path):
    said = refused(trained(Small(Reading())), tmp_path)
    assert "cannot be read as it runs" in said
