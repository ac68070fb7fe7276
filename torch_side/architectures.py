"""The quantizable networks of torchvision, prepared for QAT, with statistics as after a training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.ao import quantization as tq
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.errors import BridgeError
from torch_side.qconfigs import qconfig_named
from torch_side.training import expected_warnings
from torch_side.vision import import_torchvision

_NO_EXTRAS = {"aux_logits": False, "init_weights": False, "transform_input": False}
"""No second output, no slow truncated-normal weights, and no arithmetic in float before the first fake-quant."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {},
    "resnet18": {},
    "shufflenet_v2_x0_5": {},
    "mobilenet_v3_large": {},
    "googlenet": _NO_EXTRAS,
    "shufflenet_v2_x1_0": {},
    "shufflenet_v2_x1_5": {},
    "shufflenet_v2_x2_0": {},
    "resnet50": {},
    "inception_v3": _NO_EXTRAS,
    "resnext101_64x4d": {},
    "resnext101_32x8d": {},
}

ARCHITECTURES: tuple[str, ...] = tuple(_OPTIONS)
"""All of torchvision.models.quantization (0.28), the quick ones first; inception_v3 needs 75 x 75 pixels at least."""


def build_trained_looking(name: str, qconfig_name: str, *, size: int, seed: int = 0, batch: int = 16) -> nn.Module:
    """A QAT model of the named architecture, in evaluation mode, whose observers and batch norms stand still.

    Nothing is downloaded or trained: weights are random, batch norms have seen the images of `natural_images`, so the
    activations keep a sane range through the depth and logits differ between images. Everything else is as a training
    script of torchvision would leave it: `fuse_model(is_qat=True)`, `prepare_qat`, observers run in training mode.

    Raises `BridgeError` for an unknown architecture or qconfig.
    """
    if name not in _OPTIONS:
        raise BridgeError(
            where=f"architecture '{name}'",
            problem="is not known",
            remedy=f"Known names: {', '.join(ARCHITECTURES)}.",
        )
    qconfig = qconfig_named(qconfig_name).build()
    constructors = import_torchvision().models.quantization
    images = natural_images(6 * batch, size, seed).split(batch)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(seed)
        model: Any = getattr(constructors, name)(weights=None, quantize=False, **_OPTIONS[name]).train()
        _draw_weights(model)
        _align_with_inputs(model, images[0])
        _mix_signs(model)
        _settle_batch_norms(model, images[:3])
        model.fuse_model(is_qat=True)
        model.qconfig = qconfig
        tq.prepare_qat(model, inplace=True)
        model.apply(nn.intrinsic.qat.freeze_bn_stats)
        for images_seen in images[3:]:
            model(images_seen)
        model.apply(tq.disable_observer)
    prepared: nn.Module = model.eval()
    return prepared


def _draw_weights(model: nn.Module) -> None:
    """Random numbers where torchvision starts from constants or next to nothing, and kernels that are partly smooth."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.trunc_normal_(layer.weight, 1.0, 0.25, 0.4, 1.6)
            nn.init.normal_(layer.bias, 0.25, 0.25)
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.weight += layer.weight.std() * torch.randn(*layer.weight.shape[:2], 1, 1)
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.bias is not None:
            nn.init.normal_(layer.bias, 0.0, 0.1)


def _align_with_inputs(model: nn.Module, batch: torch.Tensor) -> None:
    """Turn the weights of every dense or ungrouped layer towards the directions in which its input varies.

    A training does that, as every gradient is a sum of inputs; without it a deep random network is chaotic. Two or
    three codes that round the other way in the first layers of mobilenet_v2 changed a quarter of the logits, by up to
    11 LSB, so that two correct implementations could not be compared.
    """

    def align(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        covariance = torch.cov(inputs[0].transpose(0, 1).flatten(1), correction=0)
        noise = covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance))
        kept = torch.linalg.solve(covariance + noise, covariance)  # a Wiener filter: v / (v + 1) at variance v
        weight = torch.einsum("oi...,ij->oj...", layer.weight, kept)
        power = (torch.einsum("oi...,ij->oj...", weight, covariance) * weight).sum() / len(weight)
        layer.weight.copy_(weight / power.sqrt())  # about deviation 1, where no batch norm takes care of it

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_pre_hook(align) for layer in layers if getattr(layer, "groups", 1) == 1]
    model(batch)
    for hook in hooks:
        hook.remove()


def _mix_signs(model: nn.Module) -> None:
    """No output channel whose weights all have one sign.

    For such a channel the fused fake-quant of torch 2.13 trains an affine weight, zero point -128 or 127, although its
    scheme is per_channel_symmetric (ChooseQuantizationParams in ATen/native/quantized/cpu/QuantUtils.h preserves
    sparsity only where min < 0 < max). `convert` then makes it symmetric, TFLite knows no other form. A training can
    end there, depthwise blurs do; a test bed of networks that can be converted must not.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weights = layer.weight.flatten(1)
            rest = weights[:, 1:].sum(1)
            weights[:, 0] = weights[:, 0].abs() * torch.where(rest > 0, -1.0, 1.0)


def _settle_batch_norms(model: nn.Module, batches: tuple[torch.Tensor, ...]) -> None:
    """Running statistics that are the plain average over `batches`."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def natural_images(count: int, size: int, seed: int) -> torch.Tensor:
    """Smooth colour patches with detail at every scale: float32 (count, 3, size, size), about mean 0 and deviation 1.

    A photograph's spectrum falls as 1 / frequency; here each octave of noise is half as strong as the one below it.
    Brightness, contrast and tint differ from image to image, as they do in photographs, normalised as for ImageNet.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    images = noise(3, 1, 1).expand(count, 3, size, size).clone()
    grids = [side for side in (2, 4, 8, 16, 32, 64, 128) if side < size]
    for octave, side in enumerate((*grids, size)):
        grey, tint = noise(1, side, side), noise(3, side, side)
        layer = F.interpolate(grey + 0.5 * tint, (size, size), mode="bilinear", align_corners=False)
        images += layer * 0.5**octave * 1.5
    pixels = torch.sigmoid(images * torch.exp(0.5 * noise(1, 1, 1)))
    return (pixels - 0.45) / 0.226
