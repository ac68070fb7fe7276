"""Which layer of one network is which of another: matched by what they compute and their place in line, not by name."""

from __future__ import annotations

from difflib import SequenceMatcher

from bridge.exact.graph import Graph, Node

MOVING = {
    "QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "PAD", "PADV2", "SQUEEZE", "SHAPE", "PACK", "STRIDED_SLICE",
}  # fmt: skip
"""Operators that converters add and leave out as they like; the layers in between are the network."""

_ALIKE = {"DEPTHWISE_CONV_2D": "CONV_2D", "FULLY_CONNECTED": "DENSE"}


def layers(graph: Graph) -> list[Node]:
    """The operators that compute, in order."""
    return [node for node in graph.nodes if node.op not in MOVING]


def matched(reference: Graph, judged: Graph) -> list[tuple[Node, Node]]:
    """(layer of `reference`, layer of `judged`) wherever both have the same one, in order."""
    ours, theirs = layers(reference), layers(judged)
    matcher = SequenceMatcher(None, [_kind(node) for node in ours], [_kind(node) for node in theirs], autojunk=False)
    return [
        (ours[block.a + offset], theirs[block.b + offset])
        for block in matcher.get_matching_blocks()
        for offset in range(block.size)
    ]


def _kind(node: Node) -> tuple[str, int]:
    """What two layers must share to be the same one: the operator, however it is written, and its outputs' number."""
    return (_ALIKE.get(node.op, node.op), len(node.outputs))
