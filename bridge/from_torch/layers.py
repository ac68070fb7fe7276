"""Emitters of convolutions, dense layers, products of matrices and batch norms."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.from_torch.building import Unknown, array, require
from bridge.from_torch.calls import Call, emits, emits_module

Sizes = int | Sequence[int]


def numbers(given: Sizes, axes: int) -> list[int]:
    """One number for each axis."""
    listed = [int(given)] * axes if isinstance(given, int) else [int(each) for each in given]
    return listed * axes if len(listed) == 1 else listed


def window(x: Any, weight: Any, stride: Sizes, dilation: Sizes, pads: Sequence[int], groups: int) -> dict[str, Any]:
    """The attributes that Conv and ConvTranspose share."""
    axes = len(x.shape) - 2
    return {
        "dilations": numbers(dilation, axes), "group": groups, "kernel_shape": [int(size) for size in weight.shape[2:]],
        "pads": list(pads), "strides": numbers(stride, axes),
    }  # fmt: skip


@emits(F.conv1d, F.conv2d, torch.conv1d, torch.conv2d)
def convolution(
    call: Call, x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | str = 0, dilation: Sizes = 1,
    groups: int = 1,
) -> None:  # fmt: skip
    axes = len(weight.shape) - 2
    require(len(x.shape) == axes + 2, "a convolution without a batch axis")
    call.gives(
        "Conv", x, weight, bias, **window(x, weight, stride, dilation, padded(padding, weight, dilation), groups)
    )


def padded(padding: Sizes | str, weight: Any, dilation: Sizes) -> list[int]:
    """Begins, then ends; 'same' puts the odd element behind (torch.nn.Conv2d)."""
    axes = len(weight.shape) - 2
    if padding == "same":
        reach = [wide * (size - 1) for wide, size in zip(numbers(dilation, axes), weight.shape[2:], strict=True)]
        return [each // 2 for each in reach] + [each - each // 2 for each in reach]
    return numbers(0 if isinstance(padding, str) else padding, axes) * 2


@emits(F.conv_transpose1d, F.conv_transpose2d, torch.conv_transpose1d, torch.conv_transpose2d)
def transposed_convolution(
    call: Call, x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> None:  # fmt: skip
    axes = len(weight.shape) - 2
    require(len(x.shape) == axes + 2, "a transposed convolution without a batch axis")
    attrs = window(x, weight, stride, dilation, numbers(padding, axes) * 2, groups)
    more = numbers(output_padding, axes)
    call.gives("ConvTranspose", x, weight, bias, **attrs, **({"output_padding": more} if any(more) else {}))


@emits(F.linear)
def dense(call: Call, x: Any, weight: Any, bias: Any = None) -> None:
    if len(x.shape) == 2:
        call.gives("Gemm", x, weight, bias, transB=1)
        return
    turned = call.step("Transpose", [weight], tuple(weight.shape)[::-1], perm=[1, 0])
    if bias is None:
        call.gives("MatMul", x, turned)
        return
    call.gives("Add", call.step("MatMul", [x, turned], call.result.shape), bias)


@emits(torch.matmul, operator.matmul, torch.bmm, "matmul", "bmm", "__matmul__")
def product(call: Call, x: Any, y: Any) -> None:
    call.gives("MatMul", x, y)


@emits(torch.addmm, "addmm")
def sum_and_product(call: Call, c: Any, x: Any, weight: Any, *, beta: float = 1.0, alpha: float = 1.0) -> None:
    call.gives("Gemm", x, weight, c, alpha=float(alpha), beta=float(beta))


@emits(F.batch_norm)
def batch_norm(
    call: Call, x: Any, mean: Any, variance: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> None:  # fmt: skip
    if training or mean is None:
        raise Unknown("a batch norm of the data it sees")
    channels = mean.numel()
    factor = np.ones(channels, np.float32) if weight is None else array(weight)
    offset = np.zeros(channels, np.float32) if bias is None else array(bias)
    names = [call.builder.constant(each, f"{call.where}/constant") for each in (factor, offset)]
    call.gives("BatchNormalization", x, *names, mean, variance, epsilon=float(eps))


@emits_module(nn.BatchNorm1d, nn.BatchNorm2d)
def batch_norm_module(call: Call, module: Any, x: Any) -> None:
    require(not module.training and module.track_running_stats, "a batch norm of the data it sees")
    mean, variance = module.running_mean, module.running_var
    batch_norm(call, x, mean, variance, module.weight, module.bias, eps=module.eps)
