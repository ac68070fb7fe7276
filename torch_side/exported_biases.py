"""int32 biases of converted models as the engine adds them: the TorchScript exporter cuts them off towards zero."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx import symbolic_helper


@contextmanager
def rounded_biases() -> Iterator[None]:
    """Within the block, the TorchScript exporter rounds the int32 biases of converted models, as the engine does.

    torch 2.13's `requantize_bias_helper` divides and casts, and a cast cuts off: 112.9 becomes 112. It is replaced in the
    module that defines it: as soon as anybody imports `torch.onnx.symbolic_helper`, that name is a copy's.
    """
    stock = symbolic_helper.requantize_bias_helper
    home: Any = sys.modules[stock.__module__]
    home.requantize_bias_helper = _requantize_bias
    try:
        yield
    finally:
        home.requantize_bias_helper = stock


def _requantize_bias(g: Any, bias: Any, input_scale: Any, weight_scale: Any, axis: Any = None) -> Any:
    scale = g.op("Mul", weight_scale, input_scale)
    zero_point = g.op("ConstantOfShape", g.op("Shape", scale), value_t=torch.tensor([0], dtype=torch.int))
    codes = g.op("Cast", g.op("Round", g.op("Div", bias, scale)), to_i=torch.onnx.TensorProtoDataType.INT32)
    channel_axis = () if axis is None or axis.node().mustBeNone() else (axis,)
    return g.op("prim::TupleConstruct", codes, scale, zero_point, *channel_axis)
