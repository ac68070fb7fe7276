"""What the caller hands in and gets back: int8, uint8 or float32 at the model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from bridge.exact.graph import Graph, Node, Note, QParams, Tensor, add_made, per_tensor
from bridge.exact.lowering.activation import clamp
from bridge.exact.names import free_name

IODtype = Literal["int8", "uint8", "float32"]


def with_io(graph: Graph, dtype: IODtype) -> Graph:
    """A lowered graph whose int8 inputs and outputs are `dtype`, with QUANTIZE or DEQUANTIZE at the border.

    uint8 has zero point 128 higher and the same scale; inputs and outputs that stayed float are left as they are.
    """
    notes = tuple(_fed(graph, dtype))
    graph = replace(graph, notes=(*graph.notes, *notes)) if notes else graph
    if dtype == "int8":
        return graph
    tensors = dict(graph.tensors)
    first: list[Node] = []
    last: list[Node] = []
    inner = {
        name: free_name(f"{name}/int8")
        for name in dict.fromkeys((*graph.inputs, *graph.outputs))
        if graph.tensors[name].qparams is not None
    }
    for name, moved in inner.items():
        add_made(tensors, replace(graph.tensors[name], name=moved))
        tensors[name] = _outside(graph.tensors[name], dtype)
    nodes = tuple(
        replace(
            node,
            inputs=tuple(inner.get(name, name) for name in node.inputs),
            outputs=tuple(inner.get(name, name) for name in node.outputs),
        )
        for node in graph.nodes
    )
    for name in graph.inputs:
        if name in inner:
            nodes_in, tensors_in = _entering(name, tensors[inner[name]], dtype)
            first += nodes_in
            add_made(tensors, *tensors_in)
    leave = "DEQUANTIZE" if dtype == "float32" else "QUANTIZE"
    made = {name for node in first for name in node.outputs}
    last += [
        Node(leave, free_name(f"{name}/out"), (inner[name],), (name,))
        for name in dict.fromkeys(graph.outputs)
        if name in inner and inner[name] not in made and not tensors[name].is_constant
    ]
    return replace(graph, nodes=(*first, *nodes, *last), tensors=tensors)


def _fed(graph: Graph, dtype: IODtype) -> Iterator[Note]:
    """A model input of codes that training clamped: whoever quantizes for it has to clamp, too.

    Not for `float32`, where the file quantizes and clamps itself.
    """
    shift = 128 if dtype == "uint8" else 0
    for name in graph.inputs:
        q = graph.tensors[name].qparams
        if dtype != "float32" and q is not None and (q.qmin, q.qmax) != (-128, 127):
            yield Note("fed", f"input '{name}'", f"feed codes from {q.qmin + shift} to {q.qmax + shift} only")


def _entering(name: str, x: Tensor, dtype: IODtype) -> tuple[tuple[Node, ...], tuple[Tensor, ...]]:
    """QUANTIZE, and for real numbers the clamp that training put on them; codes are clamped by who quantized them."""
    clamped = (x.q.qmin, x.q.qmax) != (-128, 127)
    if dtype != "float32" or not clamped:
        return (Node("QUANTIZE", free_name(f"{name}/in"), (name,), (x.name,)),), ()
    before = replace(
        x, name=free_name(f"{name}/unclamped"), origin=None, qparams=per_tensor(x.q.scale, int(x.q.zero_point))
    )
    limits = clamp(free_name(f"{name}/clamp"), before, x)
    quantize = Node("QUANTIZE", free_name(f"{name}/in"), (name,), (before.name,))
    return (quantize, *limits.nodes), (before, *limits.tensors)


def _outside(tensor: Tensor, dtype: IODtype) -> Tensor:
    """What the caller sees; a constant is there as it is (XNNPACK does not set up a DEQUANTIZE of one)."""
    if dtype == "float32":
        data = None if tensor.data is None else tensor.real
        return replace(tensor, dtype=np.dtype(np.float32), data=data, qparams=None)
    q = tensor.q
    return replace(
        tensor,
        dtype=np.dtype(np.uint8),
        data=None if tensor.data is None else (tensor.data.astype(np.int16) + 128).astype(np.uint8),
        qparams=QParams(q.scale, np.asarray(q.zero_point + np.int32(128)), q.axis, q.qmin + 128, q.qmax + 128),
    )
