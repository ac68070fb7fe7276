"""Emitters of what training or PyTorch's int8 engine rounds: fake-quant, quantize, quantized modules and operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.ao.nn import quantized as nnq
from torch.ao.nn.intrinsic import quantized as nniq
from torch.ao.nn.quantized import reference as nnqr

from bridge.exact.graph import Node
from bridge.exact.remarks import made_symmetric
from bridge.from_torch.activations import hard_swish, leaky_relu, relu6, sigmoid, softmax
from bridge.from_torch.building import Unknown, array
from bridge.from_torch.calls import Call, emits, emits_module, require
from bridge.from_torch.layers import numbers, padded, window
from torch_side.export import FrozenFakeQuant, FrozenLayer

_CODES = {torch.quint8: np.uint8, torch.qint8: np.int8, torch.qint32: np.int32}


def parameters(call: Call, scale: Any, zero_point: Any, dtype: Any) -> tuple[str, str]:
    """Constants of a QuantizeLinear: scale float32, zero point in the type of the codes."""
    constants = np.array(scale, np.float32), np.array(zero_point).astype(dtype)
    return (
        call.builder.constant(constants[0], f"{call.where}/scale"),
        call.builder.constant(constants[1], f"{call.where}/zero_point"),
    )


def rounded(
    call: Call, x: Any, scale: Any, zero_point: Any, qmin: int, qmax: int, shape: Any, axis: int | None = None
) -> str:
    """QuantizeLinear, a Clip where the range is narrower than its type, DequantizeLinear: the name of the real numbers."""
    dtype = np.dtype(np.uint8 if qmin >= 0 else np.int8)
    limits = np.iinfo(dtype)
    if qmin < limits.min or qmax > limits.max:
        raise Unknown(f"a range of codes {qmin}..{qmax}, more than 8 bits")
    attrs = {} if axis is None else {"axis": axis}
    names = parameters(call, scale, zero_point, dtype)
    codes = call.step("QuantizeLinear", [x, *names], shape, **attrs)
    if (qmin, qmax) != (limits.min, limits.max):
        ends = [call.builder.constant(np.array(end, dtype), f"{call.where}/limit") for end in (qmin, qmax)]
        codes = call.step("Clip", [codes, *ends], shape)
    return call.step("DequantizeLinear", [codes, *names], shape, **attrs)


def rounded_to_own_scale(call: Call, name: str, tensor: Any) -> str:
    """Behind what gives a quantized tensor: the rounding that it has in PyTorch."""
    require(tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric), "a scale for each channel")
    require(tensor.dtype in (torch.quint8, torch.qint8), f"codes of type {tensor.dtype}")
    limits = np.iinfo(_CODES[tensor.dtype])
    return rounded(call, name, tensor.q_scale(), tensor.q_zero_point(), limits.min, limits.max, tensor.shape)


def real_weight(call: Call, weight: Any) -> str:
    """A quantized constant as codes and a DequantizeLinear."""
    codes = call.builder.constant(array(weight.int_repr()), f"{call.where}/weight")
    if weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        scale, zero_point = array(weight.q_per_channel_scales()), array(weight.q_per_channel_zero_points())
        attrs = {"axis": int(weight.q_per_channel_axis())}
    else:
        require(weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric), "weights of another scheme")
        scale, zero_point, attrs = np.float32(weight.q_scale()), np.int64(weight.q_zero_point()), {}
    names = parameters(call, scale, zero_point, _CODES[weight.dtype])
    return call.step("DequantizeLinear", [codes, *names], weight.shape, **attrs)


# Fake-quant --------------------------------------------------------------------------------------------------------


@emits_module(FrozenFakeQuant)
def frozen_fake_quant(call: Call, module: Any, x: Any) -> None:
    call.builder.stands_for(call.result, _fake_quantized(call, module, x, x.shape))


def _fake_quantized(call: Call, module: Any, x: Any, shape: Any) -> str:
    scale, zero_point = array(module.scale), array(module.zero_point)
    if module.axis is None:
        scale, zero_point = np.float32(module.scalar_scale), np.int64(module.scalar_zero_point)
    return rounded(call, x, scale, zero_point, module.qmin, module.qmax, shape, module.axis)


@emits_module(FrozenLayer)
def frozen_layer(call: Call, module: Any, x: Any) -> None:
    layer, fake_quant = module.layer, module.weight_fake_quant
    weight = _fake_quantized(call, fake_quant, layer.weight, layer.weight.shape)
    node = weighted(call, layer, x, weight, layer.bias, relu=module.relu)
    if fake_quant.one_signed:
        call.builder.note(made_symmetric(node, fake_quant.one_signed, fake_quant.channels, fake_quant.moved))


def weighted(call: Call, layer: Any, x: Any, weight: str, bias: Any, *, relu: bool) -> Node:
    """The operators of a convolution or dense layer, and of its ReLU; returned is the one with the weight.

    `layer` has the attributes of torch.nn's; `weight` is the name of its real numbers.
    """
    shape = call.result.shape
    if hasattr(layer, "kernel_size"):
        node = call.operator(*_convolution(call, layer, x, weight, bias))
        name = node.outputs[0]
    elif len(x.shape) == 2:
        node = call.operator("Gemm", [x, weight, bias], [shape], {"transB": 1})
        name = node.outputs[0]
    else:
        turned = call.step("Transpose", [weight], call.builder.shape(weight)[::-1], perm=[1, 0])
        node = call.operator("MatMul", [x, turned], [shape], {})
        name = node.outputs[0] if bias is None else call.step("Add", [node.outputs[0], bias], shape)
    call.is_now(call.result, call.step("Relu", [name], shape) if relu else name)
    return node


def _convolution(call: Call, layer: Any, x: Any, weight: str, bias: Any) -> tuple[Any, ...]:
    axes = len(layer.kernel_size)
    require(len(x.shape) == axes + 2, "a convolution without a batch axis")
    shaped = _Shape(call.builder.shape(weight))
    pads = padded(layer.padding, shaped, layer.dilation)
    attrs = window(x, shaped, layer.stride, layer.dilation, pads, layer.groups)
    if getattr(layer, "transposed", False):
        more = numbers(layer.output_padding, axes)
        attrs |= {"output_padding": more} if any(more) else {}
        return "ConvTranspose", [x, weight, bias], [call.result.shape], attrs
    mode = {"zeros": "", "reflect": "reflect", "replicate": "edge"}.get(layer.padding_mode)
    require(mode is not None, f"padding in mode '{layer.padding_mode}'")
    source: Any = x
    if mode and any(pads):
        begins, ends = pads[:axes], pads[axes:]
        wider = [*x.shape[:2], *(sum(each) for each in zip(x.shape[2:], begins, ends, strict=True))]
        source = call.step("Pad", [x, call.integers([0, 0, *begins, 0, 0, *ends])], wider, mode=mode)
        attrs["pads"] = [0] * 2 * axes
    return "Conv", [source, weight, bias], [call.result.shape], attrs


@dataclass(frozen=True)
class _Shape:
    """What is asked of a weight."""

    shape: tuple[int, ...]


# PyTorch's int8 engine ---------------------------------------------------------------------------------------------


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
            operand = call.step("DequantizeLinear", [stored, *names], bias.shape, **({"axis": 0} if per_channel else {}))
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


@emits_module(nnq.ReLU6)
def engine_relu6(call: Call, module: Any, x: Any) -> None:
    relu6(call, x)


@emits_module(nnq.Hardswish)
def engine_hard_swish(call: Call, module: Any, x: Any) -> None:
    hard_swish(call, x)


@emits_module(nnq.LeakyReLU)
def engine_leaky_relu(call: Call, module: Any, x: Any) -> None:
    leaky_relu(call, x, module.negative_slope)


@emits_module(nnq.Sigmoid)
def engine_sigmoid(call: Call, module: Any, x: Any) -> None:
    sigmoid(call, x)


@emits_module(nnq.Softmax)
def engine_softmax(call: Call, module: Any, x: Any) -> None:
    softmax(call, x, module.dim)


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


@emits(_ENGINE.relu6)
def engine_relu6_function(call: Call, x: Any, inplace: bool = False) -> None:
    relu6(call, x)


@emits(_ENGINE.hardswish)
def engine_hard_swish_function(call: Call, x: Any, *_: Any) -> None:
    hard_swish(call, x)


@emits(_ENGINE.leaky_relu)
def engine_leaky_relu_function(call: Call, x: Any, slope: float, *_: Any) -> None:
    leaky_relu(call, x, slope)


@emits(_ENGINE.sigmoid)
def engine_sigmoid_function(call: Call, x: Any, *_: Any) -> None:
    sigmoid(call, x)


@emits(_ENGINE.softmax)
def engine_softmax_function(call: Call, x: Any, dim: int, *_: Any) -> None:
    softmax(call, x, dim)


@emits(_ENGINE.prelu)
def engine_prelu_function(call: Call, x: Any, weight: Any, *_: Any) -> None:
    _engine_prelu(call, x, weight)


@dataclass(frozen=True)
class _Packed:
    """A packed convolution or dense layer in the words of torch.nn."""

    stride: Any = ()
    padding: Any = ()
    dilation: Any = ()
    groups: int = 1
    transposed: bool = False
    output_padding: Any = ()
    padding_mode: str = "zeros"


@dataclass(frozen=True)
class _PackedConvolution(_Packed):
    kernel_size: Any = ()


def _packed_convolution(*, relu: bool = False, transposed: bool = False) -> Any:
    def emitted(call: Call, x: Any, packed: Any, *_: Any) -> None:
        weight, bias = packed.unpack()
        axes = len(x.shape) - 2
        weight = weight.squeeze(2) if axes == 1 and len(weight.shape) == 4 else weight
        last = [list(each)[-axes:] for each in (packed.stride(), packed.padding(), packed.dilation())]
        layer = _PackedConvolution(
            *last, packed.groups(), transposed, list(packed.output_padding())[-axes:], kernel_size=weight.shape[2:]
        )
        _engine_layer(call, layer, x, weight, bias, relu=relu)

    return emitted


def _packed_dense(*, relu: bool = False) -> Any:
    def emitted(call: Call, x: Any, packed: Any, *_: Any) -> None:
        weight, bias = packed.unpack()
        _engine_layer(call, _Packed(), x, weight, bias, relu=relu)

    return emitted


for _axes in (1, 2):
    emits(getattr(_ENGINE, f"conv{_axes}d"))(_packed_convolution())
    emits(getattr(_ENGINE, f"conv{_axes}d_relu"))(_packed_convolution(relu=True))
    emits(getattr(_ENGINE, f"conv_transpose{_axes}d"))(_packed_convolution(transposed=True))
emits(_ENGINE.linear)(_packed_dense())
emits(_ENGINE.linear_relu)(_packed_dense(relu=True))
