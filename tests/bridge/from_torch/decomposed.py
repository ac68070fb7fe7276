"""PT2E graphs made by hand: what `convert_pt2e` writes, without torchao."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - registers the operators
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

OPS = torch.ops.quantized_decomposed


def pair(x: Any, scale: float, zero_point: int, low: int = -128, high: int = 127, dtype: Any = torch.int8) -> Any:
    codes = OPS.quantize_per_tensor(x, scale, zero_point, low, high, dtype)
    return OPS.dequantize_per_tensor(codes, scale, zero_point, low, high, dtype)


class Network(nn.Module):
    """Convolution with a scale for each channel, ReLU, pool, dense layer with one scale; uint8 or int8 activations."""

    def __init__(self, dtype: Any = torch.int8, high: int | None = None, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        unsigned = dtype == torch.uint8
        self.dtype, self.low = dtype, 0 if unsigned else -128
        self.high = (255 if unsigned else 127) if high is None else high
        self.zero = 128 if unsigned else 0
        codes = lambda *shape: torch.randint(-127, 128, shape, generator=generator).to(torch.int8)  # noqa: E731
        self.register_buffer("kernel", codes(4, 2, 3, 3))
        self.register_buffer("scales", torch.tensor([0.0103, 0.0199, 0.0151, 0.0053]))
        self.register_buffer("points", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("dense", codes(5, 4))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))

    def activation(self, x: Any, scale: float, zero_point: int) -> Any:
        return pair(x, scale, zero_point, self.low, self.high, self.dtype)

    def forward(self, x: Any) -> Any:
        x = self.activation(x, 0.0523, self.zero + 3)
        weight = OPS.dequantize_per_channel(self.kernel, self.scales, self.points, 0, -127, 127, torch.int8)
        x = F.relu(F.conv2d(x, weight, self.bias, padding=1))
        x = self.activation(x, 0.0971, self.low)
        x = F.max_pool2d(x, 2)
        x = self.activation(F.adaptive_avg_pool2d(x, 1).flatten(1), 0.0683, self.low)
        dense = OPS.dequantize_per_tensor(self.dense, 0.0107, 0, -127, 127, torch.int8)
        return self.activation(F.linear(x, dense), 0.1031, self.zero)


SHAPE = (2, 2, 8, 8)


def exported(model: nn.Module, *shapes: tuple[int, ...]) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), tuple(torch.zeros(shape) for shape in shapes or (SHAPE,)), strict=False)
