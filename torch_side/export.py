"""QAT model to frozen fake-quant to ONNX QDQ; converted int8 model to ONNX."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import nn
from torch.ao.quantization import FakeQuantizeBase, FixedQParamsObserver
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.errors import BridgeError
from bridge.exact.remarks import ONE_SIGNED
from torch_side.exported_biases import rounded_biases
from torch_side.int32_sums import folded
from torch_side.symbolics import quantized_symbolics

Exporter = Literal["torchscript", "dynamo"]
EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")
OPSET = {"torchscript": 17, "dynamo": 18}
"""Per-channel Q/DQ and an integer Clip need opset 13 (catalogue entry M08); 18 is the lowest that dynamo writes."""

_ONNX_RANGES = {(0, 127), (0, 255), (-128, 127)}
"""What the exporters can write (torch.onnx symbolic_opset13, fake_quantize_per_tensor_affine)."""


class FrozenFakeQuant(nn.Module):
    """Fake-quantize with constants: what both ONNX exporters understand.

    The fused module of the default qconfigs has no ONNX form (catalogue entry M06), and the plain one keeps its
    numbers in tensors on which torch.export refuses to decide (M07).
    """

    def __init__(self, scale: torch.Tensor, zero_point: torch.Tensor, axis: int | None, qmin: int, qmax: int) -> None:
        super().__init__()
        self.axis, self.qmin, self.qmax = axis, qmin, qmax
        self.one_signed, self.moved = 0, 0.0
        self.scalar_scale, self.scalar_zero_point = float(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0])
        self.channels = scale.numel()
        self.register_buffer("scale", scale.detach().clone().float())
        self.register_buffer("zero_point", zero_point.detach().clone().int())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scalar_scale, self.scalar_zero_point, self.qmin, self.qmax
            )
        return torch.fake_quantize_per_channel_affine(
            x,
            self.get_buffer("scale"),
            self.get_buffer("zero_point"),
            self.axis,
            self.qmin,
            self.qmax,
        )


class NeverRun(nn.Module):
    """In place of a fake-quant without a scale: no harm while nothing runs it, a refusal as soon as something does.

    torchvision gives every residual block its FloatFunctional, also the blocks that have no addition.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the signature of what it replaces
        raise _never_seen_data(self.where)


class FrozenLayer(nn.Module):
    """A convolution or dense layer with frozen fake-quant on its weight, and its fused ReLU."""

    def __init__(self, layer: nn.Module, weight_fake_quant: FrozenFakeQuant, relu: bool) -> None:
        super().__init__()
        self.layer = layer
        self.weight_fake_quant = weight_fake_quant
        self.relu = relu
        self.spared = False
        """Whether it computes with the weight as it is: that lies on its grid already, and rounding it again costs time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight: Any = self.layer.weight if self.spared else self.weight_fake_quant(self.layer.weight)
        if isinstance(self.layer, nn.Linear):
            x = F.linear(x, weight, self.layer.bias)
        else:
            x = self.layer._conv_forward(x, weight, self.layer.bias)  # type: ignore[operator]  # noqa: SLF001
        return F.relu(x) if self.relu else x


def freeze(qat_model: nn.Module) -> nn.Module:
    """A copy of a trained QAT model whose fake-quant modules are constants and whose batch norms are folded.

    Folded weights have the very codes of the prepared model, which itself divides and normalises afterwards; no
    converter folds that back (catalogue entry M10). Layers for which torch 2.13 has no QAT form (transposed
    convolutions, 1-D convolutions without batch norm) keep their float weights, as they had them in training.

    Weight scales are those that fake-quant trained with. `convert` replaces them: torch 2.13's fused kernel takes
    max(max / 127, -min / 128), the observer that `convert` asks says absmax / 127.5, so the int8 engine's weight codes
    are not the validated ones.

    A channel whose weights all have one sign trains with a zero point at the end of the range under every fused
    per-channel qconfig (aten/src/ATen/native/quantized/cpu/QuantUtils.h, `ChooseQuantizationParams`), which neither
    TFLite nor PyTorch's engine can hold: such channels become symmetric, as `convert` makes them, at half the
    resolution they trained with (`one_signed_channels` counts them; qconfig 'tflite' has none).

    Raises `BridgeError` when a weight has never been fake-quantized, or a range has no ONNX form. An activation that
    no data ever reached is refused when the frozen model runs it.
    """
    return freeze_in_place(copy.deepcopy(qat_model))


def freeze_in_place(qat_model: nn.Module) -> nn.Module:
    """As `freeze`, of a model that nobody needs any more as it was; returned is the model itself."""
    _freeze_children(qat_model.eval(), "", {})
    return qat_model


def _freeze_children(module: nn.Module, prefix: str, frozen: dict[nn.Module, nn.Module]) -> None:
    """Every child under each of its names: FX shares one fake-quant between tensors that share a scale."""
    for name, child in list(module._modules.items()):  # noqa: SLF001 - named_children leaves out a second name
        if child is None:
            continue
        where = f"{prefix}{name}"
        if child not in frozen:
            frozen[child] = _frozen_child(child, where, frozen)
        setattr(module, name, frozen[child])


def _frozen_child(child: nn.Module, where: str, frozen: dict[nn.Module, nn.Module]) -> nn.Module:
    if isinstance(child, FakeQuantizeBase):
        return _frozen(child, where) if _has_scale(child.activation_post_process) else NeverRun(where)
    if hasattr(child, "weight_fake_quant"):
        return _frozen_layer(child, where)
    _freeze_children(child, f"{where}.", frozen)
    return child


def _frozen(fake_quant: Any, where: str) -> FrozenFakeQuant:
    scale, zero_point = fake_quant.scale, fake_quant.zero_point
    observer = fake_quant.activation_post_process
    if not _has_scale(observer):
        raise _never_seen_data(where)
    qmin, qmax = observer.quant_min, observer.quant_max
    per_channel = scale.numel() > 1 or bool(getattr(fake_quant, "is_per_channel", False))
    axis = int(fake_quant.ch_axis) if per_channel else None
    if (qmin, qmax) == (-127, 127):  # the weights are clamped by `_narrow`; ONNX has no narrow range
        return FrozenFakeQuant(scale, zero_point, axis, -128, 127)
    if (qmin, qmax) not in _ONNX_RANGES:
        raise BridgeError(
            where=f"fake-quant module '{where}'",
            problem=f"range {qmin}..{qmax} has no ONNX form; only {sorted(_ONNX_RANGES)} have",
            remedy="Train with 8-bit activations, for example qconfig 'tflite'.",
        )
    return FrozenFakeQuant(scale, zero_point, axis, qmin, qmax)


def _never_seen_data(where: str) -> BridgeError:
    return BridgeError(
        where=f"fake-quant module '{where}'",
        problem="has never seen data, so it has no trained scale",
        remedy="Run training batches through every branch of the model before exporting.",
    )


def _has_scale(observer: Any) -> bool:
    """Whether it has seen data, or has no need to: a sigmoid's scale is fixed at 1/256."""
    if isinstance(observer, FixedQParamsObserver):
        return True
    return observer.min_val.numel() > 0 and bool(torch.isfinite(observer.min_val).all())


def _frozen_layer(layer: Any, where: str) -> nn.Module:
    """A QAT layer as a plain layer: batch norm folded, the weight already on its int8 grid."""
    weight_fake_quant = _frozen(layer.weight_fake_quant, f"{where}.weight_fake_quant")
    weight, bias = folded(layer)
    qmin = int(layer.weight_fake_quant.activation_post_process.quant_min)
    trained = _narrow(weight_fake_quant, weight.detach(), qmin)
    _symmetrize(weight_fake_quant, weight.detach())
    plain = _plain_layer(layer)
    with torch.no_grad():
        plain.weight = nn.Parameter(trained)
        if weight_fake_quant.one_signed:
            plain.weight = nn.Parameter(_narrow(weight_fake_quant, weight, qmin))
            apart = (plain.weight - trained).abs()
            weight_fake_quant.moved = float(apart.transpose(0, weight_fake_quant.axis or 0).flatten(1).sum(1).max())
        plain.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    relu = "ReLU" in type(layer).__name__
    frozen: nn.Module = FrozenLayer(plain, weight_fake_quant, relu)
    after = getattr(layer, "activation_post_process", None)
    if after is not None:
        frozen = nn.Sequential(frozen, _frozen(after, f"{where}.activation_post_process"))
    return frozen.eval()


def _symmetrize(fake_quant: FrozenFakeQuant, weight: torch.Tensor) -> None:
    """Give channels with a zero point the scale max / 127 and none, in place; count them in `one_signed`."""
    if fake_quant.axis is None:
        return
    scale, zero_point = fake_quant.get_buffer("scale"), fake_quant.get_buffer("zero_point")
    affected = zero_point != 0
    largest = weight.abs().amax(dim=[axis for axis in range(weight.dim()) if axis != fake_quant.axis])
    scale[affected] = largest[affected] / 127
    zero_point[affected] = 0
    fake_quant.one_signed = int(affected.sum())


def one_signed_channels(frozen: nn.Module) -> dict[str, int]:
    """How many weight channels of each layer `freeze` had to make symmetric; layers without any are left out."""
    return {
        path.removesuffix(".weight_fake_quant"): module.one_signed
        for path, module in frozen.named_modules()
        if isinstance(module, FrozenFakeQuant) and module.one_signed
    }


def _plain_layer(layer: Any) -> Any:
    """The float layer without weights that `layer` was prepared from; none are drawn, nor is memory taken for them."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain_class = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(layer.kernel_size)]
    return plain_class(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )


def _narrow(fake_quant: FrozenFakeQuant, weight: torch.Tensor, qmin: int) -> torch.Tensor:
    """The weight on its integer grid, clamped from `qmin` up: exporting it with -128 as the limit loses nothing."""
    scale, zero_point = fake_quant.get_buffer("scale"), fake_quant.get_buffer("zero_point")
    if fake_quant.axis is None:
        return torch.fake_quantize_per_tensor_affine(
            weight, fake_quant.scalar_scale, fake_quant.scalar_zero_point, qmin, fake_quant.qmax
        ).detach()
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zero_point, fake_quant.axis, qmin, fake_quant.qmax
    ).detach()


def export_onnx(
    model: nn.Module, example: np.ndarray | tuple[np.ndarray, ...], path: Path, exporter: Exporter = "torchscript"
) -> None:
    """Write a frozen fake-quant model, a converted int8 model or a float model as ONNX with fixed input shapes.

    `example` is float32, shaped as the model's input; a tuple for several. One input is called `input`, several
    `input_0`, `input_1`; one output `logits`, several `output_0`, `output_1`. int32 biases of converted models are
    rounded, not cut off (exported_biases.py). The file appears whole or not at all.

    Raises `BridgeError` with the exporter's own first line when it refuses the model.
    """
    beside = path.with_suffix(".onnx.part")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecations of exporter and quantization (M07, M12), nothing of ours
            examples = example if isinstance(example, tuple) else (example,)
            _quiet_exporter(model, tuple(torch.from_numpy(each) for each in examples), beside, exporter)
        _remark(model, beside)
        beside.replace(path)
    except (RuntimeError, torch.onnx.errors.OnnxExporterError, NotImplementedError) as error:
        raise BridgeError(
            where=f"ONNX export of {path.name}, exporter '{exporter}'",
            problem=next(iter(str(error).strip().splitlines()), type(error).__name__),
            remedy="Freeze the QAT model first, or use the other exporter; docs/mismatches.md, M06 to M10.",
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _remark(model: nn.Module, path: Path) -> None:
    """Say in the file which weights `freeze` made symmetric, so that whoever converts it can (bridge/exact/remarks.py)."""
    changed = {
        f"{name}.layer.weight": [
            module.weight_fake_quant.one_signed,
            module.weight_fake_quant.channels,
            module.weight_fake_quant.moved,
        ]
        for name, module in model.named_modules()
        if isinstance(module, FrozenLayer) and module.weight_fake_quant.one_signed
    }
    if changed:
        file = onnx.load(path)
        onnx.helper.set_model_props(file, {ONE_SIGNED: json.dumps(changed)})
        onnx.save(file, path)


def _quiet_exporter(model: nn.Module, examples: tuple[torch.Tensor, ...], path: Path, exporter: Exporter) -> None:
    dynamo = exporter == "dynamo"
    options: dict[str, Any] = {"external_data": False, "verbose": False} if dynamo else {}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    result = model.eval()(*examples)
    outputs = len(result) if isinstance(result, (tuple, list)) else 1
    with quantized_symbolics(OPSET["torchscript"]), rounded_biases():
        torch.onnx.export(
            model,
            examples,
            str(path),
            input_names=_numbered("input", "input", len(examples)),
            output_names=_numbered("logits", "output", outputs),
            opset_version=OPSET[exporter],
            dynamo=dynamo,
            **options,
        )


def _numbered(one: str, many: str, count: int) -> list[str]:
    return [one] if count == 1 else [f"{many}_{index}" for index in range(count)]


def activation_scales(model: nn.Module) -> dict[str, tuple[float, int]]:
    """The trained (scale, int8 zero point) of every quantized activation of a frozen or converted model, in order.

    Keys are the module paths that produce the tensors. A zero point of 0..255 is given 128 lower (catalogue entry M32);
    7-bit codes 0..127 fit int8 as they are.
    """
    scales: dict[str, tuple[float, int]] = {}
    for path, module in model.named_modules():
        if isinstance(module, FrozenFakeQuant):
            producer, _, role = path.rpartition(".")
            if role != "weight_fake_quant":
                shift = 128 if (module.qmin, module.qmax) == (0, 255) else 0
                scales[producer] = (module.scalar_scale, module.scalar_zero_point - shift)
        elif hasattr(module, "zero_point") and hasattr(module, "scale"):  # converted modules carry int8-engine codes
            scales[path] = (float(module.scale), int(module.zero_point) - 128)
    return scales
