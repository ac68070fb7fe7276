"""What is constant in an ONNX graph: computed by onnx's own reference implementation, with the step of its codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bridge.exact.graph import Graph, Node

_LARGEST = 2**28
"""Elements; a constant beyond that is not a weight that a small chip could hold."""

MOVING = frozenset(
    ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Split", "Dropout")
)
"""Operators whose output holds elements of their first input, unchanged."""


_CANNOT_TELL = (
    ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, NotImplementedError, RuntimeError, TypeError,
    ValueError, onnx.checker.ValidationError,
)  # fmt: skip
"""What onnx.reference raises for an operator of a stranger's file that it cannot compute."""


class Constants:
    """Constants of a graph as the bridge's reader leaves it, nothing folded; each is computed once, when asked for.

    Independent of the bridge's own folding, so that a defect there is seen here.
    """

    def __init__(self, graph: Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._producers = graph.producers()
        self._constant = {name for name, tensor in graph.tensors.items() if tensor.is_constant}
        for node in graph.nodes:
            if any(node.inputs) and all(name in self._constant for name in node.inputs if name):
                self._constant.update(node.outputs)
        self._known: dict[str, tuple[np.ndarray, np.ndarray | None] | None] = {}

    def __contains__(self, name: str) -> bool:
        return self._found(name) is not None

    def value(self, name: str) -> np.ndarray | None:
        """The numbers of a constant; None for what is computed when the model runs."""
        found = self._found(name)
        return None if found is None else found[0]

    def step(self, name: str) -> np.ndarray | None:
        """The distance of two codes at each element, where the constant comes out of a DequantizeLinear."""
        found = self._found(name)
        return None if found is None else found[1]

    def _found(self, name: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        waiting = [(name, False)]
        while waiting:  # not by recursion: a chain of constants can be long
            current, operands_known = waiting.pop()
            if current in self._known:
                continue
            node = self._producers.get(current) if current in self._constant else None
            if node is None or operands_known:
                self._known[current] = self._computed(current) if current in self._constant else None
                continue
            waiting.append((current, True))
            waiting += [(operand, False) for operand in node.inputs if operand]
        return self._known[name]

    def _computed(self, name: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        tensor = self._graph.tensors.get(name)
        if tensor is not None and tensor.data is not None:
            return tensor.data, None
        node = self._producers.get(name)
        if node is None or name != node.outputs[0] or not node.inputs:
            return None
        operands = [self._known.get(each) if each else (None, None) for each in node.inputs]
        if any(operand is None for operand in operands):
            return None
        arrays = [None if operand is None else operand[0] for operand in operands]
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return _quantization(node, arrays)
        step = operands[0][1] if operands[0] is not None else None
        found = self.run(node, arrays)
        if found is None:
            return None
        moved = None
        if step is not None and node.op in MOVING:
            steps = self.run(node, [step, *arrays[1:]])
            moved = None if steps is None else steps[0]
        return found[0], moved

    def run(self, node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray] | None:
        """The outputs of one operator on these inputs, a missing one None; None where the reference cannot tell."""
        names = [f"x{place}" if array is not None else "" for place, array in enumerate(arrays)]
        outputs = [f"y{place}" for place in range(len(node.outputs))]
        sizes = [array.size for array in arrays if array is not None]
        if max(sizes, default=0) > _LARGEST:
            return None
        try:
            made = helper.make_node(node.op, names, outputs, **_attributes(node))
            values = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in zip(names, arrays, strict=True)
                if array is not None
            ]
            graph = helper.make_graph([made], "one", values, [onnx.ValueInfoProto(name=name) for name in outputs])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
            from onnx.reference import ReferenceEvaluator

            feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
            return [np.asarray(each) for each in ReferenceEvaluator(model).run(None, feeds)]
        except _CANNOT_TELL:
            return None


def _attributes(node: Node) -> dict[str, Any]:
    return {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attrs.items()
    }


def quantization_of(
    node: Node, arrays: Sequence[np.ndarray | None], shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and zero point of a Q/DQ node, float64, shaped to broadcast with its tensor; None where they do not fit."""
    scale = arrays[1] if len(arrays) > 1 else None
    zero = arrays[2] if len(arrays) > 2 else None
    if scale is None or node.attrs.get("block_size", 0):
        return None
    where = [1] * len(shape)
    if scale.size > 1:
        axis = int(node.attrs.get("axis", 1))
        axis += len(shape) if axis < 0 else 0
        if not 0 <= axis < len(shape) or shape[axis] != scale.size:
            return None
        where[axis] = scale.size
    zeros = np.zeros(scale.size) if zero is None else np.asarray(zero, np.float64).reshape(-1)
    if zeros.size != scale.size:
        return None
    return np.asarray(scale, np.float64).reshape(where), zeros.reshape(where)


def _quantization(node: Node, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray | None] | None:
    x = arrays[0]
    found = None if x is None else quantization_of(node, arrays, x.shape)
    if x is None or found is None:
        return None
    scale, zero = found
    if node.op == "DequantizeLinear":
        real = (x.astype(np.float64) - zero) * scale
        exact = x.dtype == np.int32  # a bias: float32 would lose the last codes of a large one
        return (real if exact else real.astype(np.float32)).reshape(x.shape), np.broadcast_to(scale, x.shape)
    dtype = np.dtype(np.uint8) if len(arrays) < 3 or arrays[2] is None else arrays[2].dtype
    if dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    codes = np.rint(x.astype(np.float32) / scale.astype(np.float32)) + zero
    return np.clip(codes, limits.min, limits.max).astype(dtype).reshape(x.shape), None
