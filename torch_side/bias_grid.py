"""Biases on the int32 grid: what every integer kernel makes of them, made before anybody validates the model.

An int8 kernel adds its bias in int32, at input scale * weight scale. The fake-quant model and the fbgemm, x86 and onednn
engines add a float bias, which is worth a few outputs in a thousand by 1 LSB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from torch_side.export import FrozenFakeQuant, FrozenLayer


class _Scaled(torch.Tensor):
    """A tensor that remembers the scale it was last quantized with, through everything that follows."""

    scale: float | None = None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        scale = next((one.scale for one in _flat(args) if isinstance(one, _Scaled) and one.scale is not None), None)
        for made in _flat((result,)):
            if isinstance(made, _Scaled) and made.scale is None:
                made.scale = scale
        return result


def _flat(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (tuple, list)):
            yield from _flat(item)
        else:
            yield item


def round_frozen(frozen: nn.Module, examples: tuple[np.ndarray, ...]) -> None:
    """Round the biases of a frozen fake-quant model to the grid, in place; `examples` are its float32 inputs.

    The model runs once, to find out which scale reaches which layer. A bias moves by half a step at most, which is
    far less than one LSB of the layer's output.
    """
    hooks = []
    for path, module in frozen.named_modules():
        if isinstance(module, FrozenFakeQuant) and not path.endswith("weight_fake_quant"):
            hooks.append(module.register_forward_hook(_remember_scale))
        elif isinstance(module, FrozenLayer):
            hooks.append(module.register_forward_pre_hook(_round_layer))
    try:
        with torch.no_grad():
            frozen(*(torch.from_numpy(example).as_subclass(_Scaled) for example in examples))
    finally:
        for hook in hooks:
            hook.remove()


def _remember_scale(module: Any, inputs: Any, output: Any) -> Any:  # noqa: ARG001 - a hook's form
    output.scale = module.scalar_scale
    return output


def _round_layer(module: Any, inputs: Any) -> None:
    scale = inputs[0].scale if isinstance(inputs[0], _Scaled) else None
    if scale is not None and module.layer.bias is not None:
        module.layer.bias.data = _on_grid(module.layer.bias.detach(), scale, module.weight_fake_quant.scale)


def round_engine(converted: nn.Module, examples: tuple[np.ndarray, ...]) -> None:
    """The same for a model of PyTorch's int8 engine: fbgemm and x86 then compute what int32 kernels compute."""
    hooks = [
        module.register_forward_pre_hook(_round_engine_layer)
        for module in converted.modules()
        if hasattr(module, "set_weight_bias")
    ]
    try:
        with torch.no_grad():
            converted(*(torch.from_numpy(example) for example in examples))
    finally:
        for hook in hooks:
            hook.remove()


def _round_engine_layer(module: Any, inputs: Any) -> None:
    weight, bias = module._weight_bias()  # noqa: SLF001 - torch has no other way to ask
    if bias is None:
        return
    per_channel = weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
    scale = weight.q_per_channel_scales() if per_channel else torch.tensor(weight.q_scale())
    module.set_weight_bias(weight, _on_grid(bias.detach(), inputs[0].q_scale(), scale))


def _on_grid(bias: torch.Tensor, input_scale: float, weight_scale: torch.Tensor) -> torch.Tensor:
    """float32 (channels,), each a whole multiple of input scale * weight scale, rounded half to even."""
    step = (weight_scale.float() * torch.tensor(input_scale, dtype=torch.float32)).double()
    rounded: torch.Tensor = (torch.round(bias.double() / step) * step).float()
    return rounded
