"""Emitters of aten operators, as torch.export and PT2E write them: the ones of functions, and what differs.

By the operator's name, "aten::conv2d", whichever overload: arguments come in the order of native_functions.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bridge.from_torch import activations, arithmetic, layers, pools, shapes
from bridge.from_torch.building import Unknown, array, require
from bridge.from_torch.calls import PLAIN, Call, emits
from bridge.from_torch.layers import Sizes
from bridge.from_torch.rounding import rounded

_AS_FUNCTIONS = {
    "conv1d conv2d": layers.convolution,
    "conv_transpose1d conv_transpose2d": layers.transposed_convolution,
    "linear": layers.dense,
    "matmul bmm mm": layers.product,
    "addmm": layers.sum_and_product,
    "relu relu_": activations.relu,
    "relu6 relu6_": activations.relu6,
    "hardtanh hardtanh_": activations.hard_tanh,
    "clamp clamp_ clip clip_": activations.clamp,
    "clamp_min clamp_min_": activations.clamp_min,
    "clamp_max clamp_max_": activations.clamp_max,
    "leaky_relu leaky_relu_": activations.leaky_relu,
    "prelu _prelu_kernel": activations.prelu,
    "sigmoid sigmoid_": activations.sigmoid,
    "tanh tanh_": activations.tanh,
    "hardswish hardswish_": activations.hard_swish,
    "hardsigmoid hardsigmoid_": activations.hard_sigmoid,
    "silu silu_": activations.silu,
    "softmax _softmax": activations.softmax,
    "dropout dropout_ feature_dropout feature_dropout_ alpha_dropout": activations.dropout,
    "clone detach detach_ alias contiguous lift_fresh_copy alias_copy": activations.hand_on,
    "to _to_copy type_as": activations.to,
    "max_pool1d": pools.max_pool(1),
    "max_pool2d": pools.max_pool(2),
    "avg_pool1d": pools.average_pool(1),
    "avg_pool2d": pools.average_pool(2),
    "adaptive_avg_pool1d": pools.adaptive_average_pool(1),
    "adaptive_avg_pool2d _adaptive_avg_pool2d": pools.adaptive_average_pool(2),
    "mean": pools.mean,
    "view reshape _unsafe_view view_as reshape_as unflatten view_copy": shapes.reshape,
    "flatten": shapes.flatten,
    "squeeze squeeze_copy": shapes.squeeze,
    "unsqueeze unsqueeze_copy": shapes.unsqueeze,
    "permute permute_copy": shapes.permute,
    "transpose transpose_copy swapaxes": shapes.transpose,
    "t t_copy numpy_T": shapes.matrix_transpose,
    "cat concat": shapes.join,
    "stack": shapes.stack,
    "chunk split split_with_sizes tensor_split split_copy split_with_sizes_copy": shapes.parts,
    "unbind": shapes.unbind,
    "select select_copy": shapes.select,
    "narrow": shapes.narrow,
    "pad constant_pad_nd": shapes.pad,
    "expand expand_as expand_copy broadcast_to": shapes.expand,
    "add add_": arithmetic.add,
    "sub sub_ subtract": arithmetic.subtract,
    "rsub": arithmetic.subtract_from,
    "mul mul_ multiply": arithmetic.multiply,
    "div div_ true_divide divide": arithmetic.divide,
    "maximum": arithmetic.maximum,
    "minimum": arithmetic.minimum,
}

for _names, _emitter in _AS_FUNCTIONS.items():
    emits(*(f"aten::{name}" for name in _names.split()))(_emitter)

PLAIN |= {"aten::sym_size", "aten::sym_numel", "aten::sym_stride", "aten::size", "aten::_assert_tensor_metadata"}


@emits("aten::convolution", "aten::_convolution")
def convolution(
    call: Call, x: Any, weight: Any, bias: Any, stride: Sizes, padding: Sizes, dilation: Sizes, transposed: bool,
    output_padding: Sizes, groups: int, *_: Any,
) -> None:  # fmt: skip
    if transposed:
        layers.transposed_convolution(call, x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        layers.convolution(call, x, weight, bias, stride, padding, dilation, groups)


@emits("aten::max_pool2d_with_indices")
def max_pool_of_two(call: Call, x: Any, *window: Any, **named: Any) -> None:
    pools.max_pool(2)(_first(call), x, *window, **named)


@emits("aten::batch_norm", torch.batch_norm)
def batch_norm(
    call: Call, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float, *_: Any
) -> None:  # fmt: skip
    layers.batch_norm(call, x, mean, variance, weight, bias, training, momentum, eps)


@emits("aten::_native_batch_norm_legit_no_training")
def batch_norm_of_three(
    call: Call, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> None:  # fmt: skip
    layers.batch_norm(_first(call), x, mean, variance, weight, bias, False, momentum, eps)


def _first(call: Call) -> Call:
    """Of several results the one that is read at inference."""
    return Call(call.builder, call.where, call.names, call.result[0])


@emits("aten::slice", "aten::slice_copy")
def cut(call: Call, x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> None:
    shapes.item(call, x, (slice(None),) * (dim % len(x.shape)) + (slice(start, end, step),))


@emits("aten::upsample_nearest2d", "aten::upsample_nearest1d")
def upsample_nearest(call: Call, x: Any, size: Any, *factors: Any) -> None:
    _require_whole(call, x, factors)
    shapes.resize(call, x, "nearest", False)


@emits("aten::upsample_bilinear2d", "aten::upsample_linear1d")
def upsample_linear(call: Call, x: Any, size: Any, align_corners: bool, *factors: Any) -> None:
    _require_whole(call, x, factors)
    shapes.resize(call, x, "linear", align_corners)


def _require_whole(call: Call, x: Any, factors: Sequence[Any]) -> None:
    given = [
        each for factor in factors if factor is not None for each in (factor if isinstance(factor, list) else [factor])
    ]
    sizes = zip(x.shape[2:], given, call.result.shape[2:], strict=False)
    require(all(a * factor == b for a, factor, b in sizes), "resizing by a factor that gives no whole number")


@emits("aten::fake_quantize_per_tensor_affine")
def fake_quantize(call: Call, x: Any, scale: Any, zero_point: Any, qmin: int, qmax: int) -> None:
    name = rounded(call, x, float(scale), int(zero_point), qmin, qmax, x.shape)
    call.builder.stands_for(call.result, name)


@emits("aten::fake_quantize_per_channel_affine")
def fake_quantize_channels(
    call: Call, x: Any, scale: Any, zero_point: Any, axis: int, qmin: int, qmax: int
) -> None:  # fmt: skip
    name = rounded(call, x, array(scale), array(zero_point), qmin, qmax, x.shape, axis)
    call.builder.stands_for(call.result, name)


@emits("aten::reflection_pad1d", "aten::reflection_pad2d")
def reflection_pad(call: Call, x: Any, pad: Sequence[int]) -> None:
    shapes.pad(call, x, pad, "reflect")


@emits("aten::replication_pad1d", "aten::replication_pad2d")
def replication_pad(call: Call, x: Any, pad: Sequence[int]) -> None:
    shapes.pad(call, x, pad, "replicate")


def _refused(what: str) -> Any:
    def emitted(call: Call, *_: Any, **__: Any) -> None:
        raise Unknown(what)

    return emitted


emits("aten::native_dropout")(_refused("a dropout that drops"))
emits("aten::_native_batch_norm_legit", "aten::native_batch_norm")(_refused("a batch norm of the data it sees"))
