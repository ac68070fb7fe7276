"""A mean in several slices of its range, for where the layer behind it cannot hold the whole map (passes/merge.py).

A mean of n codes in low..high is a whole number of steps of scale / n. One int8 tensor has 255 steps for its range; k
tensors have k times as many, each step m of those:

    slice i  =  clip(mean - start - i * 255 s, 0, 255 s)      s = m * scale / n, code -128 is 0
    mean     =  start + the sum of all slices

Every slice is a depthwise convolution over the map, whose weights average and whose bias takes the beginning off; int8
saturation is the clip. All but one slice of a mean are at one end of theirs, exactly, so that the rounding of one step
of s is all that is lost, and nothing where m is 1. m is a whole number, or small means would all be off to the same
side; and odd, or ties would be. The layer behind reads the slices side by side, its weights repeated k times, its bias
larger by start * the sum of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridge.exact.graph import Node, QParams, Tensor, constant, per_tensor
from bridge.exact.names import free_name

STEPS = 255

Made = tuple[tuple[Node, ...], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Slices:
    """How a mean of `count` codes in low..high is cut."""

    given: QParams
    low: int
    count: int
    number: int
    multiple: int
    """m: of the steps that the mean comes in."""

    @property
    def scale(self) -> float:
        return float(self.given.scale) * self.multiple / self.count

    @property
    def start(self) -> float:
        """Where the first slice begins, in real numbers."""
        return float(self.given.scale) * (self.low - int(self.given.zero_point))

    @property
    def off(self) -> float:
        """By how much the sum of all slices misses the mean at most."""
        return self.scale * (self.multiple // 2) / self.multiple


def cut(given: QParams, low: int, high: int, count: int, most: int) -> Slices:
    """The finest steps for which `most` slices are enough, in as few slices as these take."""
    multiple = -(-count * (high - low) // (STEPS * most)) | 1
    return Slices(given, low, count, -(-count * (high - low) // (STEPS * multiple)), multiple)


def sliced(name: str, x: Tensor, slices: Slices) -> Made:
    """x (N, C, H, W) to its means, (N, slices * C, 1, 1): the last tensor made; slice i of channel c is i * C + c."""
    samples, channels, *window = x.shape
    scale, number = slices.scale, slices.number
    qparams = per_tensor(scale, -128)
    averaging = np.full((channels, 1, *window), 127, np.int8)
    weight = constant(free_name(f"{name}/weight"), averaging, per_tensor(1.0 / (127 * int(np.prod(window))), 0))
    attrs = {"kernel_shape": window, "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "group": channels}
    int8, shape = np.dtype(np.int8), (samples, channels, 1, 1)
    nodes: list[Node] = []
    parts: list[Tensor] = []
    biases: list[Tensor] = []
    for index in range(number):
        begins = np.full(channels, -(slices.start + index * STEPS * scale), np.float32)
        biases.append(constant(free_name(f"{name}/{index}/bias"), begins))
        parts.append(Tensor(free_name(f"{name}/{index}"), shape, int8, None, qparams))
        operands = (x.name, weight.name, biases[-1].name)
        nodes.append(Node("Conv", free_name(f"{name}/{index}"), operands, (parts[-1].name,), attrs))
    together = Tensor(free_name(f"{name}/slices"), (samples, number * channels, 1, 1), int8, None, qparams)
    names = tuple(part.name for part in parts)
    nodes.append(Node("Concat", free_name(name), names, (together.name,), {"axis": 1}))
    return tuple(nodes), (weight, *biases, *parts, together)


def added_bytes(channels: int, window: tuple[int, ...], slices: int) -> int:
    """Of the weights and biases of the slices themselves."""
    return slices * channels * (int(np.prod(window)) + 4)
