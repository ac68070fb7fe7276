"""Emitters of sums, differences, products and quotients, of tensors and of numbers."""

from __future__ import annotations

import operator
from typing import Any

import torch

from bridge.from_torch.building import require
from bridge.from_torch.calls import Call, emits


def _alpha(call: Call, y: Any, alpha: float) -> Any:
    if alpha == 1:
        return y
    return call.step("Mul", [y, float(alpha)], y.shape) if isinstance(y, torch.Tensor) else y * alpha


@emits(torch.add, operator.add, operator.iadd, "add", "add_", "__add__", "__iadd__", "__radd__")
def add(call: Call, x: Any, y: Any, *, alpha: float = 1) -> None:
    call.gives("Add", x, _alpha(call, y, alpha))


@emits(torch.sub, torch.subtract, operator.sub, operator.isub, "sub", "sub_")
def subtract(call: Call, x: Any, y: Any, *, alpha: float = 1) -> None:
    call.gives("Sub", x, _alpha(call, y, alpha))


@emits(torch.rsub, "rsub")
def subtract_from(call: Call, x: Any, y: Any, *, alpha: float = 1) -> None:
    call.gives("Sub", y, _alpha(call, x, alpha))


@emits(torch.mul, torch.multiply, operator.mul, operator.imul, "mul", "mul_")
def multiply(call: Call, x: Any, y: Any) -> None:
    call.gives("Mul", x, y)


@emits(torch.div, torch.divide, torch.true_divide, operator.truediv, operator.itruediv, "div", "div_", "true_divide")
def divide(call: Call, x: Any, y: Any, *, rounding_mode: str | None = None) -> None:
    require(rounding_mode is None, f"a division with rounding_mode '{rounding_mode}'")
    call.gives("Div", x, y)


@emits(torch.maximum, "maximum")
def maximum(call: Call, x: Any, y: Any) -> None:
    call.gives("Max", x, y)


@emits(torch.minimum, "minimum")
def minimum(call: Call, x: Any, y: Any) -> None:
    call.gives("Min", x, y)
