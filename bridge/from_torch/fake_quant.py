"""Emitters of frozen fake-quant, and of the layers that hold one for their weight (torch_side/export.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bridge.exact.remarks import made_symmetric
from bridge.from_torch.building import array
from bridge.from_torch.calls import Call, emits_module
from bridge.from_torch.rounding import real_constant, rounded
from bridge.from_torch.weighted import weighted
from torch_side.export import FrozenFakeQuant, FrozenLayer


@emits_module(FrozenFakeQuant)
def frozen_fake_quant(call: Call, module: Any, x: Any) -> None:
    call.builder.stands_for(call.result, _fake_quantized(call, module, x, x.shape))


def _fake_quantized(call: Call, module: Any, x: Any, shape: Any) -> str:
    scale, zero_point = array(module.scale), array(module.zero_point)
    if module.axis is None:
        scale, zero_point = np.array(module.scalar_scale), np.array(module.scalar_zero_point)
    return rounded(call, x, scale, zero_point, module.qmin, module.qmax, shape, module.axis)


@emits_module(FrozenLayer)
def frozen_layer(call: Call, module: Any, x: Any) -> None:
    layer, fake_quant = module.layer, module.weight_fake_quant
    weight = _weight(call, fake_quant, layer.weight)
    node = weighted(call, layer, x, weight, layer.bias, relu=module.relu)
    if fake_quant.one_signed:
        call.builder.note(made_symmetric(node, fake_quant.one_signed, fake_quant.channels, fake_quant.moved))


def _weight(call: Call, fake_quant: Any, weight: Any) -> str:
    """Its codes: a frozen weight lies on its grid, so that no rounding decides any."""
    axis = fake_quant.axis
    along = [-1 if place == axis else 1 for place in range(weight.dim())]
    scale, zero_point = fake_quant.scale.reshape(along), fake_quant.zero_point.reshape(along)
    codes = (weight.detach() / scale).round_().add_(zero_point)
    whole = codes.to(torch.uint8 if fake_quant.qmin >= 0 else torch.int8)
    parameters = array(fake_quant.scale), array(fake_quant.zero_point)
    if axis is None:
        parameters = np.array(fake_quant.scalar_scale), np.array(fake_quant.scalar_zero_point)
    return real_constant(call, array(whole), *parameters, axis)
