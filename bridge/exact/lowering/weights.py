"""Weights and biases as TFLite stores them: codes and scales untouched, the bias scale derived."""

from __future__ import annotations

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import INT32, SMALLEST, bias_scale, float32_scale, quantize_bias
from bridge.exact.graph import Node, Note, QParams, Tensor, constant
from bridge.exact.names import free_name


def kernel(node: Node, weight: Tensor, perm: tuple[int, ...], channels: int, axis: int) -> Tensor:
    """The weight transposed by `perm`, its per-channel scales on `axis` afterwards; a float weight stays float.

    Every code stays as it is, -128 too: what becomes of those is decided where the whole graph is seen (pair_sums.py).
    They are at zero point 0 (passes/zero_points.py). Raises `BridgeError` for scales along another axis than the output
    channels.
    """
    if weight.qparams is None:
        return constant(free_name(f"{weight.name}/{node.name}"), weight.values.transpose(perm))
    qparams = weight.qparams
    if qparams.zero_point.any():
        raise AssertionError(f"{node}: weight '{weight.name}' is not at zero point 0")
    if qparams.axis is not None and perm.index(qparams.axis) != axis:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has its scales along axis {qparams.axis}, not along the {channels} output channels",
            remedy="Quantize the weight per output channel, or per tensor.",
        )
    return constant(free_name(f"{weight.name}/{node.name}"), weight.values.transpose(perm), qparams.on_axis(axis))


def int32_bias(node: Node, bias: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, list[Note]]:
    """The bias in int32 at input scale * weight scale, and the weight; float ones pass as they are.

    A bias that the model holds in int32 already keeps its codes. One that does not fit int32 (catalogue entry M05: the
    weight channel is almost all zero) makes that channel's weight scale larger, exactly where all its codes are 0;
    else `BridgeError` names the channel.
    """
    if x.qparams is None or weight.qparams is None:
        return constant(free_name(f"{bias.name}/{node.name}"), bias.real), weight, []
    weight = _with_normal_products(x, weight)
    product = float(x.qparams.scale) * weight.q.scale.astype(np.float64)
    float32_scale(product, f"{node}, bias '{bias.name}'")
    scale = bias_scale(x.qparams.scale, weight.q.scale)
    per_channel = scale.shape != ()
    if bias.dtype == np.int32 and bias.qparams is not None:
        stored = np.broadcast_to(bias.qparams.scale, bias.shape)
        if np.allclose(stored, scale, rtol=1e-5, atol=0):
            kept = QParams(scale, np.zeros(scale.shape, np.int32), 0 if per_channel else None)
            return constant(free_name(f"{bias.name}/{node.name}"), bias.values, kept), weight, []
    codes = quantize_bias(bias.real, scale)
    notes = []
    if (np.abs(codes) > INT32.max).any():
        weight, scale = _room_for_bias(node, bias, x, weight, codes)
        notes.append(Note("bias", str(node), "all-zero weight channels got a larger scale, so that the bias fits"))
        codes = quantize_bias(bias.real, scale)
    notes += _off_the_grid(node, bias, codes, scale)
    qparams = QParams(scale, np.zeros(scale.shape, np.int32), 0 if per_channel else None)
    return constant(free_name(f"{bias.name}/{node.name}"), codes.astype(np.int32), qparams), weight, notes


def _off_the_grid(node: Node, bias: Tensor, codes: np.ndarray, scale: np.ndarray) -> list[Note]:
    """What rounding the bias moves the sums by; said only where that is half a step of the output (complete/price.py)."""
    off = float(np.abs(bias.real.astype(np.float64) - codes * scale.astype(np.float64)).max(initial=0.0))
    if not off:
        return []
    what = f"steps of {float(scale.max()):.3g}, input scale times weight scale"
    return [Note("grid", str(node), what, at=node.outputs[0], off=off)]


def _with_normal_products(x: Tensor, weight: Tensor) -> Tensor:
    """All-zero weight channels at a scale that gives their bias a normal one; any scale says zero."""
    axis, scale = weight.q.axis, weight.q.scale.astype(np.float64)
    others = tuple(i for i in range(len(weight.shape)) if i != axis)
    dead = ~weight.values.any(axis=others) if axis is not None else ~weight.values.any()
    small = dead & (float(x.q.scale) * scale < 2 * SMALLEST)
    if not small.any():
        return weight
    larger = np.where(small, 2 * SMALLEST / float(x.q.scale), scale).astype(np.float32)
    return constant(weight.name, weight.values, QParams(larger, weight.q.zero_point, axis))


def _room_for_bias(node: Node, bias: Tensor, x: Tensor, weight: Tensor, codes: np.ndarray) -> tuple[Tensor, np.ndarray]:
    weight_q = weight.q
    axis = weight_q.axis
    too_large = np.flatnonzero(np.abs(codes) > INT32.max)
    first = int(too_large[0])
    other_axes = tuple(i for i in range(len(weight.shape)) if i != axis)
    dead = ~weight.values.any(axis=other_axes) if axis is not None else np.array([not weight.values.any()])
    if not dead[too_large if axis is not None else 0].all():
        raise BridgeError(
            where=f"{node}, bias channel {first}",
            problem=f"{codes[first]:.2g} does not fit int32 at scale "
            f"{bias_scale(x.q.scale, weight_q.scale).reshape(-1)[first if axis is not None else 0]:.2g} "
            f"(input {x.q.scale:.3g} x weight {weight_q.scale.reshape(-1)[first if axis is not None else 0]:.3g})",
            remedy="That weight channel is almost all zero: prune it, or give the weight observer a larger eps.",
        )
    room = np.abs(bias.real).astype(np.float64) / (float(x.q.scale) * (INT32.max // 2))
    if axis is None:
        scale = np.array(max(float(weight_q.scale), room.max()), np.float32)
    else:
        scale = np.where(dead, np.maximum(weight_q.scale, room), weight_q.scale).astype(np.float32)
    larger = QParams(scale, weight_q.zero_point, axis)
    return constant(weight.name, weight.values, larger), bias_scale(x.q.scale, scale)
