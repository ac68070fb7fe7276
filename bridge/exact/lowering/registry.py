"""One function for each operator, looked up by name; and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bridge.exact.graph import Graph, Lowered, Node, Tensor, add_made, check_constants
from bridge.exact.names import reserved
from bridge.exact.unwritten import unwritten

Lowering = Callable[[Node, Graph], Lowered]

LOWERINGS: dict[str, Lowering] = {}


def lowers(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register the lowering of these operators; a second one for the same operator is a defect."""

    def register(function: Lowering) -> Lowering:
        for op in ops:
            if op in LOWERINGS:
                raise AssertionError(f"two lowerings for {op}")
            LOWERINGS[op] = function
        return function

    return register


def lower(graph: Graph) -> Graph:
    """The graph in TFLite's operators; raises `BridgeError` for an operator that has no lowering."""
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = dict(graph.tensors)
    notes = list(graph.notes)
    for node in graph.nodes:
        if node.op not in LOWERINGS:
            raise unwritten(each for each in graph.nodes if each.op not in LOWERINGS)
        with reserved(tensors):
            lowered = LOWERINGS[node.op](node, graph)
        nodes.extend(lowered.nodes)
        add_made(tensors, *lowered.tensors)
        notes.extend(lowered.notes)
    lowered_graph = replace(graph, nodes=tuple(nodes), tensors=tensors, notes=tuple(notes))
    check_constants(graph, lowered_graph, after="lower")
    return lowered_graph
