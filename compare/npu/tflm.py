"""TensorFlow Lite for Microcontrollers: the model run for real by its interpreter, held against LiteRT's reference kernels."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bridge.exact.graph import Graph, Tensor
from compare.environments import Environment, ensure
from compare.npu.asking import ask
from compare.npu.kept import kept
from compare.npu.litert_cpu import PROGRAM as LITERT
from compare.npu.macs import macs
from compare.npu.model import Estimate, OperatorVerdict, Placement, Target, TargetVerdict
from compare.tflite_graph import OpenedTflite

VERSION = "0.dev20261023182759"
ENVIRONMENT = Environment("tflm", (f"tflite-micro=={VERSION}",))
SOFTWARE = f"tflite-micro {VERSION}, reference kernels"
SAMPLES = 8
_PROGRAM = Path(__file__).with_name("ask_tflm.py")


def judge(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    """Run the file; there is no other processor to fall back to, so one refused operator stops the whole model."""
    return kept(cache, SOFTWARE, content, partial(_run, content, opened, cache))


def _run(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    python = ensure(ENVIRONMENT, cache)
    graph = opened.graph
    with tempfile.TemporaryDirectory() as folder:
        model, inputs = Path(folder) / "model.tflite", Path(folder) / "inputs.npz"
        model.write_bytes(content)
        np.savez(
            inputs, **{str(place): _samples(graph.tensors[name], place) for place, name in enumerate(graph.inputs)}
        )
        found = ask([str(python), str(_PROGRAM), str(model), str(inputs)])
        if "refused" in found:
            return _refused(graph, found)
        reference = ask([sys.executable, str(LITERT), str(model), str(inputs)])
    placed = dict.fromkeys(range(len(graph.nodes)), ("npu-fast", ""))
    return _verdict(graph, placed, (_agreement(found, reference),), _arena(found))


def _samples(tensor: Tensor, seed: int) -> np.ndarray:
    """Random samples over the whole range of the type; float ones are normal."""
    random, shape = np.random.default_rng(seed), (SAMPLES, *tensor.shape)
    if tensor.dtype.kind not in "iu":
        return random.normal(size=shape).astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    return random.integers(limits.min, limits.max, shape, endpoint=True, dtype=np.int64).astype(tensor.dtype)


def _agreement(found: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    if "outputs" not in reference:
        return "LiteRT's reference kernels do not run this file: outputs were not compared."
    apart = np.abs(np.subtract(found["outputs"], reference["outputs"], dtype=np.float64))
    if not apart.any():
        return f"Outputs equal those of LiteRT's reference kernels on {SAMPLES} random inputs."
    return (
        f"{(apart > 0).mean():.1%} of the outputs differ from LiteRT's reference kernels on {SAMPLES} random inputs, by up to "
        f"{apart.max():.4g}."
    )


_ARENA = re.compile(r"Arena allocation total (\d+) bytes")


def _arena(found: Mapping[str, Any]) -> Estimate | None:
    used = _ARENA.search(found["said"])
    return None if used is None else Estimate(f"{SOFTWARE}: arena", memory_bytes=int(used[1]))


_NODE = re.compile(r"Node \S+ \(number (\d+)\) failed")
_UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


def _refused(graph: Graph, found: Mapping[str, Any]) -> TargetVerdict:
    """Which operator it names as the reason, in its own words; the rest was never reached."""
    said = [line.strip() for line in found["said"].splitlines() if line.strip()]
    number, unknown = _NODE.search(found["said"]), _UNKNOWN.search(found["said"])
    place = next((i for i, line in enumerate(said) if _NODE.search(line)), 0)
    reason = said[place - 1] if number is not None and place else said[0] if said else str(found["refused"])
    culprits = {
        index
        for index, node in enumerate(graph.nodes)
        if (number is not None and index == int(number[1])) or (unknown is not None and node.op == unknown[1])
    }
    if not culprits:
        placed: dict[int, tuple[Placement, str]] = dict.fromkeys(
            range(len(graph.nodes)), ("fails", f"the interpreter does not take the model: {reason[:200]}")
        )
        return _verdict(graph, placed)
    stopped = ", ".join(sorted({graph.nodes[index].op for index in culprits}))
    placed = {
        index: ("fails", reason[:200])
        if index in culprits
        else ("unverified", f"never reached: the interpreter stops at {stopped}")
        for index in range(len(graph.nodes))
    }
    return _verdict(graph, placed)


def _verdict(
    graph: Graph,
    placed: Mapping[int, tuple[Placement, str]],
    notes: tuple[str, ...] = (),
    estimate: Estimate | None = None,
) -> TargetVerdict:
    operators = tuple(
        OperatorVerdict(
            index, node.op, node.outputs[0] if node.outputs else "", *placed[index], SOFTWARE, macs(graph, node)
        )
        for index, node in enumerate(graph.nodes)
    )
    return TargetVerdict("tflm", SOFTWARE, "run", operators, estimate, notes)


TARGETS = (
    Target(
        "tflm",
        "TensorFlow Lite for Microcontrollers",
        "No NPU: 'fast' means that the microcontroller's kernels run it. Run on this machine, not on a device.",
        "run",
        judge,
    ),
)
