"""A .tflite with something in it changed: what a faulty converter writes, and what a damaged disk leaves."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.fuzzing.onnx_mutants import Random, Unsuitable, pick
from bridge.exact.graph import Graph, Node, QParams, Tensor
from bridge.exact.writer import write
from compare.tflite.graph import open_tflite

Change = Callable[[Graph, Random], Graph]

CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__] = function
    return function


def mutant(tflite: bytes, random: Random) -> tuple[bytes, str]:
    """The bytes of a changed copy, and the name of what was done to it."""
    if random.random() < 0.4:
        return _damaged(tflite, random)
    graph = open_tflite(tflite).graph
    for _ in range(20):
        name = pick(tuple(CHANGES), random)
        try:
            return write(CHANGES[name](graph, random)), name
        except (Unsuitable, AssertionError, ValueError, TypeError, KeyError):
            continue
    return _damaged(tflite, random)


_NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**16, 2**31 - 1, -(2**31), 0x7FC00000)


def _damaged(tflite: bytes, random: Random) -> tuple[bytes, str]:
    data = bytearray(tflite)
    way = random.random()
    if way < 0.15:
        return tflite[: int(random.integers(len(tflite)))], "cut short"
    if way < 0.5:
        for _ in range(int(random.integers(1, 9))):
            data[int(random.integers(len(data)))] = int(random.integers(256))
        return bytes(data), "bytes changed"
    for _ in range(int(random.integers(1, 3))):
        place = 4 * int(random.integers(len(data) // 4))
        data[place : place + 4] = struct.pack("<I", pick(_NUMBERS, random) & 0xFFFFFFFF)
    return bytes(data), "numbers changed"


# Constants


def _constants(graph: Graph, dtype: type, least: int = 2) -> list[Tensor]:
    return [t for t in graph.tensors.values() if t.data is not None and t.dtype == dtype and t.data.size >= least]


def _with(graph: Graph, *tensors: Tensor) -> Graph:
    return replace(graph, tensors={**graph.tensors, **{tensor.name: tensor for tensor in tensors}})


def _different(tensor: Tensor, data: np.ndarray) -> Tensor:
    data = np.ascontiguousarray(data)
    if np.array_equal(data, tensor.values):
        raise Unsuitable
    return replace(tensor, data=data)


def _biases(graph: Graph) -> list[Tensor]:
    return [tensor for tensor in _constants(graph, np.int32) if tensor.qparams is not None]


@change
def bias_reversed(graph: Graph, random: Random) -> Graph:
    tensor = pick(_biases(graph), random)
    return _with(graph, _different(tensor, tensor.values[::-1]))


@change
def bias_lost(graph: Graph, random: Random) -> Graph:
    tensor = pick(_biases(graph), random)
    return _with(graph, _different(tensor, np.zeros_like(tensor.values)))


@change
def weights_rolled(graph: Graph, random: Random) -> Graph:
    tensor = pick(_constants(graph, np.int8), random)
    axis = int(random.integers(tensor.values.ndim))
    return _with(graph, _different(tensor, np.roll(tensor.values, 1, axis)))


@change
def weights_negated(graph: Graph, random: Random) -> Graph:
    tensor = pick(_constants(graph, np.int8), random)
    return _with(graph, _different(tensor, -np.maximum(tensor.values, np.int8(-127))))


@change
def weight_tap_lost(graph: Graph, random: Random) -> Graph:
    tensor = pick(_constants(graph, np.int8), random)
    data = tensor.values.copy()
    data.reshape(-1)[int(random.integers(data.size))] = 0
    return _with(graph, _different(tensor, data))


# Parameters


def _scaled(q: QParams, factor: float) -> QParams:
    return replace(q, scale=(q.scale * np.float32(factor)).astype(np.float32))


@change
def scale_changed(graph: Graph, random: Random) -> Graph:
    tensor = pick([t for t in graph.tensors.values() if t.qparams is not None], random)
    return _with(graph, replace(tensor, qparams=_scaled(tensor.q, pick((2.0, 0.5, 1.1, 1e-3), random))))


@change
def scales_reversed(graph: Graph, random: Random) -> Graph:
    tensor = pick([t for t in graph.tensors.values() if t.qparams is not None and t.q.axis is not None], random)
    if np.array_equal(tensor.q.scale, tensor.q.scale[::-1]):
        raise Unsuitable
    return _with(graph, replace(tensor, qparams=replace(tensor.q, scale=tensor.q.scale[::-1].copy())))


@change
def zero_point_moved(graph: Graph, random: Random) -> Graph:
    tensor = pick([t for t in graph.tensors.values() if t.qparams is not None and t.dtype == np.int8], random)
    by = np.int32(pick((1, -1, 5, -128, 128), random))
    moved = np.clip(tensor.q.zero_point + by, -128, 127).astype(np.int32).reshape(tensor.q.zero_point.shape)
    return _with(graph, replace(tensor, qparams=replace(tensor.q, zero_point=moved)))


# Structure


def _node_changed(graph: Graph, old: Node, new: Node) -> Graph:
    if old == new:
        raise Unsuitable
    return replace(graph, nodes=tuple(new if node is old else node for node in graph.nodes))


@change
def option_changed(graph: Graph, random: Random) -> Graph:
    node = pick([node for node in graph.nodes if node.attrs], random)
    name = pick(sorted(node.attrs), random)
    value = node.attrs[name]
    others: dict[str, tuple[object, ...]] = {
        "padding": ("SAME", "VALID"),
        "fused_activation": ("NONE", "RELU", "RELU6", "RELU_N1_TO_1"),
        "mode": ("REFLECT", "SYMMETRIC"),
    }
    choices = others.get(name, (0, 1, 2, 3, -1) if not isinstance(value, bool) else (True, False))
    return _node_changed(graph, node, replace(node, attrs={**node.attrs, name: pick(choices, random)}))


@change
def operands_swapped(graph: Graph, random: Random) -> Graph:
    node = pick([node for node in graph.nodes if len(node.inputs) > 1 and len(set(node.inputs)) > 1], random)
    i, j = random.choice(len(node.inputs), 2, replace=False)
    inputs = list(node.inputs)
    inputs[i], inputs[j] = inputs[j], inputs[i]
    return _node_changed(graph, node, replace(node, inputs=tuple(inputs)))


@change
def input_replaced(graph: Graph, random: Random) -> Graph:
    node = pick([node for node in graph.nodes if node.inputs], random)
    inputs = list(node.inputs)
    inputs[int(random.integers(len(inputs)))] = pick(sorted(graph.tensors), random)
    return _node_changed(graph, node, replace(node, inputs=tuple(inputs)))


@change
def operator_changed(graph: Graph, random: Random) -> Graph:
    alike = (("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"), ("LOGISTIC", "TANH", "RELU", "RELU6", "HARD_SWISH"))
    group = pick(alike, random)
    node = pick([node for node in graph.nodes if node.op in group], random)
    return _node_changed(graph, node, replace(node, op=pick(group, random), attrs={}))


@change
def operator_lost(graph: Graph, random: Random) -> Graph:
    node = pick([node for node in graph.nodes if node.inputs and len(node.outputs) == 1], random)
    source = pick([name for name in node.inputs if name and not graph.tensors[name].is_constant], random)
    if graph.tensors[source].shape != graph.output(node).shape:
        raise Unsuitable
    others = tuple(
        replace(each, inputs=tuple(source if name == node.outputs[0] else name for name in each.inputs))
        for each in graph.nodes
        if each is not node
    )
    outputs = tuple(source if name == node.outputs[0] else name for name in graph.outputs)
    return replace(graph, nodes=others, outputs=outputs)


@change
def shape_lies(graph: Graph, random: Random) -> Graph:
    tensor = pick([t for t in graph.tensors.values() if t.data is None and t.shape], random)
    shape = list(tensor.shape)
    shape[int(random.integers(len(shape)))] = int(pick((0, 1, 3, 1000, -1, 2**31 - 1), random))
    return _with(graph, replace(tensor, shape=tuple(shape)))
