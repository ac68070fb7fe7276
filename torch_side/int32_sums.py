"""Layers of a QAT model that add up, in eval mode, what an int8 kernel adds up: whole numbers, the bias among them.

A fake-quant layer adds products of float32 numbers, each sum rounded on the way, and a float bias. An int8 kernel adds codes
in int32, where nothing is lost. The two differ by some parts in 10^7, which is a whole step where a sum lies near a tie: a
few codes in 100,000 of each layer, and with them everything behind. What is validated here is what will run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

EXACT_IN_FLOAT32 = 2.0**24
"""Up to here float32 holds every whole number, so that sums of codes are exact in whatever order they are taken."""


def add_up_in_eval(layer: nn.Module, activation: nn.Module) -> None:
    """From now on `layer` computes with int32 sums whenever it is in eval mode; in training nothing changes.

    `layer`: one of torch.ao.nn.qat or torch.ao.nn.intrinsic.qat. `activation`: the fake-quant, with one scale, that its
    input comes from. Gradients stay those of the fake-quant layer. With either fake-quant switched off it computes in float.
    """
    sums = _Int32Sums(activation)
    layer.register_forward_pre_hook(sums.before)
    layer.register_forward_hook(sums.after)


class _Int32Sums:
    """Two hooks: the layer itself runs on no samples, unless somebody wants its gradient."""

    def __init__(self, activation: nn.Module) -> None:
        self.activation = activation

    def before(self, layer: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
        (x,) = inputs
        if not self._acts(layer) or torch.is_grad_enabled():
            return None
        layer.__dict__["_int32_input"] = x
        return (x[:0],)

    def after(self, layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        if not self._acts(layer):
            return None
        x = layer.__dict__.pop("_int32_input", inputs[0])
        with torch.no_grad():
            sums = _summed(layer, x, self.activation)
        return _WithGradientOf.apply(sums, output) if torch.is_grad_enabled() else sums  # type: ignore[no-untyped-call]

    def _acts(self, layer: Any) -> bool:
        both: tuple[Any, ...] = (self.activation, layer.weight_fake_quant)
        return not layer.training and all(bool(each.fake_quant_enabled[0]) for each in both)


class _WithGradientOf(torch.autograd.Function):
    """The numbers of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, numbers: torch.Tensor, other: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - autograd's form
        return numbers.view_as(numbers)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:  # noqa: ARG004 - autograd's form
        return None, gradient


def _summed(layer: Any, x: torch.Tensor, activation: Any) -> torch.Tensor:
    """Input codes times weight codes plus bias codes, times input scale * weight scale; ReLU where it is fused."""
    weight, bias = folded(layer)
    trained = layer.weight_fake_quant
    scale = trained.scale.float()
    along_weight = scale.reshape(-1, *[1] * (weight.dim() - 1))
    codes = torch.round(_fake_quantized(weight, trained) / along_weight)
    given = torch.round(x / activation.scale.float())
    farthest = max(abs(int(activation.quant_min)), abs(int(activation.quant_max))) + abs(int(activation.zero_point))
    exact = farthest * float(codes.abs().flatten(1).sum(1).max()) < EXACT_IN_FLOAT32
    sums = _products(layer, given, codes) if exact else _products(layer, given.double(), codes.double())
    channels = [-1] if isinstance(layer, nn.Linear) else [-1, *[1] * (weight.dim() - 2)]
    step = (scale * activation.scale.float()).double().reshape(-1)
    added = 0.0 if bias is None else torch.round(bias.double() / step).reshape(channels)
    real = ((sums.double() + added) * step.reshape(channels)).to(x.dtype)
    return F.relu(real) if "ReLU" in type(layer).__name__ else real


def _products(layer: Any, given: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    summed: torch.Tensor
    summed = F.linear(given, codes) if isinstance(layer, nn.Linear) else layer._conv_forward(given, codes, None)  # noqa: SLF001
    return summed


def _fake_quantized(weight: torch.Tensor, trained: Any) -> torch.Tensor:
    """As the module does it; asked itself, it would observe the weight once more."""
    scale, zero_point = trained.scale.float(), trained.zero_point.int()
    low, high = int(trained.quant_min), int(trained.quant_max)
    if scale.numel() == 1 and not getattr(trained, "is_per_channel", False):
        return torch.fake_quantize_per_tensor_affine(weight, scale.reshape(()), zero_point.reshape(()), low, high)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, int(trained.ch_axis), low, high)


def folded(layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a QAT layer, its batch norm in them.

    Term by term as `_ConvBnNd._forward_approximate` (torch.ao.nn.intrinsic.qat) does it: another order flips weight codes.
    """
    weight, bias, norm = layer.weight, layer.bias, getattr(layer, "bn", None)
    if norm is None:
        return weight, bias
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shifted = norm.bias + ((0 if bias is None else bias) - norm.running_mean) * gain
    return weight * gain.reshape(-1, *[1] * (weight.dim() - 1)), shifted
