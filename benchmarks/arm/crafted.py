"""One-operator files whose weights are half -128, on inputs that are half -128: what the rule is about, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bridge.exact.graph import Graph, Node, QParams, Tensor, constant, per_tensor

SAMPLES = 8
CHANNELS = (4, 16, 40)
_WINDOW = {"padding": "SAME", "stride_h": 1, "stride_w": 1, "fused_activation": "NONE"}
_DILATION = {"dilation_h_factor": 1, "dilation_w_factor": 1}
_BLANK = np.dtype(np.int8)


@dataclass(frozen=True, eq=False)
class Crafted:
    """A file and its inputs, samples along the first axis."""

    op: str
    graph: Graph
    inputs: dict[str, np.ndarray]


def files(seed: int) -> Iterator[Crafted]:
    """Every operator that multiplies by a weight, with 4, 16 and 40 input channels."""
    random = np.random.default_rng(seed)
    for channels in CHANNELS:
        yield _convolution(random, "CONV_2D", (8, 3, 3, channels), 0)
        yield _convolution(random, "CONV_2D", (8, 1, 1, channels), 0)
        yield _convolution(random, "DEPTHWISE_CONV_2D", (1, 3, 3, channels), 3)
        yield _convolution(random, "DEPTHWISE_CONV_2D", (1, 5, 5, channels), 3)
        yield _transposed(random, channels)
        yield _dense(random, channels)
        yield _product(random, channels)


def lowest_half(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """int8 codes, half of them -128, the rest anything."""
    codes = random.integers(-128, 128, shape)
    return np.where(random.random(shape) < 0.5, -128, codes).astype(np.int8)


def _activation(name: str, shape: tuple[int, ...], scale: float, zero_point: int) -> Tensor:
    return Tensor(name, shape, _BLANK, None, per_tensor(scale, zero_point))


def _weights(random: np.random.Generator, shape: tuple[int, ...], axis: int) -> tuple[Tensor, Tensor, float]:
    """Weight, bias, and an output scale at which the sums neither vanish nor saturate."""
    count = shape[axis]
    scales = QParams(np.full(count, 0.01, np.float32), np.zeros(count, np.int32), axis)
    biases = QParams(np.full(count, 0.0002, np.float32), np.zeros(count, np.int32), 0)
    weight = constant("w", lowest_half(random, shape), scales)
    sums = int(np.prod(shape)) // count
    return weight, constant("b", np.zeros(count, np.int32), biases), 0.05 * sums**0.5


def _one(op: str, node: Node, tensors: tuple[Tensor, ...], random: np.random.Generator, *fed: Tensor) -> Crafted:
    graph = Graph((node,), {tensor.name: tensor for tensor in tensors}, tuple(each.name for each in fed), ("y",))
    return Crafted(op, graph, {each.name: lowest_half(random, (SAMPLES, *each.shape)) for each in fed})


def _convolution(random: np.random.Generator, op: str, shape: tuple[int, ...], axis: int) -> Crafted:
    x = _activation("x", (1, 6, 6, shape[3]), 0.02, -128)
    weight, bias, scale = _weights(random, shape, axis)
    y = _activation("y", (1, 6, 6, shape[axis]), scale, 0)
    more = {"depth_multiplier": 1} if op == "DEPTHWISE_CONV_2D" else {}
    node = Node(op, "node", ("x", "w", "b"), ("y",), {**_WINDOW, **_DILATION, **more})
    return _one(op, node, (x, weight, bias, y), random, x)


def _transposed(random: np.random.Generator, channels: int) -> Crafted:
    x, y_shape = _activation("x", (1, 6, 6, channels), 0.02, -128), (1, 13, 13, 8)
    weight, bias, scale = _weights(random, (8, 3, 3, channels), 0)
    shape = constant("shape", np.array(y_shape, np.int32))
    attrs = {**_WINDOW, "padding": "VALID", "stride_h": 2, "stride_w": 2}
    node = Node("TRANSPOSE_CONV", "node", ("shape", "w", "x", "b"), ("y",), attrs)
    return _one("TRANSPOSE_CONV", node, (shape, weight, x, bias, _activation("y", y_shape, scale, 0)), random, x)


def _dense(random: np.random.Generator, channels: int) -> Crafted:
    x = _activation("x", (3, channels), 0.02, -128)
    weight, bias, scale = _weights(random, (10, channels), 0)
    node = Node("FULLY_CONNECTED", "node", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    return _one("FULLY_CONNECTED", node, (x, weight, bias, _activation("y", (3, 10), scale, 0)), random, x)


def _product(random: np.random.Generator, channels: int) -> Crafted:
    a, b = _activation("a", (2, 4, channels), 0.02, -128), _activation("b", (2, channels, 9), 0.01, 0)
    node = Node("BATCH_MATMUL", "node", ("a", "b"), ("y",))
    y = _activation("y", (2, 4, 9), 0.05 * channels**0.5, 0)
    return _one("BATCH_MATMUL", node, (a, b, y), random, a, b)
