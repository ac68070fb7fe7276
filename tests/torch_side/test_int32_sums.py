"""In eval mode a layer of a QAT model adds up whole numbers, as an int8 kernel does; in training it is what it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq

import bridge
from torch_side.training import expected_warnings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

LAYERS = {
    "convolution": ([nn.Conv2d(6, 4, 3, padding=1)], (2, 6, 5, 5)),
    "with batch norm": ([nn.Conv2d(6, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)], (2, 6, 5, 5)),
    "with batch norm and ReLU": ([nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU()], (2, 6, 5, 5)),
    "in groups": ([nn.Conv2d(6, 6, 3, groups=6)], (2, 6, 5, 5)),
    "reflecting": ([nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect")], (2, 6, 5, 5)),
    "in one dimension": ([nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4)], (2, 6, 9)),
    "dense": ([nn.Linear(7, 5)], (3, 7)),
    "dense with ReLU": ([nn.Linear(7, 5), nn.ReLU()], (3, 7)),
    "dense, more axes": ([nn.Linear(7, 5, bias=False)], (2, 3, 7)),
    "sums beyond 2 ** 24": ([nn.Linear(3000, 5)], (3, 3000)),
}


def prepared(kind, target="cpu"):
    """The model after some training, one of its layers, the fake-quant before it, and an input."""
    layers, shape = LAYERS[kind]
    with torch.random.fork_rng(devices=[]), expected_warnings():
        torch.manual_seed(0)
        model = bridge.prepare(copy.deepcopy(nn.Sequential(*layers)), torch.zeros(shape), target)
        x = 3 * torch.randn(shape)
        if kind.startswith("sums"):
            x = x.abs()
        for _ in range(4):
            model(x + 0.1 * torch.randn(shape))
    bridge.freeze_observers(model)
    layer = next(module for module in model.modules() if hasattr(module, "weight_fake_quant"))
    first = next(module for module in model.children() if isinstance(module, tq.FakeQuantizeBase))
    return model, layer, first, x


def seen(layer, run):
    """What the layer is given and gives while `run` runs."""
    found = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: found.append(output.detach().clone()))
    run()
    hook.remove()
    (output,) = found
    return output


def by_whole_numbers(layer, first, x):
    """int64 codes, convolved by hand: the sums an int8 kernel has, in real numbers."""
    weight, bias, norm = layer.weight.detach(), layer.bias, getattr(layer, "bn", None)
    if norm is not None:
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = (weight * gain.reshape(-1, *[1] * (weight.dim() - 1))).detach()
        bias = norm.bias + ((0 if bias is None else bias) - norm.running_mean) * gain
    trained = layer.weight_fake_quant
    trained.disable_observer()
    with torch.no_grad():
        real = trained(weight)
        given = first(x)
    scale = trained.scale.detach()
    codes = torch.round(real / scale.reshape(-1, *[1] * (weight.dim() - 1))).long()
    inputs = torch.round(given / first.scale).long()
    if isinstance(layer, nn.Linear):
        sums = inputs @ codes.T
        channels = (-1,)
    else:
        options = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
        convolve = {3: nn.functional.conv1d, 4: nn.functional.conv2d}[weight.dim()]
        padding = layer.padding
        if layer.padding_mode != "zeros":
            inputs = nn.functional.pad(inputs.double(), [1, 1, 1, 1], mode=layer.padding_mode).long()
            padding = 0
        sums = convolve(inputs.double(), codes.double(), padding=padding, **options).long()
        channels = (-1, *[1] * (weight.dim() - 2))
    step = (scale * first.scale).double()
    if bias is not None:
        sums = sums + torch.round(bias.detach().double() / step).long().reshape(channels)
    real = (sums.double() * step.reshape(channels)).float()
    return real.relu() if "ReLU" in type(layer).__name__ else real


@pytest.mark.parametrize("target", ["cpu", "imx8mp"])
@pytest.mark.parametrize("kind", LAYERS)
def test_in_eval_mode_a_layer_gives_the_sums_of_its_codes_to_the_bit(kind, target):
    model, layer, first, x = prepared(kind, target)
    model.eval()
    with torch.no_grad():
        given = seen(layer, lambda: model(x))
    assert torch.equal(given, by_whole_numbers(layer, first, x))


@pytest.mark.parametrize("kind", LAYERS)
def test_it_is_what_the_layer_gives_up_to_float32s_own_rounding(kind):
    model, layer, _, x = prepared(kind)
    model.eval()
    bare = copy.deepcopy(model)
    for module in bare.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    plain = next(module for module in bare.modules() if hasattr(module, "weight_fake_quant"))
    with torch.no_grad():
        mine, theirs = seen(layer, lambda: model(x)), seen(plain, lambda: bare(x))
    steps = 0.5 * float(layer.weight_fake_quant.scale.max()) * 0.1  # a float bias is up to half a step off
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=max(steps, 1e-4 * float(theirs.abs().max())))


@pytest.mark.parametrize("kind", LAYERS)
def test_with_gradients_it_gives_the_same_numbers_and_those_of_the_fake_quant_layer(kind):
    model, layer, _, x = prepared(kind)
    model.eval()
    with torch.no_grad():
        without = model(x)
    with_gradients = model(x)
    with_gradients.square().sum().backward()
    ours = layer.weight.grad.clone()

    bare = copy.deepcopy(model)
    bare.zero_grad()
    for module in bare.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    bare(x).square().sum().backward()
    theirs = next(module for module in bare.modules() if hasattr(module, "weight_fake_quant")).weight.grad

    assert torch.equal(without, with_gradients)
    assert torch.allclose(ours, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))
    assert float(theirs.abs().max()) > 0


@pytest.mark.parametrize("mode", ["training", "fake-quant off"])
def test_in_training_and_without_fake_quant_it_is_the_layer_it_was(mode):
    model, _, _, x = prepared("convolution")
    model.train(mode == "training")
    if mode != "training":
        model.apply(tq.disable_fake_quant)
    bare = copy.deepcopy(model)
    for module in bare.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    with torch.no_grad():
        assert torch.equal(model(x), bare(x))


def test_running_in_eval_changes_nothing_and_a_copy_does_the_same():
    model, _, _, x = prepared("with batch norm and ReLU")
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        once, again, copied = model(x), model(x), copy.deepcopy(model)(x)
    assert torch.equal(once, again)
    assert torch.equal(once, copied)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_that_raises_leaves_nothing_behind():
    model, layer, _, x = prepared("convolution")
    model.eval()
    with torch.no_grad():
        before = model(x)
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 5, 5, 5))
        assert torch.equal(model(x), before)
    assert not any("int32" in name for name in vars(layer))


def test_observers_that_still_run_see_a_weight_once():
    model, _, _, x = prepared("with batch norm")
    model.eval().apply(tq.enable_observer)
    bare = copy.deepcopy(model)
    for module in bare.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    with torch.no_grad():
        model(x), bare(x)
    mine, theirs = (
        next(each for each in one.modules() if hasattr(each, "weight_fake_quant")).weight_fake_quant
        for one in (model, bare)
    )
    assert np.array_equal(mine.scale.numpy(), theirs.scale.numpy())
    assert np.array_equal(mine.activation_post_process.max_val.numpy(), theirs.activation_post_process.max_val.numpy())
