"""One function for each operator, looked up by name; and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bridge.exact.graph import Graph, Lowered, Node, Tensor, add_made, check_constants
from bridge.exact.names import reserved
from bridge.exact.operators import OPERATORS

Lowering = Callable[[Node, Graph], Lowered]

LOWERINGS: dict[str, Lowering] = {}


def lowers(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register the lowering of these operators; a second one for the same operator is a defect."""

    def register(function: Lowering) -> Lowering:
        for op in ops:
            if op in LOWERINGS:
                raise AssertionError(f"two lowerings for {op}")
            if op not in OPERATORS or not OPERATORS[op].becomes:
                raise AssertionError(
                    f"a lowering for {op}, whose record (bridge/exact/operators) says nothing that it becomes"
                )
            LOWERINGS[op] = function
        return function

    return register


def lower(graph: Graph) -> Graph:
    """The graph in TFLite's operators; what has none was refused after the pair was attached (unwritten.py)."""
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = dict(graph.tensors)
    notes = list(graph.notes)
    for node in graph.nodes:
        with reserved(tensors):
            lowered = LOWERINGS[node.op](node, graph)
        nodes.extend(lowered.nodes)
        add_made(tensors, *lowered.tensors)
        notes.extend(lowered.notes)
    lowered_graph = replace(graph, nodes=tuple(nodes), tensors=tensors, notes=tuple(notes))
    check_constants(graph, lowered_graph, after="lower")
    return lowered_graph
