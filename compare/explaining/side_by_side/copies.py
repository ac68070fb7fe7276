"""Channels that a .tflite hands on twice, put together again: the two weights that meet one channel are one.

The exact bridge writes a weight of -128 as -127 and -1 where -128 is unsafe and an average is taken into the layer: a
1x1 convolution copies the channel, and the layer reads the channels and their copies side by side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compare.explaining.side_by_side.layers import Layer, Network, Weights
from compare.explaining.side_by_side.tflite_side import TfliteSide

_LOST = 1e-4
"""Relative; what float32 loses of a factor of one."""


def without_copies(side: TfliteSide, network: Network) -> tuple[Network, frozenset[int]]:
    """The network with every layer that reads channels and their copies reading each once; the indices of the copies."""
    makers = {layer.output: index for index, layer in enumerate(network.layers)}
    layers = list(network.layers)
    absorbed: set[int] = set()
    for index, layer in enumerate(network.layers):
        name = layer.source
        node = side.producers.get(name)
        while node is not None and node.op in ("RESHAPE", "SQUEEZE"):
            name = node.inputs[0]
            node = side.producers.get(name)
        if node is None or node.op != "CONCATENATION" or len(node.inputs) != 2:
            continue
        maker = makers.get(node.inputs[1])
        if maker is None or network.layers[maker].source != node.inputs[0]:
            continue
        channels = side.graph.tensors[node.inputs[0]].shape[-1]
        chosen = _chosen(network.layers[maker], channels)
        if chosen is None:
            continue
        folded = _folded(layer.weights, channels, chosen)
        if folded is not None:
            grid = side.grid(node.inputs[0])
            layers[index] = replace(layer, weights=folded, source=node.inputs[0], source_grid=grid)
            absorbed.add(maker)
    return replace(network, layers=tuple(layers)), frozenset(absorbed)


def _chosen(layer: Layer, channels: int) -> np.ndarray | None:
    """Which channel each output of a 1x1 convolution is a copy of; None where it is anything else."""
    real = layer.weights.real
    if real.size != layer.channels * channels or real.shape[-1] != channels or layer.bias is None or layer.bias.any():
        return None
    rows = real.reshape(layer.channels, channels)
    copies = (np.abs(rows - 1) < _LOST).sum(axis=1) == 1
    alone = (rows != 0).sum(axis=1) == 1
    return rows.argmax(axis=1) if bool((copies & alone).all()) else None


def _folded(weights: Weights, channels: int, chosen: np.ndarray) -> Weights | None:
    """Weights over the channels alone; a dense layer's columns hold channels and copies for each place of the map."""
    wide = channels + len(chosen)
    if weights.real.shape[-1] % wide:
        return None
    shape = (*weights.real.shape[:-1], weights.real.shape[-1] // wide, wide)
    real = weights.real.reshape(shape)
    once = real[..., :channels].copy()
    for copy, channel in enumerate(chosen.tolist()):
        once[..., channel] += real[..., channels + copy]
    step = None
    if weights.step is not None:
        step = np.broadcast_to(weights.step, weights.real.shape).reshape(shape)[..., :channels]
        step = step.reshape(*weights.real.shape[:-1], -1)
    return Weights(once.reshape(*weights.real.shape[:-1], -1), step)
