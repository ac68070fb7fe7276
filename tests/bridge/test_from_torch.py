"""A team's own model: one call from a prepared module to a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq

import bridge
from bridge.errors import BridgeError
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
