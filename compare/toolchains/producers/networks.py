"""The three small networks that every producer quantizes, in plain PyTorch.

This file also runs inside a producer's environment, where nothing of ours is beside it: it imports torch alone. What a
user would write: functional calls and operators, no modules made for one quantizer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Pictures(nn.Module):
    """A CNN with everything common in it: batch norms, a depthwise layer, a residual, a concat, both poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.pointwise, self.pointwise_norm = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.left, self.right = nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(16, 12, 1)
        self.pool = nn.MaxPool2d(2)
        self.dense = nn.Linear(24, 10)

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.stem_norm(self.stem(x)))
        y = functional.relu6(self.depthwise_norm(self.depthwise(x)))
        x = functional.relu(x + self.pointwise_norm(self.pointwise(y)))
        x = self.pool(torch.cat([functional.relu(self.left(x)), functional.hardswish(self.right(x))], dim=1))
        return self.dense(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class Keywords(nn.Module):
    """A keyword spotter: convolutions along time over 40 mel bands."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv1d(40, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(24)
        self.second, self.second_norm = nn.Conv1d(24, 24, 5, padding=2, bias=False), nn.BatchNorm1d(24)
        self.dense = nn.Linear(24, 12)

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.first_norm(self.first(x)))
        x = functional.relu(x + self.second_norm(self.second(x)))
        return self.dense(torch.flatten(functional.adaptive_avg_pool1d(x, 1), 1))


class Tokens(nn.Module):
    """A transformer block: attention with two heads, layer norms, GELU, a classifier over the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_after = nn.LayerNorm(32), nn.LayerNorm(32)
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)
        self.dense = nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        query, key, value = (
            layer(y).reshape(1, 16, 2, 16).permute(0, 2, 1, 3) for layer in (self.query, self.key, self.value)
        )
        seen = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * 0.25, dim=-1)
        x = x + self.out(torch.matmul(seen, value).permute(0, 2, 1, 3).reshape(1, 16, 32))
        x = x + self.narrow(functional.gelu(self.wide(self.norm_after(x))))
        return self.dense(x.mean(dim=1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pictures": (Pictures, (1, 3, 32, 32)),
    "keywords": (Keywords, (1, 40, 64)),
    "tokens": (Tokens, (1, 16, 32)),
}
"""By name: the class, and the shape of its input, batch 1."""


def made(name: str, arrays: dict[str, Any]) -> nn.Module:
    """The network in eval mode with these weights, by their names in its state."""
    network = NETWORKS[name][0]().eval()
    network.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in arrays.items()})
    return network
