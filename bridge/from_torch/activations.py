"""Emitters of activation functions, and of what hands its input on at inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.from_torch.building import array, require
from bridge.from_torch.calls import Call, emits


@emits(F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
def relu(call: Call, x: Any, inplace: bool = False) -> None:
    call.gives("Relu", x)


@emits(F.relu6)
def relu6(call: Call, x: Any, inplace: bool = False) -> None:
    call.gives("Clip", x, 0.0, 6.0)


@emits(F.hardtanh, F.hardtanh_)
def hard_tanh(call: Call, x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
    call.gives("Clip", x, float(min_val), float(max_val))


@emits(torch.clamp, torch.clip, torch.clamp_, "clamp", "clamp_", "clip", "clip_")
def clamp(call: Call, x: Any, min: Any = None, max: Any = None) -> None:
    require(not isinstance(min, torch.Tensor) and not isinstance(max, torch.Tensor), "limits that are tensors")
    call.gives("Clip", x, min, max)


@emits(torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_")
def clamp_min(call: Call, x: Any, min: Any) -> None:
    clamp(call, x, min)


@emits(torch.clamp_max, torch.clamp_max_, "clamp_max", "clamp_max_")
def clamp_max(call: Call, x: Any, max: Any) -> None:
    clamp(call, x, None, max)


@emits(F.leaky_relu, F.leaky_relu_)
def leaky_relu(call: Call, x: Any, negative_slope: float = 0.01, inplace: bool = False) -> None:
    call.gives("LeakyRelu", x, alpha=float(negative_slope))


@emits(F.prelu, torch.prelu, "prelu")
def prelu(call: Call, x: Any, weight: Any) -> None:
    behind = [1] * max(len(x.shape) - 2, 0)
    if call.builder.is_computed(weight):  # fake-quantized
        slope = call.step("Reshape", [weight, call.integers([-1, *behind])], [weight.numel(), *behind])
    else:
        slope = call.builder.constant(array(weight).reshape(-1, *behind), f"{call.where}/slope")
    call.gives("PRelu", x, slope)


@emits(F.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_")
def sigmoid(call: Call, x: Any) -> None:
    call.gives("Sigmoid", x)


@emits(F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_")
def tanh(call: Call, x: Any) -> None:
    call.gives("Tanh", x)


@emits(F.hardswish)
def hard_swish(call: Call, x: Any, inplace: bool = False) -> None:
    call.gives("HardSwish", x)


@emits(F.hardsigmoid)
def hard_sigmoid(call: Call, x: Any, inplace: bool = False) -> None:
    call.gives("HardSigmoid", x, alpha=1 / 6)


@emits(F.silu)
def silu(call: Call, x: Any, inplace: bool = False) -> None:
    call.gives("Mul", x, call.step("Sigmoid", [x], x.shape))


@emits(F.softmax, torch.softmax, "softmax")
def softmax(call: Call, x: Any, dim: int | None = None, *_: Any, dtype: Any = None, **__: Any) -> None:
    require(dim is not None and dtype in (None, torch.float32), "a softmax without its axis, or in another type")
    call.gives("Softmax", x, axis=int(dim or 0))


@emits(
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout, torch.dropout_
)  # fmt: skip
def dropout(call: Call, x: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> None:
    require(not training, "a dropout that drops")
    call.hands_on(x)


@emits(
    nn.Identity, torch.clone, torch.detach, torch.dequantize, torch.alias_copy, "clone", "contiguous", "detach",
    "dequantize", "float", "cpu",
)  # fmt: skip
def hand_on(call: Call, x: Any, *_: Any, **__: Any) -> None:
    require(call.result.dtype == torch.float32 or call.result.is_quantized, f"numbers of type {call.result.dtype}")
    call.hands_on(x)


@emits("to", "type", "type_as")
def to(call: Call, x: Any, *_: Any, **__: Any) -> None:
    require(call.result.dtype == x.dtype, f"numbers of type {call.result.dtype}")
    call.hands_on(x)
