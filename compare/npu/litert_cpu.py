"""Plain LiteRT on a CPU: which operators its XNNPACK delegate takes, and which run on the built-in kernels."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bridge.exact.graph import Graph
from compare.npu.asking import ask
from compare.npu.kept import kept
from compare.npu.macs import macs
from compare.npu.model import OperatorVerdict, Placement, Target, TargetVerdict
from compare.tflite_graph import OpenedTflite

PROGRAM = Path(__file__).with_name("ask_litert.py")


def judge(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    """Let LiteRT prepare the file in a process of its own, and see what its delegate took."""
    software = f"ai-edge-litert {version('ai-edge-litert')}, XNNPACK"
    return kept(cache, software, content, partial(_asked, software, content, opened.graph))


def _asked(software: str, content: bytes, graph: Graph) -> TargetVerdict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        found = ask([sys.executable, str(PROGRAM), str(path)])
    if "refused" in found:
        return _verdict(software, graph, ["fails"] * len(graph.nodes), f"LiteRT refuses the file: {found['refused']}")
    taken = delegated(found["nodes"], len(graph.nodes))
    placements: list[Placement] = [
        "npu-fast" if index in taken else "cpu-fallback" for index in range(len(graph.nodes))
    ]
    return _verdict(software, graph, placements, "not taken by XNNPACK: runs on the built-in kernels")


def delegated(nodes: Sequence[dict[str, Any]], count: int) -> frozenset[int]:
    """Indices of the first `count` nodes, the file's own, that lie between the inputs and the outputs of a DELEGATE node."""
    producer = {output: index for index, node in enumerate(nodes[:count]) for output in node["outputs"]}
    taken: set[int] = set()
    for node in nodes[count:]:
        if node["op"] != "DELEGATE":
            continue
        given, waiting = set(node["inputs"]), list(node["outputs"])
        while waiting:
            index = producer.get(waiting.pop())
            if index is not None and index not in taken:
                taken.add(index)
                waiting += [tensor for tensor in nodes[index]["inputs"] if tensor >= 0 and tensor not in given]
    return frozenset(taken)


def _verdict(software: str, graph: Graph, placements: Sequence[Placement], reason: str) -> TargetVerdict:
    operators = tuple(
        OperatorVerdict(index, node.op, node.outputs[0] if node.outputs else "", placement,
                        "" if placement == "npu-fast" else reason, software, macs(graph, node))
        for index, (node, placement) in enumerate(zip(graph.nodes, placements, strict=True))
    )  # fmt: skip
    return TargetVerdict("cpu", software, "run", operators)


TARGETS = (
    Target(
        "cpu",
        "LiteRT on a CPU (XNNPACK)",
        "No NPU: here 'fast' means taken by the XNNPACK delegate, 'cpu' the built-in kernels.",
        "run",
        judge,
    ),
)
