"""What a value that is off costs: followed from where it arises to the first tensor that training gave a scale.

    off by e  ->  RESHAPE, MAX_POOL_2D, ...         still e
              ->  CONV_2D, FULLY_CONNECTED, ...     e * the largest sum of |weights| of an output channel
              ->  MUL by y                          e * the largest |y| that its codes can mean
              ->  LOGISTIC, TANH, HARD_SWISH, ...   e * the steepest slope

These are bounds, for all inputs at once: real errors have both signs and mostly cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Graph, Node, Note, Tensor

_MOVES = {
    *("RESHAPE", "TRANSPOSE", "MAXIMUM", "MINIMUM", "MAX_POOL_2D", "PAD", "PADV2", "MIRROR_PAD", "SLICE"),
    *("STRIDED_SLICE", "SPLIT", "SPLIT_V", "GATHER", "CONCATENATION", "RELU", "RELU6", "RELU_N1_TO_1"),
    *("MEAN", "AVERAGE_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
}
"""Operators whose output is off by no more than their input."""

_WEIGHTED = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "DEPTHWISE_CONV_2D": 3}
"""On which axis of the weight the output channels lie."""

_HALF_A_STEP = 0.5
"""LSB from which on it is said that a bias was rounded: every bias is, mostly by a thousandth of that."""

_STEEPEST = {"LOGISTIC": 0.25, "TANH": 1.0, "HARD_SWISH": 1.5, "SOFTMAX": 1.0, "LEAKY_RELU": 1.0}
"""Largest slopes; of x * relu6(x + 3) / 6, at x = 3, 1.5. Of softmax, in the largest difference of all its inputs, 1/2."""


def priced(graph: Graph) -> Graph:
    """A lowered graph whose notes have `lsb` and `of` wherever they say by how much a value is off."""
    if all(note.off is None for note in graph.notes):
        return graph
    graph = replace(graph, notes=tuple(_of_outputs(note, graph) for note in graph.notes))
    readers, undecided = graph.consumers(), _undecided(graph)
    found = [_priced(note, graph, readers, undecided) for note in graph.notes]
    return replace(
        graph, notes=tuple(note for note in found if note.kind != "grid" or (note.lsb or 0.0) >= _HALF_A_STEP)
    )


def _of_outputs(note: Note, graph: Graph) -> Note:
    """A note on weights that moved (remarks.py) as one on the layer's output: times the largest input."""
    layers = [node for node in graph.nodes if node.name == note.at] if note.kind == "symmetric" else []
    if note.off is None or not layers:
        return note
    x = max((graph.tensors[name] for name in layers[0].inputs if not graph.tensors[name].is_constant), key=largest)
    return replace(note, at=layers[0].outputs[0], off=note.off * largest(x))


def _undecided(graph: Graph) -> set[str]:
    """Tensors whose scale training did not choose, and the rearranged copies that go on with it."""
    found = {note.at for note in graph.notes if note.kind in ("inherited", "fixed")}
    for node in graph.nodes:
        if node.op in _MOVES and found.intersection(node.inputs):
            moved = [graph.tensors[name].qparams for name in node.inputs if name in found]
            found.update(name for name in node.outputs if graph.tensors[name].qparams in moved)
    return found


def _priced(note: Note, graph: Graph, readers: Mapping[str, list[Node]], undecided: set[str]) -> Note:
    if note.off is None or note.at not in graph.tensors:
        return note
    worst, of = _reach(note.at, note.off, graph, readers, undecided)
    return replace(note, lsb=worst, of=_called(of, graph, readers))


def _called(name: str, graph: Graph, readers: Mapping[str, list[Node]]) -> str:
    """A tensor by its name in the ONNX file; one that the bridge made, by the next one that is known there."""
    here = name
    while graph.tensors[here].origin is None and len(readers.get(here, ())) == 1 and readers[here][0].op in _MOVES:
        here = readers[here][0].outputs[0]
    origin = graph.tensors[here].origin
    return origin.name if origin else name


def _reach(
    name: str, off: float, graph: Graph, readers: Mapping[str, list[Node]], undecided: set[str]
) -> tuple[float, str]:
    """The largest distance in steps of the tensors where a trained scale, or the model, ends; and which one it is."""
    found = [(0.0, name)]
    seen: dict[str, float] = {}
    waiting = [(name, off)]
    while waiting:
        tensor, e = waiting.pop()
        if seen.get(tensor, -1.0) >= e:
            continue
        seen[tensor] = e
        qparams = graph.tensors[tensor].qparams
        if qparams is not None and (tensor not in undecided or tensor in graph.outputs):
            found.append((e / float(qparams.scale), tensor))
            continue
        for node in readers.get(tensor, ()):
            grown = e * _gain(node, tensor, graph)
            waiting += [(output, grown) for output in node.outputs]
    return max(found, key=lambda pair: pair[0])


def _gain(node: Node, name: str, graph: Graph) -> float:
    """By how much a difference in one operand can grow."""
    if node.op in _WEIGHTED:
        weight = graph.tensors[node.inputs[1]]
        others = tuple(axis for axis in range(len(weight.shape)) if axis != _WEIGHTED[node.op])
        return float(np.abs(weight.real).sum(axis=others).max()) if weight.is_constant else 1.0
    if node.op in ("MUL", "BATCH_MATMUL"):
        others_of = [graph.tensors[each] for each in node.inputs if each != name]
        terms = graph.tensors[name].shape[-1] if node.op == "BATCH_MATMUL" else 1
        return max([largest(other) for other in others_of], default=2 * largest(graph.tensors[name])) * terms
    return _STEEPEST.get(node.op, 1.0)


def largest(tensor: Tensor) -> float:
    """The largest real magnitude that a constant has, or that the codes of a tensor can mean."""
    if tensor.is_constant:
        return float(np.abs(tensor.real).max(initial=0.0))
    if tensor.qparams is None:
        return 1.0
    zero = int(tensor.q.zero_point)
    return float(tensor.q.scale) * max(abs(tensor.q.qmin - zero), abs(tensor.q.qmax - zero))
