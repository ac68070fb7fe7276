"""Quantize, bias, clamp: numpy in, numpy out; the rounding rules of training and kernels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import QParams, per_tensor

INT32 = np.iinfo(np.int32)

_BEYOND_INT32 = 2.0**62
"""Codes further out are limited to this, so that they fit int64 and still not int32."""


def quantize(real: np.ndarray, qparams: QParams) -> np.ndarray:
    """float32 values to int8 codes of the same shape: round half to even, shift, saturate at qmin and qmax.

    The quotient is taken in float32, as QuantizeLinear (ONNX operator specification) and the fake-quant kernels do.
    """
    scale, zero_point = along_axis(qparams, real.ndim)
    codes = np.rint(real / scale) + zero_point.astype(np.float32)
    clamped: np.ndarray = np.clip(codes, qparams.qmin, qparams.qmax).astype(np.int8)
    return clamped


def dequantize(codes: np.ndarray, qparams: QParams) -> np.ndarray:
    """Codes to float32 values of the same shape."""
    scale, zero_point = along_axis(qparams, codes.ndim)
    real: np.ndarray = (codes.astype(np.int32) - zero_point).astype(np.float32) * scale
    return real


def along_axis(qparams: QParams, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point as they are multiplied with, and added to, an array of this rank."""
    if qparams.axis is None:
        return qparams.scale, qparams.zero_point
    shape = [1] * rank
    shape[qparams.axis] = -1
    return qparams.scale.reshape(shape), qparams.zero_point.reshape(shape)


def bias_scale(input_scale: np.ndarray, weight_scale: np.ndarray) -> np.ndarray:
    """Scale of an int32 bias, float32: input scale * weight scale (TFLite 8-bit quantization specification)."""
    return np.multiply(input_scale, weight_scale, dtype=np.float32)


SMALLEST = float(np.finfo(np.float32).tiny)
"""Of a scale: XNNPACK loads no file with a smaller one ("unsupported scale value": it must be a normal float32)."""


def float32_scale(scale: np.ndarray, where: str) -> np.ndarray:
    """Computed scales as float32; raises `BridgeError` where one leaves its normal range."""
    outside = ~((scale >= SMALLEST) & (scale <= np.finfo(np.float32).max))
    if outside.any():
        raise BridgeError(
            where=where,
            problem=f"needs scale {np.asarray(scale)[outside].flat[0]:.3g}, which float32 does not hold",
            remedy="The training diverged, or an observer saw next to nothing: train again and export.",
        )
    narrow: np.ndarray = np.asarray(scale, np.float32)
    return narrow


def quantize_bias(real: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 bias (channels,) to int64 codes at `scale` (() or (channels,)), rounded half to even.

    int64, so that the caller can name the channel that does not fit int32. Rounding as torch 2.13's qnnpack engine
    and ONNX exporter do it (`requantize_bias_helper`: divide, round, cast).
    """
    codes = np.rint(real.astype(np.float64) / scale.astype(np.float64))
    limited: np.ndarray = np.clip(codes, -_BEYOND_INT32, _BEYOND_INT32).astype(np.int64)
    return limited


def quantize_constant(real: np.ndarray, *, symmetric: bool = False) -> tuple[np.ndarray, QParams]:
    """A constant that nobody trained a scale for: int8 over its range, zero included, and its parameters.

    Of three scales, the one that misses it least: by its largest magnitude, which is met exactly (up to float32), as is
    a constant of one value; by its smallest, of which others may be multiples; by both ends of its range, with a zero
    point. `symmetric`: without the last.
    """
    found = [(quantize(real, qparams), qparams) for qparams in _ranges(real, symmetric)]
    return min(found, key=lambda pair: missed(real, *pair))


def _ranges(real: np.ndarray, symmetric: bool) -> Iterator[QParams]:
    low, high = min(0.0, float(real.min(initial=0.0))), max(0.0, float(real.max(initial=0.0)))
    largest, smallest = max(-low, high), float(np.abs(real[real != 0]).min(initial=np.inf))
    tiny = float(np.finfo(np.float32).tiny)
    yield per_tensor(largest / 127 if largest / 127 > tiny else 1.0, 0)
    if tiny < smallest <= largest <= 127 * smallest:
        yield per_tensor(smallest, 0)
    if not symmetric and (high - low) / 255 > tiny:
        scale = (high - low) / 255
        yield per_tensor(scale, round(-128 - low / scale))


def missed(real: np.ndarray, codes: np.ndarray, qparams: QParams) -> float:
    """The largest distance of codes from what they stand for, beyond the last bits of float32."""
    apart = np.abs(dequantize(codes, qparams).astype(np.float64) - real)
    return float(apart[apart > 1e-6 * np.abs(real)].max(initial=0.0))


def code_of(value: float, qparams: QParams) -> int:
    """The int8 code nearest to a real value, saturated; per-tensor parameters only."""
    return int(quantize(np.array(value, np.float32), qparams))
