"""Whatever is read by torch.fx gives the file that torch's ONNX exporter, the control, leads to."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tests.bridge.from_torch.both_ways import assert_same_file, assert_same_outputs, both_ways
from torch_side import architectures, network, training
from torch_side.qconfigs import QCONFIGS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def mnist(qconfig):
    model = training.prepare_for_qat(network.build_network(0), qconfig)
    model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    return model.eval()


@pytest.mark.parametrize("qconfig", QCONFIGS)
def test_the_mnist_network_of_every_qconfig(qconfig):
    by_fx, by_onnx = both_ways(mnist(qconfig), np.zeros((1, 1, 28, 28), np.float32))
    assert_same_file(by_fx.tflite, by_onnx.tflite)
    assert [note.kind for note in by_fx.notes] == [note.kind for note in by_onnx.notes]


@pytest.mark.parametrize("qconfig", [name for name, qconfig in QCONFIGS.items() if qconfig.engine])
def test_the_mnist_network_of_every_engine(qconfig):
    engine = training.to_int8_engine(mnist(qconfig), qconfig)
    by_fx, by_onnx = both_ways(engine, np.zeros((1, 1, 28, 28), np.float32))
    assert_same_file(by_fx.tflite, by_onnx.tflite)


QUICK = ("shufflenet_v2_x0_5", "resnet18", "mobilenet_v2", "mobilenet_v3_large")
SIZE = 96


@pytest.mark.parametrize("form", ["fake-quant", "engine"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in architectures.ARCHITECTURES],
)
def test_the_quantizable_networks_of_torchvision(name, form):
    qconfig = "qnnpack" if form == "engine" else "fbgemm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = architectures.build_trained_looking(name, qconfig, size=SIZE, batch=4)
        model = training.to_int8_engine(model, qconfig) if form == "engine" else model
    by_fx, by_onnx = both_ways(model, np.zeros((1, 3, SIZE, SIZE), np.float32))
    if name.startswith("shufflenet") and form == "fake-quant":  # torch's exporter writes two slices for a chunk
        assert_same_outputs(by_fx, by_onnx)
    else:
        assert_same_file(by_fx.tflite, by_onnx.tflite)
