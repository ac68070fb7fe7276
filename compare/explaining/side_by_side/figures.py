"""Weights, biases and scales of two layers, code by code: what is apart, in numbers, and what is apart on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compare.explaining.side_by_side.layers import SAME_SCALE, Affine, Layer, Weights

_SAME_STEP = 1e-5
"""Relative; a scale that took over a normalization's factor was computed in single or double precision."""
_HALF = 0.502
"""Steps by which rounding to the nearest code moves a number; the rest is float32."""
_BIAS_CODES = 1
"""int32 codes of a bias that rounding may move: PyTorch's exporter cuts off where its engine rounds (M41)."""
_FLOAT32 = 2.0**-21
"""Relative; what a bias in float32 may lose when a factor is taken into it."""
_FLOAT = 1e-4
"""Relative to the largest; what numbers that stay float may lose by folding, or in half precision 2^-11."""
_HALF_PRECISION = 1e-3


@dataclass(frozen=True)
class Apart:
    """Numbers of one layer that are not the other's."""

    kind: str
    """`weights`, `weight scale` or `bias`."""
    fact: str
    share: float
    """Of the numbers, 0..1."""


@dataclass(frozen=True)
class Stated:
    """Codes that are apart because a converter said it would change them."""

    what: str
    count: int


@dataclass(frozen=True, eq=False)
class Numbers:
    """A layer's weights and bias with the first of its steps taken in."""

    weights: Weights
    bias: np.ndarray | None
    bias_step: np.ndarray | None
    loose: np.ndarray
    """(channels,): by how much the file's own 8-bit factors and offsets may have moved the bias."""
    factor: np.ndarray
    """(channels,): of the weights, taken in."""


def taken_in(layer: Layer, count: int) -> Numbers:
    """The numbers of a layer and its first `count` steps."""
    factor, offset, loose = np.ones(layer.channels), np.zeros(layer.channels), np.zeros(layer.channels)
    for step in layer.steps[:count]:
        factor, offset = factor * step.factor, offset * step.factor + step.offset
        loose = loose * np.abs(step.factor) + step.step
    where = (-1, *[1] * (layer.weights.real.ndim - 1))
    step_size = layer.weights.step
    return Numbers(
        Weights(
            layer.weights.real * factor.reshape(where),
            None if step_size is None else step_size * np.abs(factor).reshape(where),
        ),
        None if layer.bias is None else layer.bias * factor + offset,
        None if layer.bias_step is None else layer.bias_step * np.abs(factor),
        loose,
        factor,
    )


def weights_apart(ours: Weights, theirs: Weights) -> Iterator[Apart | Stated]:
    """The weights of the file (`theirs`) against those of the model, both (channels, window axes, features)."""
    real, found = ours.real, theirs.real
    if theirs.step is None:
        yield from _floats_apart(real, found)
        return
    step = theirs.step
    rows = (len(real), -1)
    channel_steps = np.broadcast_to(step, found.shape).reshape(rows)
    codes = np.rint(found.reshape(rows) / channel_steps)
    if ours.step is None:
        ideal = real.reshape(rows) / channel_steps
        off = np.abs(codes - ideal) > _HALF
        if off.any():
            yield _described(ideal, codes, off, "codes are not the nearest to the model's float weights")
        return
    trained = np.broadcast_to(ours.step, real.shape).reshape(rows)
    trained = np.where(trained > 0, trained, channel_steps)  # a factor of 0: every number of that channel is 0
    ideal_codes = np.rint(real.reshape(rows) / trained)
    same = np.abs(channel_steps / trained - 1) < _SAME_STEP
    both_zero = (ideal_codes == 0).all(axis=1) & (codes == 0).all(axis=1)
    off = same & (codes != ideal_codes)
    lowest = off & (ideal_codes == -128) & (codes == -127)
    highest = off & (ideal_codes == 128) & (codes == 127)
    off &= ~(lowest | highest)
    if off.any():
        yield _described(ideal_codes, codes, off, "codes are others than the trained ones")
    for what, places in (
        ("-128 became -127", lowest),
        ("128, of a channel with a negative factor, became 127", highest),
    ):
        if places.any():
            yield Stated(what, int(places.sum()))
    other = ~same.all(axis=1) & ~both_zero
    dead = ~same.all(axis=1) & both_zero
    if dead.any():
        yield Stated("an all-zero channel has another scale", int(dead.sum()))
    if other.any():
        yield from _other_scale(real.reshape(rows), found.reshape(rows), trained, channel_steps, other)


def _other_scale(
    real: np.ndarray, found: np.ndarray, trained: np.ndarray, steps: np.ndarray, other: np.ndarray
) -> Iterator[Apart]:
    """Channels with another scale than the trained one: the numbers they stand for decide."""
    gap = np.abs(found - real)
    largest = np.maximum(np.abs(real).max(axis=1, keepdims=True), 1e-300)
    moved = other[:, None] & (gap > SAME_SCALE * largest)
    if not moved.any():
        return  # other codes at another scale, and the very same numbers
    ratios = (steps / trained)[:, 0]
    channel = int(np.flatnonzero(moved.any(axis=1))[0])
    beyond = moved & (gap > _HALF * steps)
    fact = (
        f"{int(moved.any(axis=1).sum())} of {len(real)} channels are not at their trained scale: channel {channel} has "
        f"{steps[channel, 0]:.6g}, training decided {trained[channel, 0]:.6g} ({ratios[channel] - 1:+.2%})"
    )
    if beyond.any():
        fact += f"; {int(beyond.sum())} numbers are up to {gap[beyond].max():.3g} away, {(gap / steps)[beyond].max():.1f} steps"
    else:
        fact += "; their weights were rounded a second time"
    yield Apart("weight scale", fact, float(moved.mean()))


def _floats_apart(real: np.ndarray, found: np.ndarray) -> Iterator[Apart]:
    largest = float(np.abs(real).max(initial=0.0))
    half = bool(np.array_equal(found.astype(np.float16).astype(np.float64), found)) and found.size > 8
    gap = np.abs(found - real)
    off = gap > (_HALF_PRECISION if half else _FLOAT) * largest + 1e-30
    if off.any():
        yield Apart(
            "weights",
            f"{int(off.sum())} of {off.size} float weights are others, by up to {gap.max():.3g} where the largest is "
            f"{largest:.3g}{_as_another_order(real.reshape(len(real), -1), found.reshape(len(real), -1), 1e-6 * largest)}",
            float(off.mean()),
        )


def _described(ideal: np.ndarray, codes: np.ndarray, off: np.ndarray, what: str) -> Apart:
    """How many codes are others, the first of them, and whether they only stand elsewhere."""
    apart = np.abs(codes - ideal)
    channel, place = (int(each) for each in np.argwhere(off)[0])
    channels = int(off.any(axis=1).sum())
    elsewhere = _as_another_order(np.rint(ideal), codes, 0.0)
    return Apart(
        "weights",
        f"{int(off.sum())} of {off.size} {what}, in {channels} of {len(off)} channels, by up to {apart[off].max():.0f}; first "
        f"channel {channel}: {codes[channel, place]:.0f} for {ideal[channel, place]:.4g}{elsewhere}",
        float(off.mean()),
    )


def _as_another_order(wanted: np.ndarray, found: np.ndarray, tolerance: float) -> str:
    """Words for rows or columns that are all there, in other places."""
    for name, one, other in (("output channels", wanted, found), ("columns", wanted.T, found.T)):
        places = _permutation(one, other, tolerance)
        if places is None:
            continue
        moved = np.flatnonzero(places != np.arange(len(places)))
        if len(moved) == 2:
            return f"; {name} {moved[0]} and {moved[1]} have changed places"
        if np.array_equal(places, np.arange(len(places))[::-1]):
            return f"; its {name} stand in reverse order"
        by = int(-places[0] % len(places))
        if np.array_equal(places, (np.arange(len(places)) - by) % len(places)):
            return f"; its {name} are rolled by {min(by, by - len(places), key=abs)}"
        return f"; its {name} stand in another order: {', '.join(map(str, places[:6]))}{', ...' if len(places) > 6 else ''}"
    return ""


def _permutation(wanted: np.ndarray, found: np.ndarray, tolerance: float) -> np.ndarray | None:
    """places[i]: which row of `wanted` stands at row i of `found`; None where it is no permutation, or nothing moved."""
    if wanted.shape != found.shape or len(wanted) < 2:
        return None
    one, other = np.lexsort(wanted.T[::-1]), np.lexsort(found.T[::-1])
    if np.abs(wanted[one] - found[other]).max(initial=0.0) > tolerance:
        return None
    places = np.empty(len(one), int)
    places[other] = one
    return None if np.array_equal(places, np.arange(len(places))) else places


def bias_apart(ours: Numbers, theirs: Numbers, trained_step: np.ndarray | None) -> Iterator[Apart]:
    """The bias that the kernel adds against the model's; `trained_step` is what a code counts at the trained scales.

    Where the input carries another scale than trained, a bias in its trained codes is not counted a second time: the
    scale is said.
    """
    if ours.bias is None or theirs.bias is None:
        return
    wanted, found = ours.bias, theirs.bias
    if theirs.bias_step is None:
        largest = max(float(np.abs(wanted).max(initial=0.0)), float(np.abs(found).max(initial=0.0)))
        off = np.abs(found - wanted) > _HALF_PRECISION * largest + theirs.loose + 1e-30
        step = np.full(wanted.shape, max(largest, 1e-300))
        unit = "of the largest"
    else:
        step, unit = theirs.bias_step, "codes"
        off = _codes_apart(wanted, found, step, theirs.loose)
        if off.any() and trained_step is not None:
            as_trained = np.rint(found / step) * trained_step
            off &= _codes_apart(wanted, as_trained, trained_step, theirs.loose)
    if not off.any():
        return
    channel = int(np.flatnonzero(off)[0])
    gap = np.abs(found - wanted) / step
    order = _as_another_order(np.rint(wanted / step)[:, None], np.rint(found / step)[:, None], 1.0)
    yield Apart(
        "bias",
        f"{int(off.sum())} of {off.size} biases are others, by up to {gap[off].max():.4g} {unit}; first channel {channel}: "
        f"{found[channel]:.6g} for {wanted[channel]:.6g}{order.replace('output channels', 'entries')}",
        float(off.mean()),
    )


def _codes_apart(wanted: np.ndarray, found: np.ndarray, step: np.ndarray, loose: np.ndarray) -> np.ndarray:
    apart = np.abs(np.rint(found / step) - np.rint(wanted / step))
    allowed = np.maximum(_BIAS_CODES, np.maximum(np.abs(wanted) * _FLOAT32, loose) / step)
    return np.asarray(apart > allowed)


def affine_apart(ours: tuple[Affine, ...], theirs: tuple[Affine, ...], channels: int) -> Iterator[Apart]:
    """What is left of both sides' factors and offsets once each layer has taken in as many as it shares."""
    (a, b, _), (c, d, loose) = (_together(steps, channels) for steps in (ours, theirs))
    allowed = loose + _FLOAT * np.maximum(np.abs(a), np.abs(b))
    off = (np.abs(a - c) > allowed) | (np.abs(b - d) > allowed)
    if off.any():
        channel = int(np.flatnonzero(off)[0])
        yield Apart(
            "factors",
            f"{int(off.sum())} of {channels} factors or offsets behind it are others; first channel {channel}: "
            f"{c[channel]:.6g} and {d[channel]:.6g} for {a[channel]:.6g} and {b[channel]:.6g}",
            float(off.mean()),
        )


def _together(steps: tuple[Affine, ...], channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    factor, offset, loose = np.ones(channels), np.zeros(channels), np.zeros(channels)
    for step in steps:
        factor, offset = factor * step.factor, offset * step.factor + step.offset
        loose = loose * np.abs(step.factor) + step.step
    return factor, offset, loose


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two weights of one shape around zero, -1..1; 1 for two that are all zero."""
    if not one.any() and not other.any():
        return 1.0
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0
