"""A Reshape that changes nothing goes, and of two in a row the second does."""

from __future__ import annotations

from dataclasses import replace

from bridge.exact.graph import Graph, Node, without_unused


def tidy(graph: Graph) -> Graph:
    """Remove reshapes to the same shape, let every reshape read the first of its row, drop what nobody reads."""
    alias: dict[str, str] = {}
    reshaped: dict[str, str] = {}
    written_as: dict[str, str] = {}  # a tensor whose reshape to the same shape is a model output
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        if node.op == "Reshape":
            source, output = node.inputs[0], node.outputs[0]
            if source in reshaped and _same_codes(graph, reshaped[source], source):
                source = reshaped[source]
            unchanged = graph.tensors[source].shape == graph.tensors[output].shape
            if unchanged and _same_codes(graph, source, output):
                if output not in graph.outputs:
                    alias[output] = source
                    continue
                if source not in (*graph.inputs, *graph.outputs, *written_as):
                    written_as[source] = output
                    continue
            reshaped[output] = source
            node = replace(node, inputs=(source,))
        nodes.append(node)
    named = tuple(
        replace(
            node,
            inputs=tuple(written_as.get(name, name) for name in node.inputs),
            outputs=tuple(written_as.get(name, name) for name in node.outputs),
        )
        for node in nodes
    )
    return without_unused(replace(graph, nodes=named))


def _same_codes(graph: Graph, one: str, other: str) -> bool:
    return graph.tensors[one].qparams == graph.tensors[other].qparams
