"""Small networks for torch.fx, drawn and by hand, and how FX mode quantizes them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.quantization import quantize_fx
from torch.nn import functional as F  # noqa: N812 - the field's own name for it


class Common(nn.Module):
    """What is common in a CNN: convolutions with batch norm, a depthwise one, a sum, a joint, pools, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.depthwise_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.pointwise, self.dense = nn.Conv2d(8, 8, 1), nn.Linear(16, 10)
        self.relu6, self.swish = nn.ReLU6(), nn.Hardswish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first_norm(self.first(x)))
        y = self.relu6(self.depthwise_norm(self.depthwise(x)))
        x = x + self.pointwise(y)
        x = F.max_pool2d(torch.cat([x, self.swish(y)], 1), 2)
        return self.dense(F.adaptive_avg_pool2d(x, 1).flatten(1))


SHAPE = (2, 3, 16, 16)


def common(seed: int = 0) -> Common:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Common()


def _conv(random: np.random.Generator, channels: int) -> nn.Module:
    out = int(random.integers(2, 9))
    groups = channels if random.random() < 0.3 else 1
    out = channels if groups > 1 else out
    kernel = int(random.choice([1, 3]))
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels, out, kernel, stride=int(random.choice([1, 1, 2])), padding=int(random.integers(0, kernel // 2 + 1)),
            groups=groups, bias=bool(random.random() < 0.7),
        )
    ]  # fmt: skip
    if random.random() < 0.6:
        layers.append(nn.BatchNorm2d(out))
    if random.random() < 0.6:
        layers.append(nn.ReLU(inplace=bool(random.random() < 0.3)))
    return nn.Sequential(*layers)


class Drawn(nn.Module):
    """A chain of drawn steps over a map, then a dense layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        self.steps: list[tuple[str, Any]] = []
        x = torch.zeros(SHAPE)
        for _ in range(int(random.integers(2, 7))):
            kind = str(
                random.choice(
                    ["conv", "conv", "conv", "pool", "average", "act", "add", "mul", "cat", "slice", "pad", "chunk"]
                )
            )
            if min(x.shape[2:]) < 4 and kind in ("conv", "pool", "average", "slice"):
                kind = "act"
            argument: Any = None
            if kind == "conv":
                self.add_module(f"conv{len(self.steps)}", _conv(random, x.shape[1]))
                argument = f"conv{len(self.steps)}"
            elif kind == "act":
                argument = [F.relu, F.hardtanh, F.hardswish, F.leaky_relu, torch.sigmoid, F.relu6][
                    int(random.integers(6))
                ]
            elif kind == "pool":
                argument = {"kernel_size": int(random.choice([2, 3])), "ceil_mode": bool(random.random() < 0.3)}
            elif kind == "chunk" and x.shape[1] % 2:
                kind, argument = "act", F.relu
            self.steps.append((kind, argument))
            x = self._step(x, kind, argument)
        self.dense = nn.Linear(x.shape[1], 5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for each in self.parameters():
                each.copy_(torch.randn(each.shape, generator=generator) / max(each[0].numel(), 1) ** 0.5)

    def _step(self, x: torch.Tensor, kind: str, argument: Any) -> torch.Tensor:
        if kind == "conv":
            return getattr(self, argument)(x)
        if kind == "act":
            return argument(x)
        if kind == "pool":
            return F.max_pool2d(x, argument["kernel_size"], stride=2, ceil_mode=argument["ceil_mode"])
        if kind == "average":
            return F.avg_pool2d(x, 2)
        if kind == "add":
            return x + F.relu(x)
        if kind == "mul":
            return x * torch.sigmoid(x)
        if kind == "cat":
            return torch.cat([x, F.relu(x)], 1)
        if kind == "slice":
            return x[:, :, 1:, :-1]
        if kind == "pad":
            return F.pad(x, (1, 0, 0, 1))
        first, second = x.chunk(2, 1)
        return torch.cat([second, first], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for kind, argument in self.steps:
            x = self._step(x, kind, argument)
        return self.dense(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


INT8 = tq.QConfig(
    activation=tq.FusedMovingAvgObsFakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
    ),
    weight=tq.FakeQuantize.with_args(
        observer=tq.MovingAveragePerChannelMinMaxObserver, quant_min=-127, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    ),
)  # fmt: skip
INT8_AFTERWARDS = tq.QConfig(
    activation=tq.MinMaxObserver.with_args(dtype=torch.qint8, quant_min=-128, quant_max=127),
    weight=tq.default_per_channel_weight_observer,
)


def prepared(
    network: nn.Module, qconfig: str | tq.QConfig, backend: Any = None, *, qat: bool = True, seed: int = 0
) -> Any:
    """A network in FX mode whose observers have seen noise; `qconfig`: an engine's default, or one of its own."""
    example = (torch.zeros(SHAPE),)
    if isinstance(qconfig, str):
        default = tq.get_default_qat_qconfig_mapping if qat else tq.get_default_qconfig_mapping
        mapping = default(qconfig)
    else:
        mapping = tq.QConfigMapping().set_global(qconfig)
    prepare = quantize_fx.prepare_qat_fx if qat else quantize_fx.prepare_fx
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        model = prepare(copy.deepcopy(network).train(qat), mapping, example, backend_config=backend)
        torch.manual_seed(seed)
        for _ in range(3):
            model(torch.randn(4, *SHAPE[1:]))
    return model.eval()


def converted(model: Any, *, reference: bool = False, backend: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert = quantize_fx.convert_to_reference_fx if reference else quantize_fx.convert_fx
        return convert(copy.deepcopy(model), backend_config=backend)
