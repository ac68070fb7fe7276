"""Biases on the int32 grid, in the frozen model, in the engine and in the exported file."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import pytest
import torch

from bridge.verifying import onnx_runtime
from torch_side import bias_grid, export, network, training

EXAMPLE = np.zeros((1, 1, 28, 28), np.float32)


@pytest.fixture(scope="module")
def qat():
    """A QAT network whose observers have seen noise, by qconfig."""

    def build(qconfig):
        model = training.prepare_for_qat(network.build_network(0), qconfig)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model(torch.rand(8, 1, 28, 28))
        return model.apply(torch.ao.quantization.disable_observer).eval()

    return build


def steps_off_grid(layer, input_scale):
    step = input_scale * layer.weight_fake_quant.scale.double()
    codes = layer.layer.bias.detach().double() / step
    return (codes - codes.round()).abs().max().item()


@pytest.mark.parametrize("qconfig", ["qnnpack", "fbgemm", "tflite"])
def test_a_frozen_bias_becomes_a_whole_number_of_input_scale_times_weight_scale(qat, qconfig):
    frozen = export.freeze(qat(qconfig))
    scales = export.activation_scales(frozen)
    conv, dense = (module for module in frozen.modules() if isinstance(module, export.FrozenLayer))
    assert steps_off_grid(conv, scales["quant"][0]) > 0.1

    bias_grid.round_frozen(frozen, (EXAMPLE,))

    assert steps_off_grid(conv, scales["quant"][0]) < 0.01  # codes reach 15,000: float32 holds their product to 0.001
    assert steps_off_grid(dense, scales["conv"][0]) < 0.01  # through the pool and the flatten


def test_rounding_moves_no_logit_by_more_than_one_lsb(qat):
    model = qat("qnnpack")
    rounded = export.freeze(model)
    bias_grid.round_frozen(rounded, (EXAMPLE,))
    images = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        apart = (rounded(images) - export.freeze(model)(images)).abs().max().item()

    assert apart <= export.activation_scales(rounded)["dense"][0] * 1.001


def test_the_engine_keeps_its_weights_and_gets_biases_on_the_grid(qat):
    converted = training.to_int8_engine(qat("fbgemm"), "fbgemm")
    weight, bias = converted.conv._weight_bias()

    bias_grid.round_engine(converted, (EXAMPLE,))

    after, rounded = converted.conv._weight_bias()
    step = weight.q_per_channel_scales().float() * converted.quant.scale.float()
    assert torch.equal(after.int_repr(), weight.int_repr())
    assert torch.allclose(rounded / step, (bias / step).round(), atol=0.01)


def exported_bias_codes(path):
    """The int32 codes that the exported arithmetic yields for the convolution's bias."""
    model = onnx.load(path)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    dequantize = next(node for node in model.graph.node if conv.input[2] in node.output)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(dequantize.input[0], onnx.TensorProto.INT32, None))
    return onnx_runtime.session(model).run(None, {"input": EXAMPLE})[0]


def test_the_exporter_rounds_int32_biases_where_torch_alone_cuts_them_off(qat, tmp_path):
    converted = training.to_int8_engine(qat("qnnpack"), "qnnpack")
    weight, bias = converted.conv._weight_bias()
    exact = (bias.double() / (weight.q_scale() * converted.quant.scale.double())).detach().numpy()

    # From here on `torch.onnx.symbolic_helper` is a copy of the module that the exporter uses.
    importlib.import_module("torch.onnx.symbolic_helper")
    export.export_onnx(converted, EXAMPLE, tmp_path / "rounded.onnx")

    assert np.abs(np.trunc(exact) - np.rint(exact)).max() == 1  # cutting off would show
    np.testing.assert_array_equal(exported_bias_codes(tmp_path / "rounded.onnx"), np.rint(exact))
