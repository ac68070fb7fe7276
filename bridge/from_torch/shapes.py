"""Emitters of what moves numbers and computes none: reshapes, transposes, parts, joints, borders, resizing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.from_torch.building import Unknown, require
from bridge.from_torch.calls import PLAIN, Call, emits

PLAIN |= {
    getattr, "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "get_device",
    "q_scale", "q_zero_point", "qscheme", "__len__", len, torch.numel, torch.is_floating_point, torch.is_tensor, isinstance,
}  # fmt: skip


@emits(torch.reshape, "reshape", "view", "reshape_as", "view_as", "unflatten", torch.unflatten)
def reshape(call: Call, x: Any, *_: Any, **__: Any) -> None:
    require(call.result.dtype == x.dtype, "a view of the bits as another type")
    call.gives("Reshape", x, call.integers(call.result.shape))


@emits(torch.flatten, "flatten")
def flatten(call: Call, x: Any, start_dim: int = 0, end_dim: int = -1) -> None:
    if start_dim == 1 and end_dim in (-1, len(x.shape) - 1) and len(x.shape) > 1:
        call.gives("Flatten", x, axis=1)
    else:
        reshape(call, x)


@emits(torch.squeeze, "squeeze")
def squeeze(call: Call, x: Any, dim: Any = None) -> None:
    rank = len(x.shape)
    asked = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [each % rank for each in asked if x.shape[each] == 1]
    if axes:
        call.gives("Squeeze", x, call.integers(axes))
    else:
        call.hands_on(x)


@emits(torch.unsqueeze, "unsqueeze")
def unsqueeze(call: Call, x: Any, dim: int) -> None:
    call.gives("Unsqueeze", x, call.integers([dim % (len(x.shape) + 1)]))


@emits(torch.permute, "permute")
def permute(call: Call, x: Any, *dims: Any) -> None:
    given = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    call.gives("Transpose", x, perm=[each % len(x.shape) for each in given])


@emits(torch.transpose, torch.swapaxes, torch.swapdims, "transpose", "swapaxes", "swapdims")
def transpose(call: Call, x: Any, dim0: int, dim1: int) -> None:
    perm = list(range(len(x.shape)))
    perm[dim0], perm[dim1] = perm[dim1], perm[dim0]
    call.gives("Transpose", x, perm=perm)


@emits(torch.t, "t")
def matrix_transpose(call: Call, x: Any) -> None:
    call.gives("Transpose", x, perm=list(range(len(x.shape)))[::-1])


@emits(torch.movedim, torch.moveaxis, "movedim", "moveaxis")
def move_axis(call: Call, x: Any, source: int, destination: int) -> None:
    rank = len(x.shape)
    require(isinstance(source, int) and isinstance(destination, int), "several axes moved at once")
    perm = [axis for axis in range(rank) if axis != source % rank]
    perm.insert(destination % rank, source % rank)
    call.gives("Transpose", x, perm=perm)


@emits(getattr)
def attribute(call: Call, x: Any, name: str) -> None:
    if name in ("T", "mT"):
        require(len(x.shape) == 2, f"'{name}' of {len(x.shape)} axes")
        call.gives("Transpose", x, perm=[1, 0])
    elif name in ("data", "real"):
        call.hands_on(x)
    else:
        raise Unknown(f"attribute '{name}' of a tensor")


@emits(torch.cat, torch.concat, torch.concatenate)
def join(call: Call, tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> None:
    which = dim if axis is None else axis
    call.gives("Concat", *tensors, axis=which % len(call.result.shape))


@emits(torch.stack)
def stack(call: Call, tensors: Sequence[Any], dim: int = 0) -> None:
    axis = dim % len(call.result.shape)
    shape = list(call.result.shape)
    shape[axis] = 1
    call.gives("Concat", *(call.step("Unsqueeze", [x, call.integers([axis])], shape) for x in tensors), axis=axis)


@emits(
    torch.chunk, torch.split, torch.split_with_sizes, torch.tensor_split, "chunk", "split", "split_with_sizes", "tensor_split"
)  # fmt: skip
def parts(call: Call, x: Any, sizes: Any, dim: int = 0) -> None:
    axis = dim % len(x.shape)
    if len(call.result) == 1:
        call.builder.stands_for(call.result[0], call.name(x))
        return
    call.gives("Split", x, call.integers([part.shape[axis] for part in call.result]), axis=axis)


@emits(torch.unbind, "unbind")
def unbind(call: Call, x: Any, dim: int = 0) -> None:
    for place, part in enumerate(call.result):
        name = call.step("Gather", [x, _index(call, place)], part.shape, axis=dim % len(x.shape))
        call.is_now(part, name)


def _index(call: Call, place: int) -> str:
    return call.builder.constant(np.array(place, np.int64), f"{call.where}/index")


@emits(torch.select, "select")
def select(call: Call, x: Any, dim: int, index: int) -> None:
    call.gives("Gather", x, _index(call, index), axis=dim % len(x.shape))


@emits(torch.narrow, "narrow")
def narrow(call: Call, x: Any, dim: int, start: int, length: int) -> None:
    cut = (slice(None),) * (dim % len(x.shape)) + (slice(start, start + length),)
    item(call, x, cut)


@emits(operator.getitem, "__getitem__")
def item(call: Call, x: Any, index: Any) -> None:
    """Axis by axis: a slice is a Slice, a number a Gather, None an Unsqueeze."""
    given = list(index) if isinstance(index, tuple) else [index]
    require(
        all(each is None or each is Ellipsis or isinstance(each, (int, slice)) for each in given),
        "an index that is a tensor",
    )
    named = sum(each is not None and each is not Ellipsis for each in given)
    if Ellipsis in given:
        at = given.index(Ellipsis)
        given[at : at + 1] = [slice(None)] * (len(x.shape) - named)
    name, shape, axis = call.name(x), list(x.shape), 0
    for each in given:
        if each is None:
            shape.insert(axis, 1)
            name = call.step("Unsqueeze", [name, call.integers([axis])], shape)
            axis += 1
        elif isinstance(each, int):
            del shape[axis]
            name = call.step("Gather", [name, _index(call, each)], shape, axis=axis)
        else:
            start, stop, step = each.indices(shape[axis])
            length = len(range(start, stop, step))
            if length != shape[axis] or step != 1:
                shape[axis] = length
                limits = [call.integers([number]) for number in (start, stop, axis, step)]
                name = call.step("Slice", [name, *limits], shape)
            axis += 1
    call.is_now(call.result, name)


@emits(F.pad, torch.constant_pad_nd)
def pad(call: Call, x: Any, pad: Sequence[int], mode: Any = "constant", value: float | None = None) -> None:
    if not isinstance(mode, str):  # of `constant_pad_nd`, whose third argument is the value
        mode, value = "constant", mode
    rank, listed = len(x.shape), [int(each) for each in pad]
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    require(mode in modes, f"padding in mode '{mode}'")
    listed += [0] * (2 * rank - len(listed))
    pads = listed[-2::-2] + listed[-1::-2]
    filler = [float(value or 0)] if mode == "constant" else []
    call.gives("Pad", x, call.integers(pads), *filler, mode=modes[mode])


@emits(torch.Tensor.expand, "expand", "expand_as", torch.broadcast_to, "broadcast_to")
def expand(call: Call, x: Any, *_: Any, **__: Any) -> None:
    call.gives("Expand", x, call.integers(call.result.shape))


@emits(F.interpolate, F.upsample)
def interpolate(
    call: Call, x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> None:  # fmt: skip
    require(mode in ("nearest", "bilinear", "linear") and not antialias, f"resizing in mode '{mode}'")
    if scale_factor is not None and not recompute_scale_factor:
        axes = len(x.shape) - 2
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else [scale_factor] * axes
        whole = all(a * f == b for a, f, b in zip(x.shape[2:], factors, call.result.shape[2:], strict=True))
        require(whole, "resizing by a factor that gives no whole number")
    resize(call, x, mode, bool(align_corners))


def resize(call: Call, x: Any, mode: str, align_corners: bool) -> None:
    """To the size of the result (ONNX operator specification, Resize; torch.nn.Upsample)."""
    where = "asymmetric" if mode == "nearest" else "align_corners" if align_corners else "half_pixel"
    attrs = {"nearest_mode": "floor"} if mode == "nearest" else {}
    call.gives(
        "Resize", x, "", "", call.integers(call.result.shape), coordinate_transformation_mode=where,
        mode="nearest" if mode == "nearest" else "linear", **attrs,
    )  # fmt: skip
