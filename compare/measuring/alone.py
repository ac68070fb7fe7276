"""One layer of a .tflite fed with what the reference fed it: what it adds by itself, without what came before.

Roundings add up, and in a deep network they change what comes out by many steps although every operator is right. A
layer that is wrong is wrong alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from compare.measuring.drift import Layer, Traced, measured, trace_tflite
from compare.tflite.graph import open_tflite
from compare.tflite.order import paired
from compare.tflite.structure import matched
from compare.tflite.unpacked import packed, unpacked

_COPIES = frozenset(
    {"RESHAPE", "TRANSPOSE", "PAD", "PADV2", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "SQUEEZE", "EXPAND_DIMS"}
    | {"CONCATENATION", "GATHER", "MAX_POOL_2D", "RELU", "RELU6", "MAXIMUM", "MINIMUM", "MIRROR_PAD"}
)
"""Operators that only take numbers over."""


_ROUNDS_BY = {
    **dict.fromkeys(("PRELU", "MEAN", "AVERAGE_POOL_2D", "RESIZE_BILINEAR"), 4.0),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "MUL", "DIV"), 2.0),
}  # fmt: skip
"""LSB that an operator of a right file may be off by itself, fed with the reference's values; all others 1."""


_MOST = 4.0
"""LSB that one operator before the last may add."""


class Alone:
    """One .tflite beside its reference, and its layers cut out one at a time."""

    def __init__(self, reference: Traced, judged: Traced, content: bytes) -> None:
        self._reference = reference
        self._judged = judged
        self._content = content
        self._known = {
            theirs.outputs[0]: ours.outputs[0]
            for ours, theirs in matched(reference.graph, judged.graph)
            if ours.outputs[0] in reference.values  # what the bridge rescales is not in the model
        }
        self._known |= dict(zip(judged.graph.inputs, paired(reference.graph.inputs, judged.graph.inputs), strict=False))

    def layer(self, layer: Layer) -> Layer | None:
        """Its distance when everything it reads is the reference's; None where that cannot be cut out and run."""
        graph = self._judged.graph
        nodes = segment(graph, layer.file, frozenset(self._known))
        feeds = None if nodes is None else self._feeds(nodes)
        if nodes is None or feeds is None:
            return None
        try:
            traced = trace_tflite(cut_out(self._content, nodes, tuple(feeds), (layer.file,)), list(feeds.values()))
        except BridgeError:
            return None
        return measured(self._reference, Traced(graph, traced.values), layer.op, layer.reference, layer.file)

    def allowed(self, layer: Layer) -> float:
        """By how many LSB a right file may differ there, fed with the reference's values.

        Measured on 1,050 layers and outputs of 300 right drawn files: 11 differed by more than 1, of them PRELU, whose
        slopes have a scale of the bridge's own, by 4, weights that lost a code of -128 by 2, two roundings in a row by 2;
        a mean before a dense layer by 4. Operators that only take numbers over add nothing. A rounding at a coarser scale
        than the last one is as many steps more of that, up to `_MOST`: behind a TANH it may be none.
        """
        nodes = segment(self._judged.graph, layer.file, frozenset(self._known)) or ()
        last = self._scale(layer.file)
        rounding = [
            min(_ROUNDS_BY.get(node.op, 1.0) * max(1.0, self._scale(node.outputs[0]) / last), _MOST)
            for node in nodes
            if node.op not in _COPIES
        ]
        return max(sum(rounding), 2.0 if rounding else 1.0)

    def _scale(self, name: str) -> float:
        """Of a tensor of the file; 1 for one that has none, or several."""
        qparams = self._judged.graph.tensors[name].qparams
        return float(qparams.scale) if qparams is not None and qparams.axis is None else 1.0

    def _feeds(self, nodes: Sequence[Node]) -> dict[str, np.ndarray] | None:
        """The reference's values of what these operators read, arranged as the file has them."""
        tensors = self._judged.graph.tensors
        made = {name for node in nodes for name in node.outputs}
        feeds = {}
        for name in dict.fromkeys(name for node in nodes for name in node.inputs if name):
            if name in made or tensors[name].is_constant:
                continue
            values, shape = self._reference.values.get(self._known[name]), tensors[name].shape
            if values is None or not (size := int(np.prod(shape))) or values.size % size:
                return None
            if _without_ones(values.shape[1:]) != _without_ones(shape[1:]):
                return None
            feeds[name] = values.reshape(-1, *shape[1:])
        return feeds


def segment(graph: Graph, output: str, known: frozenset[str]) -> tuple[Node, ...] | None:
    """The operators between tensors that are `known` and an output, in order; None where one reads what is not known."""
    producers = graph.producers()
    wanted, waiting = set[str](), [output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None:
            return None
        if node.name in wanted:
            continue
        wanted.add(node.name)
        waiting += [name for name in node.inputs if name and name not in known and not graph.tensors[name].is_constant]
    return tuple(node for node in graph.nodes if node.name in wanted)


def cut_out(content: bytes, nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A .tflite of these operators of another, with their options, tensors and constants as they are."""
    from ai_edge_litert import schema_py_generated as schema

    opened = _opened(content)
    graph = schema.SubGraphT()
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = opened.model.version, opened.model.operatorCodes, [graph]
    source = opened.model.subgraphs[0]
    index = {name: place for place, name in enumerate(opened.graph.tensors)}
    positions = {node.name: place for place, node in enumerate(opened.graph.nodes)}
    operators = [copy(source.operators[positions[node.name]]) for node in nodes]
    used = dict.fromkeys(place for each in operators for place in (*each.inputs, *each.outputs) if place >= 0)
    used |= dict.fromkeys(index[name] for name in (*inputs, *outputs))
    place_of = {old: new for new, old in enumerate(used)}
    model.buffers, graph.tensors = [schema.BufferT()], []
    for old in used:
        tensor = copy(source.tensors[old])
        data = opened.model.buffers[tensor.buffer].data
        tensor.buffer = 0
        if data is not None and len(data):
            model.buffers.append(opened.model.buffers[source.tensors[old].buffer])
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    for operator in operators:
        operator.inputs = [place_of[place] if place >= 0 else -1 for place in operator.inputs]
        operator.outputs = [place_of[place] for place in operator.outputs]
    graph.operators = operators
    graph.inputs = [place_of[index[name]] for name in inputs]
    graph.outputs = [place_of[index[name]] for name in outputs]
    return packed(model)


@dataclass(frozen=True, eq=False)
class _Opened:
    model: Any
    graph: Graph


@lru_cache(maxsize=1)
def _opened(content: bytes) -> _Opened:
    """Many pieces are cut out of one file; it is unpacked once."""
    return _Opened(unpacked(content), open_tflite(content).graph)


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
