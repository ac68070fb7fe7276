"""A mean that a .tflite computes in slices of its range, put together again with the layer that reads them.

    slice i  =  clip(mean - start - i * 255 s, 0, 255 s),  a depthwise convolution over the whole map
    mean     =  start + the sum of all slices

The exact bridge writes a mean without a trained scale so. The layer behind has its weights once for each slice, and
start * the sum of its weights in its bias.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compare.explaining.side_by_side.layers import Layer, Network, Weights
from compare.explaining.side_by_side.tflite_side import TfliteSide

_STEPS = 255
_LOST = 1e-4
"""Relative; what float32 loses of 1 / n and of a bias."""


def put_together(side: TfliteSide, network: Network) -> tuple[Network, frozenset[int], tuple[tuple[Layer, str], ...]]:
    """The network with every such layer reading the mean's input, the indices of the slices, and what is wrong of them."""
    makers = {layer.output: index for index, layer in enumerate(network.layers)}
    layers = list(network.layers)
    absorbed: set[int] = set()
    wrong: list[tuple[Layer, str]] = []
    for index, layer in enumerate(network.layers):
        parts = [makers.get(name) for name in _concatenated(side, layer.source)]
        slices = [network.layers[part] for part in parts if part is not None]
        if not slices or len(slices) < len(parts) or not _are_slices(side, slices, layer):
            continue
        made, problem = _with_whole_mean(layer, slices)
        layers[index] = made
        absorbed.update(part for part in parts if part is not None)
        if problem:
            wrong.append((made, problem))
    return replace(network, layers=tuple(layers)), frozenset(absorbed), tuple(wrong)


def _concatenated(side: TfliteSide, name: str) -> tuple[str, ...]:
    """What a tensor puts together, behind a RESHAPE or not; itself where it is one piece."""
    node = side.producers.get(name)
    while node is not None and node.op in ("RESHAPE", "SQUEEZE"):
        name = node.inputs[0]
        node = side.producers.get(name)
    return tuple(node.inputs) if node is not None and node.op == "CONCATENATION" else (name,)


def _are_slices(side: TfliteSide, slices: list[Layer], layer: Layer) -> bool:
    """Whether all are depthwise convolutions of one tensor over its whole map, and the layer reads just their channels."""
    shape = side.graph.tensors[slices[0].source].shape
    return (
        len(shape) == 4
        and shape[1] * shape[2] > 1
        and all(
            each.op == "DEPTHWISE_CONV_2D"
            and each.source == slices[0].source
            and each.weights.real.shape == (shape[3], *shape[1:3], 1)
            and each.extent == (1, 1)
            for each in slices
        )
        and (len(slices) > 1 or not _uneven(slices[0]))
        and layer.weights.real[0].size == layer.weights.real.shape[-1] == len(slices) * shape[3]
    )


def _uneven(layer: Layer) -> bool:
    """Whether a depthwise convolution over a whole map is no average of it."""
    taps = int(np.prod(layer.weights.real.shape[1:]))
    return bool((np.abs(layer.weights.real * taps - 1) > _LOST).any())


def _with_whole_mean(layer: Layer, slices: list[Layer]) -> tuple[Layer, str]:
    """The layer as it would read the mean, channel by channel; and what is not as slices must be."""
    count, channels = len(slices), slices[0].channels
    real = layer.weights.real.reshape(layer.channels, count, channels)
    step: np.ndarray | None = None
    if layer.weights.step is not None:
        step = np.broadcast_to(layer.weights.step, layer.weights.real.shape).reshape(real.shape)[:, 0]
    problem = ""
    if not (real == real[:, :1]).all():
        problem = "its weights are not the same for every slice of the mean"
    if any(map(_uneven, slices)):
        problem = "a slice of the mean does not count all elements alike"
    biases = [each.bias for each in slices if each.bias is not None]
    grids = {grid for each in slices for grid in each.output_grids[:1]}
    start = np.zeros(channels) if not biases else -np.asarray(biases[0])
    if len(biases) < count or len(grids) != 1:
        problem = problem or "the slices of the mean have several scales"
    else:
        (grid,) = grids
        for place, (each, bias) in enumerate(zip(slices, biases, strict=True)):
            room = _LOST * np.abs(bias) + (0 if each.bias_step is None else 1.5 * each.bias_step)
            if (np.abs(bias + start + place * _STEPS * grid.scale) > room + _LOST * grid.scale).any():
                problem = problem or f"slice {place} of the mean does not begin where the one before ends"
    whole = None if layer.bias is None else layer.bias - (real[:, 0] * start).sum(axis=1)
    return (
        replace(
            layer,
            weights=Weights(real[:, 0], step),
            bias=whole,
            source=slices[0].source,
            source_grid=None,
            by_channel=True,
            strides=(),
            dilations=(),
            pads=None,
            tensors=(*layer.tensors, *(name for each in slices for name in each.tensors)),
        ),
        problem,
    )
