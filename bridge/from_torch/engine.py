"""Emitters of models that `convert` made: quantize, modules and operators of PyTorch's int8 engine, reference modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.ao.nn import quantized as nnq
from torch.ao.nn.intrinsic import quantized as nniq
from torch.ao.nn.quantized import reference as nnqr

from bridge.from_torch.activations import hard_swish, leaky_relu, relu6, sigmoid, softmax
from bridge.from_torch.building import array, require
from bridge.from_torch.calls import Call, emits, emits_module
from bridge.from_torch.rounding import parameters, real_weight
from bridge.from_torch.weighted import weighted


@emits(torch.quantize_per_tensor)
def quantize_per_tensor(call: Call, x: Any, *_: Any, **__: Any) -> None:
    call.is_now(call.result, call.name(x))


@emits(torch.quantize_per_channel)
def quantize_per_channel(call: Call, x: Any, *_: Any, **__: Any) -> None:
    require(not call.builder.is_computed(x), "an activation with a scale for each channel")
    call.builder.stands_for(call.result, real_weight(call, call.result))


@emits_module(nnq.Quantize)
def quantize_module(call: Call, module: Any, x: Any) -> None:
    call.is_now(call.result, call.name(x))


@emits_module(nnq.DeQuantize, nnq.Dropout, torch.nn.Identity)
def hands_on(call: Call, module: Any, x: Any) -> None:
    call.hands_on(x)


_RELUS = (nniq.ConvReLU1d, nniq.ConvReLU2d, nniq.LinearReLU)


@emits_module(nnq.Conv1d, nnq.Conv2d, nnq.Linear, nnq.ConvTranspose1d, nnq.ConvTranspose2d, *_RELUS)
def engine_layer(call: Call, module: Any, x: Any) -> None:
    _engine_layer(call, module, x, module.weight(), module.bias(), relu=isinstance(module, _RELUS))


def _engine_layer(call: Call, layer: Any, x: Any, weight: Any, bias: Any, *, relu: bool) -> None:
    """With its bias in int32, as the engine and torch's exporter make it: divided in float32, rounded half to even."""
    operand = bias
    if bias is not None:
        per_channel = weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        scales = array(weight.q_per_channel_scales()) if per_channel else np.float32(weight.q_scale())
        scale = np.asarray(scales * np.float32(x.q_scale()), np.float32)
        codes = np.rint(array(bias) / scale)
        if np.isfinite(codes).all() and (np.abs(codes) < 2.0**31).all():
            names = parameters(call, scale, np.zeros(scale.shape), np.int32)
            stored = call.builder.constant(codes.astype(np.int32), f"{call.where}/bias")
            operand = call.step(
                "DequantizeLinear", [stored, *names], bias.shape, **({"axis": 0} if per_channel else {})
            )
    weighted(call, layer, x, real_weight(call, weight), operand, relu=relu)


@emits_module(nnqr.Conv1d, nnqr.Conv2d, nnqr.Linear, nnqr.ConvTranspose1d, nnqr.ConvTranspose2d)
def reference_layer(call: Call, module: Any, x: Any, *_: Any) -> None:
    weight = module.get_quantized_weight()
    require(weight.is_quantized, "weights that are not quantized")
    weighted(call, module, x, real_weight(call, weight), module.bias, relu=False)


@emits_module(nnq.BatchNorm2d, nniq.BNReLU2d)
def engine_batch_norm(call: Call, module: Any, x: Any) -> None:
    _engine_norm(call, x, module.weight, module.bias, module.running_mean, module.running_var, module.eps,
                 relu=isinstance(module, nniq.BNReLU2d))  # fmt: skip


def _engine_norm(
    call: Call, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float, *, relu: bool = False
) -> None:
    name = call.step("BatchNormalization", [x, weight, bias, mean, variance], x.shape, epsilon=float(eps))
    call.is_now(call.result, call.step("Relu", [name], x.shape) if relu else name)


_ACTIVATIONS = {
    nnq.ReLU6: lambda call, _, x: relu6(call, x),
    nnq.Hardswish: lambda call, _, x: hard_swish(call, x),
    nnq.Sigmoid: lambda call, _, x: sigmoid(call, x),
    nnq.LeakyReLU: lambda call, module, x: leaky_relu(call, x, module.negative_slope),
    nnq.Softmax: lambda call, module, x: softmax(call, x, module.dim),
}
for _kind, _emitter in _ACTIVATIONS.items():
    emits_module(_kind)(_emitter)


@emits_module(nnq.PReLU)
def engine_prelu(call: Call, module: Any, x: Any) -> None:
    _engine_prelu(call, x, module.weight)


def _engine_prelu(call: Call, x: Any, weight: Any) -> None:
    slope = call.step(
        "Reshape", [real_weight(call, weight), call.integers([-1, *[1] * (len(x.shape) - 2)])],
        [weight.numel(), *[1] * (len(x.shape) - 2)],
    )  # fmt: skip
    call.gives("PRelu", x, slope)


_ENGINE = torch.ops.quantized


def _binary(op: str, *, relu: bool = False) -> Any:
    def emitted(call: Call, x: Any, y: Any, *_: Any, **__: Any) -> None:
        name = call.step(op, [x, y], call.result.shape)
        call.is_now(call.result, call.step("Relu", [name], call.result.shape) if relu else name)

    return emitted


for _name, _op in (("add", "Add"), ("mul", "Mul"), ("add_scalar", "Add"), ("mul_scalar", "Mul")):
    emits(getattr(_ENGINE, _name))(_binary(_op))
    emits(getattr(_ENGINE, f"{_name}_relu"))(_binary(_op, relu=True))
emits(_ENGINE.matmul)(_binary("MatMul"))


@emits(_ENGINE.cat)
def engine_join(call: Call, tensors: Any, dim: int, *_: Any, **__: Any) -> None:
    call.gives("Concat", *tensors, axis=dim % len(call.result.shape))


@emits(_ENGINE.batch_norm2d, _ENGINE.batch_norm1d, _ENGINE.batch_norm)
def engine_batch_norm_function(
    call: Call, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float, *_: Any
) -> None:
    _engine_norm(call, x, weight, bias, mean, variance, eps)


emits(_ENGINE.relu6)(lambda call, x, *_: relu6(call, x))
emits(_ENGINE.hardswish)(lambda call, x, *_: hard_swish(call, x))
emits(_ENGINE.sigmoid)(lambda call, x, *_: sigmoid(call, x))
emits(_ENGINE.leaky_relu)(lambda call, x, slope, *_: leaky_relu(call, x, slope))
emits(_ENGINE.softmax)(lambda call, x, dim, *_: softmax(call, x, dim))


@emits(_ENGINE.prelu)
def engine_prelu_function(call: Call, x: Any, weight: Any, *_: Any) -> None:
    _engine_prelu(call, x, weight)


@dataclass(frozen=True)
class _Packed:
    """A packed convolution in the words of torch.nn."""

    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    transposed: bool
    output_padding: Any
    padding_mode: str = "zeros"


class _PackedDense:
    """A packed dense layer has nothing but weight and bias."""


def _packed_convolution(*, relu: bool = False, transposed: bool = False) -> Any:
    def emitted(call: Call, x: Any, packed: Any, *_: Any) -> None:
        weight, bias = packed.unpack()
        axes = len(x.shape) - 2
        weight = weight.squeeze(2) if axes == 1 and len(weight.shape) == 4 else weight
        stride, padding, dilation, more = (
            list(each)[-axes:]
            for each in (packed.stride(), packed.padding(), packed.dilation(), packed.output_padding())
        )
        layer = _Packed(weight.shape[2:], stride, padding, dilation, packed.groups(), transposed, more)
        _engine_layer(call, layer, x, weight, bias, relu=relu)

    return emitted


def _packed_dense(*, relu: bool = False) -> Any:
    def emitted(call: Call, x: Any, packed: Any, *_: Any) -> None:
        weight, bias = packed.unpack()
        _engine_layer(call, _PackedDense(), x, weight, bias, relu=relu)

    return emitted


for _axes in (1, 2):
    emits(getattr(_ENGINE, f"conv{_axes}d"))(_packed_convolution())
    emits(getattr(_ENGINE, f"conv{_axes}d_relu"))(_packed_convolution(relu=True))
    emits(getattr(_ENGINE, f"conv_transpose{_axes}d"))(_packed_convolution(transposed=True))
emits(_ENGINE.linear)(_packed_dense())
emits(_ENGINE.linear_relu)(_packed_dense(relu=True))
