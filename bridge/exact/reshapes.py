"""Every RESHAPE reads the tensor that its row of RESHAPEs began with, never another RESHAPE's result.

    h -> RESHAPE r -> RESHAPE s -> ADD, and r is read once more   becomes   h -> RESHAPE r, h -> RESHAPE s -> ADD

The codes are the same ones. LiteRT 2.1.0 gives a RESHAPE's result the memory of its input, and lets ADD, SUB and MUL
write theirs over their first operand where nothing reads that any more; of a row of two it forgets that the middle
tensor is still to be read, which then holds the sum (built-in and reference kernels; tests/bridge/exact/test_reshapes.py).
"""

from __future__ import annotations

from dataclasses import replace

from bridge.exact.graph import Graph, Node, without_unused


def from_their_root(graph: Graph) -> Graph:
    """A lowered graph without rows of RESHAPEs; what nobody reads any more is gone."""
    root: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "RESHAPE":
            first = root.get(node.inputs[0], node.inputs[0])
            root[node.outputs[0]] = first
            node = replace(node, inputs=(first, *node.inputs[1:]))
        nodes.append(node)
    return without_unused(replace(graph, nodes=tuple(nodes)))
