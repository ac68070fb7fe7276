"""The qconfig for a target: the exported weights have as many scales as the target runs fast with."""

import pytest
import torch

import bridge
from bridge.errors import BridgeError
from bridge.targets import WEIGHTS
from compare.tflite.graph import open_tflite
from torch_side import network, training
from torch_side.qconfigs import for_target


@pytest.mark.parametrize("target", WEIGHTS)
def test_a_target_gets_tflites_arithmetic_with_the_weights_that_are_fast_there(target):
    expected = "tflite" if WEIGHTS[target].per_channel else "tflite_per_tensor"
    assert for_target(target).name == expected


def test_an_unknown_target_is_refused_with_the_known_ones():
    with pytest.raises(BridgeError, match="target 'k210': is not known") as refusal:
        for_target("k210")
    assert all(each in refusal.value.remedy for each in WEIGHTS)


@pytest.mark.parametrize(("target", "scales"), [("imx8mp", {1}), ("ethos-u", {12, 10})])
def test_the_converted_weights_have_the_scales_of_the_target(target, scales, tmp_path):
    model = training.prepare_for_qat(network.build_network(0), for_target(target).name)
    model.train()(torch.rand(8, 1, 28, 28))
    model.eval()

    bridge.convert(model, torch.zeros(1, 1, 28, 28), tmp_path / "model.tflite")
    graph = open_tflite((tmp_path / "model.tflite").read_bytes()).graph

    weights = [graph.tensors[n.inputs[1]] for n in graph.nodes if n.op in ("CONV_2D", "FULLY_CONNECTED")]
    assert {weight.qparams.scale.size for weight in weights} == scales
