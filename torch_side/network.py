"""The article's MNIST network in PyTorch, fusable and ready for eager QAT."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub

from bridge.errors import BridgeError

FUSABLE = [["conv", "relu"]]
"""The module names that `fuse_modules_qat` joins."""

PARAMETERS = {
    "conv.weight": (12, 1, 3, 3),
    "conv.bias": (12,),
    "dense.weight": (10, 12 * 13 * 13),
    "dense.bias": (10,),
}
"""Names and shapes of the trained arrays: OIHW, and the dense inputs in C, H, W order."""


class Network(nn.Module):
    """Conv2d(12, 3x3) + ReLU, MaxPool2d(2), Flatten, Linear(10): float32 (N, 1, 28, 28) to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv = nn.Conv2d(1, 12, 3)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(12 * 13 * 13, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.quant(x)
        x = self.pool(self.relu(self.conv(x)))
        x = self.dense(self.flatten(x))
        logits: torch.Tensor = self.dequant(x)
        return logits


def build_network(seed: int) -> Network:
    """A network with PyTorch's own initial weights drawn from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network()


def read_weights(model: Network) -> dict[str, np.ndarray]:
    """The trained arrays of a float network, float32, named and shaped as in `PARAMETERS`."""
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def write_weights(model: Network, weights: Mapping[str, np.ndarray]) -> None:
    """Put trained arrays into a float network.

    Raises `BridgeError` when a name, a shape or a value (NaN, infinity) is wrong.
    """
    if set(weights) != set(PARAMETERS):
        raise BridgeError(
            where="weights of the PyTorch network",
            problem=f"expected {sorted(PARAMETERS)}, got {sorted(weights)}",
            remedy="Pass exactly the arrays that `read_weights` returns.",
        )
    for name, shape in PARAMETERS.items():
        array = np.asarray(weights[name])
        if array.shape != shape or not np.isfinite(array).all():
            raise BridgeError(
                where=f"weight '{name}' of the PyTorch network",
                problem=f"expected finite values of shape {shape}, got shape {array.shape}",
                remedy="Train again; a diverged training leaves NaN behind.",
            )
    model.load_state_dict({name: torch.from_numpy(np.array(weights[name], np.float32)) for name in PARAMETERS})
