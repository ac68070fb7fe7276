"""Plain LiteRT on a CPU: which operators its XNNPACK delegate takes, and which run on the built-in kernels."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bridge.exact.graph import Graph, Node
from bridge.exact.pair_sums import pairs
from compare.npu.asking import ask
from compare.npu.kept import kept
from compare.npu.model import OperatorVerdict, Placement, Target, TargetVerdict
from compare.npu.refusals import refused
from compare.npu.samples import random_inputs
from compare.tflite.graph import OpenedTflite
from compare.tflite.macs import macs

PROGRAM = Path(__file__).with_name("ask_litert.py")


def name_of_litert() -> str:
    """With its version."""
    return f"ai-edge-litert {version('ai-edge-litert')}"


def judge(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    """Let LiteRT prepare and run the file in a process of its own, and see what its delegate took."""
    software = f"{name_of_litert()}, XNNPACK"
    verdict = kept(cache, software, content, partial(_asked, software, content, opened.graph))
    return _with_arm(verdict, opened.graph)


def _asked(software: str, content: bytes, graph: Graph) -> TargetVerdict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, inputs = folder / "model.tflite", folder / "inputs.npz"
        model.write_bytes(content)
        samples = random_inputs(graph)
        if samples is not None:
            np.savez(inputs, **samples)
        given = inputs if samples is not None else "-"

        def run(kernels: str) -> dict[str, Any]:
            return ask(software, [sys.executable, "-I", PROGRAM, kernels, model, given, "-"], folder)

        found = run("xnnpack")
        notes = (_WITHOUT_XNNPACK,) if "refused" in found and "refused" not in run("builtin") else ()
    places = range(len(graph.nodes))
    if "refused" in found:
        placed = refused(graph, "LiteRT", found["refused"])
        return _verdict(software, graph, [placed[index] for index in places], notes)
    taken, needed = delegated(found["nodes"], len(graph.nodes)), needed_nodes(graph)
    return _verdict(software, graph, [_placed(graph, index, taken, needed) for index in places], ran_notes(found))


def ran_notes(found: Mapping[str, Any]) -> tuple[str, ...]:
    """What to say of samples that did not run; nothing where all of them did."""
    if not found["ran"]:
        return (_NOT_FED,)
    return (f"Some random inputs stop it: {' '.join(found['stopped'].split())[:200]}",) if found["stopped"] else ()


_ARM: Mapping[Placement, Mapping[str, str]] = {
    "npu-fast": {
        "DEPTHWISE_CONV_2D": "Cortex-A53, A55 and A72",
        **dict.fromkeys(("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"), "Cortex-A72"),
    },
    "cpu-fallback": dict.fromkeys(("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"), "Cortex-A53 and A72"),
}
"""Where XNNPACK's and LiteRT's own kernels were seen to add codes of -128 wrongly (docs/arm.md); elsewhere they may."""


def _with_arm(verdict: TargetVerdict, graph: Graph) -> TargetVerdict:
    """What this machine does not show: operators whose codes of -128 an ARM processor adds wrongly (M81).

    The verdict stays as it is: the operator is taken, and right here.
    """
    operators, notes = list(verdict.operators), list(verdict.notes)
    places = {id(node): index for index, node in enumerate(graph.nodes)}
    for found in pairs(graph):
        if not found.overflows:
            continue
        index = places[id(found.node)]
        operator = operators[index]
        cores = _ARM.get(operator.placement, {}).get(operator.op)
        where = f"seen on {cores}" if cores else "not seen on Cortex-A53, A55 and A72, with no promise for other cores"
        what = (
            f"{found.count} weight codes of -128"
            if found.weight.is_constant
            else f"codes of -128 in '{found.weight.name}'"
        )
        said = f"wrong on ARM: {what} are added in 16 bits there ({where}; M81)"
        operators[index] = replace(operator, reason=f"{operator.reason}; {said}" if operator.reason else said)
        notes.append(f"{operator.op} '{operator.tensor}' can be {said}.")
    return replace(verdict, operators=tuple(operators), notes=tuple(notes))


_WITHOUT_XNNPACK = "Without the XNNPACK delegate LiteRT runs the file, on its built-in kernels."
_NOT_FED = "Prepared, but not run: one of the model's inputs has a type or a size that is not made up here."


def _placed(graph: Graph, index: int, taken: frozenset[int], needed: frozenset[int]) -> tuple[Placement, str]:
    if index in taken:
        return "npu-fast", ""
    node = graph.nodes[index]
    if index not in needed:
        return "unverified", "no output of the model depends on it, and LiteRT does not say who has such an operator"
    return "cpu-fallback", f"XNNPACK does not take this {described(graph, node)}: it runs on the built-in kernel"


def described(graph: Graph, node: Node) -> str:
    """`CONV_2D (int8, int8 constant per channel, int32 constant -> int8)`: what a delegate decides by, first of all."""

    def words(name: str) -> str:
        tensor = graph.tensors[name]
        dtype = tensor.dtype.name if tensor.dtype.kind != "V" else "another type"
        per_channel = tensor.qparams is not None and tensor.qparams.axis is not None
        return f"{dtype}{' constant' if tensor.data is not None else ''}{' per channel' if per_channel else ''}"

    given, computed = (", ".join(words(name) for name in names if name) for names in (node.inputs, node.outputs))
    return f"{node.op} ({given} -> {computed})"


def delegated(nodes: Sequence[dict[str, Any]], count: int) -> frozenset[int]:
    """Indices of the first `count` nodes, the file's own, that lie between the inputs and the outputs of a DELEGATE node.

    LiteRT appends one DELEGATE node for each partition, whose inputs are all tensors that come from outside it. Measured:
    on 63 converted models this is what the DELEGATE nodes list when every tensor is made an output of the file.
    """
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


def needed_nodes(graph: Graph) -> frozenset[int]:
    """Indices of the operators that an output of the model depends on: `delegated` finds no others."""
    needed, tensors = set[int](), set(graph.outputs)
    for index in reversed(range(len(graph.nodes))):
        if tensors.intersection(graph.nodes[index].outputs):
            needed.add(index)
            tensors.update(graph.nodes[index].inputs)
    return frozenset(needed)


def _verdict(
    software: str, graph: Graph, placed: Sequence[tuple[Placement, str]], notes: tuple[str, ...] = ()
) -> TargetVerdict:
    operators = tuple(
        OperatorVerdict(index, node.op, node.outputs[0] if node.outputs else "", *place, software, macs(graph, node))
        for index, (node, place) in enumerate(zip(graph.nodes, placed, strict=True))
    )
    return TargetVerdict("cpu", software, "run", operators, notes=notes)


TARGETS = (
    Target(
        "cpu",
        "LiteRT on a CPU (XNNPACK)",
        "No NPU: 'fast' means that LiteRT's XNNPACK delegate takes the operator, 'fallback' that a built-in kernel runs it. "
        "Prepared and run by LiteRT itself, on this machine; what ARM computes otherwise is said beside it.",
        "run",
        judge,
        by_default=5,
    ),
)
