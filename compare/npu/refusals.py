"""Which operator an interpreter of the TFLite family names when it refuses a model: LiteRT's words and TFLM's."""

from __future__ import annotations

import re

from bridge.exact.graph import Graph
from compare.npu.model import Placement

Placed = dict[int, tuple[Placement, str]]
"""Placement and reason by the operator's index."""

_BY_NUMBER = (
    re.compile(r"Node (?P<op>\S+) \(number (?P<number>\d+)\S*\) failed"),  # TFLM
    re.compile(r"failed to delegate (?P<op>\S+) node #(?P<number>\d+)"),  # XNNPACK, asked again after it had agreed
    re.compile(r"Node number (?P<number>\d+) \((?P<op>\S+)\) failed"),  # LiteRT
)
_BY_NAME = re.compile(r"Didn't find (?:custom )?op for (?:builtin opcode|name) '(?P<op>\w+)'")
_UNNAMED_CUSTOM = "Failed to get registration from op code CUSTOM"
_CUSTOM = re.compile(r"unresolved custom op: (?P<op>\w+)")


def refused(graph: Graph, interpreter: str, words: str) -> Placed:
    """The operators that its words name fail; the others do not run either, but may be able to.

    Where it names none of the main graph, the model as a whole fails: there is nothing else that could run a part of it.
    """
    everything, reason = range(len(graph.nodes)), _reason(words)
    culprits = _culprits(graph, words)
    if not culprits:
        return dict.fromkeys(everything, ("fails", f"{interpreter} does not run the model: {reason}"))
    stopped = ", ".join(sorted({graph.nodes[index].op for index in culprits}))
    others: tuple[Placement, str] = ("unverified", f"nothing of the model runs: {interpreter} stops at {stopped}")
    return {index: ("fails", reason) if index in culprits else others for index in everything}


def _culprits(graph: Graph, words: str) -> frozenset[int]:
    """By number, or where there is no kernel at all by operator. A number may be one of another subgraph: the name tells."""
    for pattern in (_BY_NAME, _CUSTOM):
        if (named := pattern.search(words)) is not None:
            names = (named["op"], f"CUSTOM:{named['op']}")
            return frozenset(index for index, node in enumerate(graph.nodes) if node.op in names)
    custom = {node.op for node in graph.nodes if node.op.startswith("CUSTOM:")}
    if _UNNAMED_CUSTOM in words and len(custom) == 1:
        return frozenset(index for index, node in enumerate(graph.nodes) if node.op in custom)
    for pattern in _BY_NUMBER:
        found = pattern.search(words)
        if found is not None and int(found["number"]) < len(graph.nodes):
            number, op = int(found["number"]), graph.nodes[int(found["number"])].op
            return frozenset({number} if op.removeprefix("CUSTOM:") == found["op"] else ())
    return frozenset()


def _reason(words: str) -> str:
    """What it said up to where it gives the number of the operator, on one line."""
    ends = [found.start() for pattern in (_BY_NUMBER[0], _BY_NUMBER[2]) if (found := pattern.search(words)) is not None]
    said = " ".join(words[: min(ends, default=len(words))].split())
    return said[-300:] or " ".join(words.split())[:300]
