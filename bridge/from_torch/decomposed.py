"""Emitters of `quantized_decomposed`: how PT2E writes a rounding, as integers and their scale in operators of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bridge.errors import BridgeError
from bridge.from_torch.building import Unknown, array, require
from bridge.from_torch.calls import Call, emits
from bridge.from_torch.rounding import parameters

_CODES: dict[Any, Any] = {torch.int8: np.int8, torch.uint8: np.uint8, torch.int32: np.int32}


def _type_of(dtype: Any) -> Any:
    if dtype not in _CODES:
        raise Unknown(f"codes of type {str(dtype).removeprefix('torch.')}")
    return _CODES[dtype]


@emits("quantized_decomposed::quantize_per_tensor")
def quantize(call: Call, x: Any, scale: Any, zero_point: Any, qmin: Any, qmax: Any, dtype: Any, *_: Any) -> None:
    """A range narrower than its type is a Clip of the codes: torch's ONNX exporters drop it."""
    codes = _type_of(dtype)
    require(codes is not np.int32, "activations of 32 bits")
    names = parameters(call, float(scale), int(zero_point), codes)
    name = call.step("QuantizeLinear", [x, *names], call.result.shape)
    limits = np.iinfo(codes)
    if (int(qmin), int(qmax)) != (limits.min, limits.max):
        ends = [call.builder.constant(np.array(int(end), codes), f"{call.where}/limit") for end in (qmin, qmax)]
        name = call.step("Clip", [name, *ends], call.result.shape)
    call.builder.stands_for(call.result, name)


@emits("quantized_decomposed::quantize_per_channel", "quantized_decomposed::quantize_per_token")
def quantize_channels(call: Call, x: Any, *_: Any, **__: Any) -> None:
    raise Unknown("an activation with a scale for each channel")  # a weight is a constant, and quantized as it runs


@emits("quantized_decomposed::dequantize_per_tensor")
def dequantize(
    call: Call, codes: Any, scale: Any, zero_point: Any, qmin: Any, qmax: Any, dtype: Any, *_: Any, **__: Any
) -> None:  # fmt: skip
    names = parameters(call, float(scale), int(zero_point), _type_of(dtype))
    call.gives("DequantizeLinear", codes, *names)


@emits("quantized_decomposed::dequantize_per_channel")
def dequantize_channels(
    call: Call, codes: Any, scales: Any, zero_points: Any, axis: int, qmin: Any, qmax: Any, dtype: Any, *_: Any, **__: Any
) -> None:  # fmt: skip
    require(not call.builder.is_computed(codes), "an activation with a scale for each channel")
    points = np.zeros(scales.shape) if zero_points is None else array(zero_points)
    names = parameters(call, array(scales), points, _type_of(dtype))
    call.gives("DequantizeLinear", codes, *names, axis=int(axis))


@emits(
    "quantized_decomposed::choose_qparams", "quantized_decomposed::choose_qparams_symmetric",
    "quantized_decomposed::choose_qparams_per_token", "quantized_decomposed::choose_qparams_per_token_asymmetric",
)  # fmt: skip
def choose(call: Call, *_: Any, **__: Any) -> None:
    raise BridgeError(
        where="model, quantized_decomposed.choose_qparams",
        problem="finds a scale anew for every input: its activations are quantized dynamically, and an int8 .tflite needs "
        "one static scale for every tensor",
        remedy="Annotate with static activations (is_dynamic=False), and prepare, train and convert again.",
    )
