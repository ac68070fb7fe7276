"""Emitters of pools and means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.exact.ceil_mode import settled_pads
from bridge.from_torch.building import require
from bridge.from_torch.calls import Call, emits
from bridge.from_torch.layers import Sizes, numbers


def _window(
    op: str, x: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool, dilation: Sizes = 1
) -> dict[str, Any]:
    axes = len(x.shape) - 2
    attrs: dict[str, Any] = {
        "ceil_mode": int(ceil_mode), "dilations": numbers(dilation, axes), "kernel_shape": numbers(kernel_size, axes),
        "pads": numbers(padding, axes) * 2, "strides": numbers(kernel_size if stride in (None, [], ()) else stride, axes),
    }  # fmt: skip
    pads = settled_pads(op, attrs, tuple(x.shape[2:])) if ceil_mode else None
    return attrs if pads is None else {**attrs, "ceil_mode": 0, "pads": pads}


def _batched(x: Any, axes: int) -> None:
    require(len(x.shape) == axes + 2, "a pool without a batch axis")


def max_pool(axes: int) -> Any:
    def emitted(
        call: Call, x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> None:  # fmt: skip
        require(not return_indices, "a pool that gives its indices")
        _batched(x, axes)
        call.gives("MaxPool", x, **_window("MaxPool", x, kernel_size, stride, padding, ceil_mode, dilation))

    return emitted


def average_pool(axes: int) -> Any:
    def emitted(
        call: Call, x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        require(not divisor_override, "an average with a divisor of its own")
        _batched(x, axes)
        attrs = _window("AveragePool", x, kernel_size, stride, padding, ceil_mode)
        del attrs["dilations"]
        call.gives("AveragePool", x, count_include_pad=int(count_include_pad), **attrs)

    return emitted


def adaptive_average_pool(axes: int) -> Any:
    def emitted(call: Call, x: Any, output_size: Any) -> None:
        _batched(x, axes)
        before, after = tuple(x.shape[2:]), tuple(call.result.shape[2:])
        if set(after) == {1}:
            call.gives("GlobalAveragePool", x)
            return
        require(all(a % b == 0 for a, b in zip(before, after, strict=True)), "an adaptive pool with uneven windows")
        size = [a // b for a, b in zip(before, after, strict=True)]
        call.gives("AveragePool", x, kernel_shape=size, strides=size, pads=[0] * 2 * axes)

    return emitted


emits(F.max_pool1d, torch.max_pool1d)(max_pool(1))
emits(F.max_pool2d, torch.max_pool2d, torch.quantized_max_pool2d)(max_pool(2))
emits(F.avg_pool1d, torch.avg_pool1d)(average_pool(1))
emits(F.avg_pool2d)(average_pool(2))
emits(F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d)(adaptive_average_pool(1))
emits(F.adaptive_avg_pool2d)(adaptive_average_pool(2))


@emits(torch.mean, "mean")
def mean(
    call: Call, x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> None:
    require(dtype in (None, torch.float32), "a mean in another type")
    rank = len(x.shape)
    axes = range(rank) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    call.gives("ReduceMean", x, axes=[each % rank for each in axes], keepdims=int(keepdim))
