"""How a rounding to 8 bits is written: QuantizeLinear, a Clip for a narrower range, DequantizeLinear; codes of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bridge.from_torch.building import Unknown, array, require

if TYPE_CHECKING:
    from bridge.from_torch.calls import Call

_CODES: dict[Any, Any] = {torch.quint8: np.uint8, torch.qint8: np.int8, torch.qint32: np.int32}


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
    dtype: Any = np.dtype(np.uint8 if qmin >= 0 else np.int8)
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
    codes = array(weight.int_repr())
    if weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        scale, zero_point = array(weight.q_per_channel_scales()), array(weight.q_per_channel_zero_points())
        return real_constant(call, codes, scale, zero_point, int(weight.q_per_channel_axis()))
    require(weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric), "weights of another scheme")
    return real_constant(call, codes, np.array(weight.q_scale()), np.array(weight.q_zero_point()), None)


def real_constant(call: Call, codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int | None) -> str:
    """The name of the real numbers of constant codes."""
    given = call.builder.constant(codes, f"{call.where}/weight")
    attrs = {} if axis is None else {"axis": axis}
    return call.step(
        "DequantizeLinear", [given, *parameters(call, scale, zero_point, codes.dtype)], codes.shape, **attrs
    )
