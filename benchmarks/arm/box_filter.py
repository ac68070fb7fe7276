"""The network that a user would train, and that ARM computes wrongly as it was trained: a box filter with negative weights.

A 1x1 convolution, a ReLU, and a depthwise 3x3 whose first six of 16 channels start as a box filter times -1, trained with
qconfig `qnnpack`. Its weight observer takes -128..127 and absmax / 127.5: the largest magnitude, negative, becomes -128,
nine times in a channel; and behind a ReLU a plain zero is the input code -128.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from bridge.exact.convert import Conversion, Options, convert
from bridge.exact.graph import Graph
from bridge.exact.pair_sums import Weights
from bridge.verifying import batches as batching
from torch_side import bias_grid, export
from torch_side.training import expected_warnings

CHANNELS, BOXES, SIZE = 16, 6, 16
STEPS, BATCH = 60, 8


class BoxFilter(torch.nn.Module):
    """Image (N, 3, 16, 16) to features (N, 16, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.mix, self.relu = torch.nn.Conv2d(3, CHANNELS, 1), torch.nn.ReLU()
        self.filter = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        with torch.no_grad():
            self.filter.weight[:BOXES] = -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.dequant(self.filter(self.relu(self.mix(self.quant(x)))))
        return made


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def trained(seed: int = 0) -> torch.nn.Module:
    """Prepared with `qnnpack` and trained towards its own float self, then frozen: a fake-quant model."""
    with torch.random.fork_rng(devices=[]), expected_warnings():
        torch.manual_seed(seed)
        network, teacher = BoxFilter(), BoxFilter()
        teacher.load_state_dict(network.state_dict())
        network.train()
        network.qconfig = torch.ao.quantization.get_default_qat_qconfig("qnnpack")
        torch.ao.quantization.fuse_modules_qat(network, [["mix", "relu"]], inplace=True)
        torch.ao.quantization.prepare_qat(network, inplace=True)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
        for step in range(STEPS):
            batch = images(BATCH, seed + step)
            loss = torch.nn.functional.mse_loss(network(batch), teacher(batch).detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        frozen = export.freeze(network)
        bias_grid.round_frozen(frozen, (np.zeros((1, 3, SIZE, SIZE), np.float32),))
    return frozen


def conversion(network: torch.nn.Module, weights: Weights) -> Conversion:
    """The network through the exact bridge."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.export_onnx(network, (np.zeros((1, 3, SIZE, SIZE), np.float32),), path)
        return convert(path, Options(weights=weights))


def codes(
    network: torch.nn.Module, weights: Weights, photos: torch.Tensor
) -> tuple[dict[str, np.ndarray], np.ndarray, Graph]:
    """Input codes by name and the fake-quant model's answer in output codes, samples along the first axis; the graph."""
    graph = conversion(network, weights).graph
    (given,), (made,) = graph.inputs, graph.outputs
    fed = np.stack([batching.codes(graph.tensors[given], photo[None].numpy()) for photo in photos])
    expected = np.stack([batching.codes(graph.tensors[made], each[None]) for each in said(network, photos)])
    return {given: fed}, expected, graph


def said(network: torch.nn.Module, photos: torch.Tensor) -> np.ndarray:
    """What the fake-quant model says, float32 (N, 16, 16, 16), channels first."""
    with torch.no_grad():
        features: np.ndarray = network(photos).numpy()
    return features
