"""TensorFlow Lite for Microcontrollers: the model run for real by its interpreter, held against LiteRT's reference kernels."""

from __future__ import annotations

import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bridge.exact.graph import Graph
from compare.npu.ask_tflm import ARENAS
from compare.npu.asking import ask
from compare.npu.kept import kept
from compare.npu.litert_cpu import PROGRAM as LITERT
from compare.npu.litert_cpu import name_of_litert, ran_notes
from compare.npu.locked import locked
from compare.npu.model import Estimate, OperatorVerdict, Target, TargetVerdict
from compare.npu.refusals import Placed, refused
from compare.npu.samples import random_inputs
from compare.tflite.graph import OpenedTflite
from compare.tflite.macs import macs
from compare.toolchains.environments import ensure

VERSION = "0.dev20261023182759"
ENVIRONMENT = locked("tflm", (f"tflite-micro=={VERSION}", "numpy==1.26.4", "flatbuffers==25.12.19", "pyyaml==6.0.3"))
ENVIRONMENTS = (ENVIRONMENT,)
SOFTWARE = f"tflite-micro {VERSION}, reference kernels"
_PROGRAM = Path(__file__).with_name("ask_tflm.py")


def judge(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    """Run the file; there is no other processor to fall back to, so one refused operator stops the whole model."""
    return kept(cache, SOFTWARE, content, partial(_run, content, opened.graph, cache))


def _run(content: bytes, graph: Graph, cache: Path) -> TargetVerdict:
    python, everything = ensure(ENVIRONMENT, cache), range(len(graph.nodes))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, inputs = folder / "model.tflite", folder / "inputs.npz"
        model.write_bytes(content)
        samples = random_inputs(graph)
        if samples is not None:
            np.savez(inputs, **samples)
        given = inputs if samples is not None else "-"
        count = str(len(graph.outputs))
        run: list[str | Path] = [python, "-I", _PROGRAM, model, given, folder / "micro.npz", count]
        found = _on_an_arena(run, folder)
        if "refused" in found:
            return _verdict(graph, refused(graph, "the interpreter", _words(found["refused"], found["said"])))
        if not found["ran"]:
            return _verdict(graph, dict.fromkeys(everything, ("unverified", _NOT_FED)))
        lite: list[str | Path] = [sys.executable, "-I", LITERT, "reference", model, given, folder / "lite.npz"]
        reference = ask(name_of_litert(), lite, folder)
        note = _NOT_COMPARED
        if "refused" not in reference:
            note = _agreement(folder)
    notes = (note, *ran_notes(found), _ARENA_NOTE)
    return _verdict(graph, dict.fromkeys(everything, ("npu-fast", "")), notes, _arena(found["said"]))


def _on_an_arena(run: list[str | Path], folder: Path) -> dict[str, Any]:
    """Its answer on the smallest arena that does: one that is a little too small may crash it, which says nothing yet.

    Measured with MobileNetV2: `Failed to allocate tail memory`, then SIGSEGV instead of an error.
    """
    first = 0
    while True:
        found = ask(SOFTWARE, [*run, str(first)], folder)
        tried = first + len(_ATTEMPT.findall(found["said"]))
        if "crashed while preparing" not in str(found.get("refused")) or tried >= len(ARENAS) or tried == first:
            return found
        first = tried


_NOT_FED = "prepared, but not run: one of the model's inputs has a type or a size that is not made up here"
_NOT_COMPARED = "LiteRT's reference kernels do not run this file: outputs were not compared."
_ARENA_NOTE = (
    "The arena was measured with 64-bit pointers; a microcontroller's are half as long, its arena a little smaller."
)


def _agreement(folder: Path) -> str:
    with np.load(folder / "micro.npz") as found, np.load(folder / "lite.npz") as reference:
        both = [name for name in found.files if name in reference.files]  # samples that ran on both sides
        return agreement([found[name] for name in both], [reference[name] for name in both])


def agreement(found: list[np.ndarray], reference: list[np.ndarray]) -> str:
    """How far all outputs are from the reference kernels', in a sentence."""
    if not found:
        return _NOT_COMPARED
    if any(one.size != other.size for one, other in zip(found, reference, strict=True)):
        return "Outputs have other sizes than those of LiteRT's reference kernels."
    flat, other = (np.concatenate([np.ravel(each).astype(np.float64) for each in all_]) for all_ in (found, reference))
    differ = (flat != other) & ~(np.isnan(flat) & np.isnan(other))
    if not differ.any():
        return "Outputs equal those of LiteRT's reference kernels on the same random inputs."
    return (
        f"{differ.sum()} of {differ.size} outputs differ from LiteRT's reference kernels on the same random inputs, by up to "
        f"{np.abs(flat[differ] - other[differ]).max():.4g}."
    )


_ARENA = re.compile(r"Arena allocation total (\d+) bytes")


def _arena(said: str) -> Estimate | None:
    used = _ARENA.search(said)
    return None if used is None else Estimate(f"{SOFTWARE}: arena", memory_bytes=int(used[1]))


_ATTEMPT = re.compile(r"^arena \d+$", re.MULTILINE)
_MARKS = re.compile(r"^(prepared|allocations|\{.*\})$", re.MULTILINE)


def _words(error: str, said: str) -> str:
    """What it said of the largest arena, which is the last one; and its error, unless that has no more to say."""
    words = _MARKS.sub("", _ATTEMPT.split(said)[-1]).strip()
    return f"{error} {words}".strip() if not words or "crashed" in error else words


def _verdict(
    graph: Graph, placed: Placed, notes: tuple[str, ...] = (), estimate: Estimate | None = None
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
        "No NPU: 'fast' means that it runs on the microcontroller's kernels, run here on this machine's reference build of "
        "them and not on a device. There is nothing to fall back to: one refused operator stops the whole model.",
        "run",
        judge,
        partial(ensure, ENVIRONMENT),
        by_default=4,
    ),
)
