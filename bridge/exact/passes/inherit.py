"""Tensors that training gave no scale of their own: where algebra or TFLite decides it, they get it here.

forward    a rearrangement, a maximum, a limit of codes is still on the grid of its input      exact
backward   rounding commutes with rearrangements, maxima and limits                            exact
averages   keep the scale of their input, as PyTorch's int8 engine computes them               its rounding
fixed      softmax, sigmoid and tanh have one output scale in TFLite                           prescribed
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.exact.graph import Graph, Node, Note, QParams, Tensor, per_tensor

PRESERVING = {"MaxPool", "Reshape", "Transpose", "Slice", "Split", "Pad", "Limit", "Concat", "Gather", "Expand"}
"""Operators whose outputs are a choice among their inputs' values."""

_AVERAGING = {"AveragePool", "Mean"}

FIXED = {
    "Softmax": per_tensor(1 / 256, -128),
    "Sigmoid": per_tensor(1 / 256, -128),
    "Tanh": per_tensor(1 / 128, 0),
}
"""TFLite 8-bit quantization specification: SOFTMAX, LOGISTIC and TANH have these output parameters and no others."""


def inherit(graph: Graph) -> Graph:
    """Give every tensor its parameters that can have them without estimating anything."""
    tensors = dict(graph.tensors)
    notes: list[Note] = []
    reads = {name: len(readers) for name, readers in graph.consumers().items()}
    while _forward(graph, tensors, notes) | _backward(graph, tensors, reads):
        pass
    return replace(graph, tensors=tensors, notes=(*graph.notes, *notes))


def _forward(graph: Graph, tensors: dict[str, Tensor], notes: list[Note]) -> bool:
    changed = False
    for node in graph.nodes:
        open_outputs = [name for name in node.outputs if name and _is_open(tensors[name])]
        if not open_outputs:
            continue
        qparams = _decided_by_inputs(node, tensors)
        if qparams is None:
            continue
        for name in open_outputs:
            tensors[name] = quantized(tensors[name], qparams)
        changed = True
        if node.op in FIXED:
            notes.append(Note("fixed", str(node), f"{qparams}, TFLite's own"))
        elif _averages(node):
            notes.append(Note("inherited", str(node), f"{qparams}"))
    return changed


def _backward(graph: Graph, tensors: dict[str, Tensor], reads: dict[str, int]) -> bool:
    changed = False
    for node in reversed(graph.nodes):
        if not (node.op in PRESERVING or (node.op == "Resize" and not _averages(node))) or node.op == "Split":
            continue
        qparams = tensors[node.outputs[0]].qparams
        if qparams is None:
            continue
        for name in node.inputs:
            # Only the first operand of these operators is data, but a concatenation has nothing else.
            if not name or (node.op != "Concat" and name != node.inputs[0]):
                continue
            if _is_open(tensors[name]) and reads[name] == 1 and name not in graph.outputs:
                tensors[name] = quantized(tensors[name], qparams)
                changed = True
    return changed


def _is_open(tensor: Tensor) -> bool:
    return tensor.qparams is None and not tensor.is_constant and tensor.dtype.kind == "f"


def quantized(tensor: Tensor, qparams: QParams) -> Tensor:
    """The tensor as int8 codes under `qparams`."""
    return replace(tensor, dtype=np.dtype(np.int8), qparams=qparams)


def _averages(node: Node) -> bool:
    return node.op in _AVERAGING or (node.op == "Resize" and node.attrs.get("mode", "nearest") != "nearest")


def _decided_by_inputs(node: Node, tensors: dict[str, Tensor]) -> QParams | None:
    first = tensors[node.inputs[0]] if node.inputs and node.inputs[0] else None
    if first is None or first.qparams is None:
        return None
    if node.op in FIXED:
        return FIXED[node.op]
    if node.op == "Concat":
        alike = {tensors[name].qparams for name in node.inputs}
        return first.qparams if len(alike) == 1 else None
    if node.op in PRESERVING or node.op == "Resize" or _averages(node):
        return first.qparams
    return None
