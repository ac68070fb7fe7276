"""One layer of a .tflite fed with what the reference fed it: what it adds by itself, without what came before.

Roundings add up, and in a deep network they change what comes out by many steps although every operator is right. A
layer that is wrong is wrong alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from compare.drift import Layer, Traced, measured, trace_tflite
from compare.structure import matched
from compare.tflite_graph import open_tflite

_IDENTIFIER = b"TFL3"


def alone(reference: Traced, judged: Traced, content: bytes, layer: Layer) -> Layer | None:
    """The layer's distance when everything it reads is the reference's; None where that cannot be cut out and run."""
    known = {theirs.outputs[0]: ours.outputs[0] for ours, theirs in matched(reference.graph, judged.graph)}
    known |= dict(zip(judged.graph.inputs, reference.graph.inputs, strict=False))
    nodes = segment(judged.graph, layer.file, frozenset(known))
    if nodes is None:
        return None
    made = {name for node in nodes for name in node.outputs}
    read = dict.fromkeys(
        name
        for node in nodes
        for name in node.inputs
        if name and name not in made and not judged.graph.tensors[name].is_constant
    )
    feeds = {}
    for name in read:
        values = reference.values.get(known[name])
        shape = judged.graph.tensors[name].shape
        if values is None or values[0].size * len(values) % int(np.prod(shape)):
            return None
        if _without_ones(values.shape[1:]) != _without_ones(shape[1:]):
            return None
        feeds[name] = values.reshape(-1, *shape[1:])
    try:
        piece = cut_out(content, nodes, tuple(feeds), (layer.file,))
        traced = trace_tflite(piece, list(feeds.values()))
    except BridgeError:
        return None
    return measured(reference, Traced(judged.graph, traced.values), layer.op, layer.reference, layer.file)


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

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    opened = open_tflite(content).graph
    index = {name: place for place, name in enumerate(opened.tensors)}
    positions = {node.name: place for place, node in enumerate(opened.nodes)}
    graph.operators = [graph.operators[positions[node.name]] for node in nodes]
    used = dict.fromkeys(
        place for operator in graph.operators for place in (*operator.inputs, *operator.outputs) if place >= 0
    )
    used |= dict.fromkeys(index[name] for name in (*inputs, *outputs))
    place_of: Mapping[int, int] = {old: new for new, old in enumerate(used)}
    buffers = [schema.BufferT()]
    tensors = []
    for old in used:
        tensor = graph.tensors[old]
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = len(buffers) - 1
        else:
            tensor.buffer = 0
        tensors.append(tensor)
    for operator in graph.operators:
        operator.inputs = [place_of[place] if place >= 0 else -1 for place in operator.inputs]
        operator.outputs = [place_of[place] for place in operator.outputs]
    graph.tensors = tensors
    graph.inputs = [place_of[index[name]] for name in inputs]
    graph.outputs = [place_of[index[name]] for name in outputs]
    model.buffers, model.subgraphs, model.signatureDefs, model.metadata = buffers, [graph], [], []
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
