"""A .tflite is run in a bounded process, never in ours: LiteRT may refuse it, end the process, or not come back.

`tried` loads and runs a file once on each kernel set; `run` gives what it computes. Nothing else in the laboratory's
reading commands runs a file that somebody else made.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph
from bridge.verifying.litert import KERNELS, KernelSet
from bridge.verifying.missing import missing
from compare.tflite.graph import OpenedTflite, open_tflite
from compare.tflite.macs import macs

PROGRAM = Path(__file__).with_name("litert_server.py")

SECONDS = 4
"""Of processor time, for any file; more for one with much to compute."""
_A_SECOND = 2**28
"""Multiply-accumulates and elements for which another second is given: built-in kernels do ten times as many."""
MOST_SECONDS = 120
MOST_ELEMENTS = 2**30
"""Of one tensor. A damaged file may ask for more memory than there is."""
MOST_BYTES = 6 * 2**30
"""Of address space, constants not included."""
REFERENCE_MACS = 2**25
"""Up to which the slow reference kernels run a file too; larger ones are only prepared on them."""

KERNEL_SETS: tuple[KernelSet, ...] = ("xnnpack", "builtin", "reference")
_NAMES: Mapping[KernelSet, str] = {
    "xnnpack": "XNNPACK kernels",
    "builtin": "built-in kernels",
    "reference": "reference kernels",
}


@dataclass(frozen=True)
class Operand:
    """An input or output of a file, as LiteRT has it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Trial:
    """What LiteRT makes of a file when it is loaded and run once on each kernel set."""

    problems: tuple[str, ...]
    """A sentence for each way in which it does not run as it is written; a file with one must not be run."""
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    only_prepared: bool = False
    """It was too large to be run on the reference kernels too."""
    unknown_to_reference: str = ""
    """What the reference kernels say of an operator that they do not have, as ROUND; such a file runs without them."""


@lru_cache(maxsize=64)
def tried(content: bytes) -> Trial:
    """Load and run a .tflite once on every kernel set.

    Raises `BridgeError` for a file that cannot be read, and where ai-edge-litert is missing.
    """
    opened = open_tflite(content)
    large = next((each for each in opened.graph.tensors.values() if prod(map(abs, each.shape)) > MOST_ELEMENTS), None)
    if large is not None:
        shape = "x".join(map(str, large.shape))
        return Trial((f"it is not run: tensor '{large.name}' of {shape} has more than {MOST_ELEMENTS:,} elements",))
    work = sum(macs(opened.graph, node) for node in opened.graph.nodes)
    answers = {
        kernels: _ask(content, opened.graph, kernels, invoke=kernels != "reference" or work <= REFERENCE_MACS)
        for kernels in KERNEL_SETS
    }
    shown = answers["builtin"]
    unknown = str(answers["reference"].get("refused", "")) if "shapes" in shown else ""
    unknown = unknown if unknown.startswith("Didn't find op") else ""
    if unknown:
        del answers["reference"]
    refusals = tuple(_sentences(answers))
    if "shapes" not in shown:
        return Trial(refusals)
    inputs, outputs = ([_operand(each) for each in shown[side]] for side in ("inputs", "outputs"))
    lies = () if refusals else tuple(_lies(opened, answers))
    return Trial((*refusals, *lies), tuple(inputs), tuple(outputs), work > REFERENCE_MACS, unknown[:200])


def _operand(record: Mapping[str, Any]) -> Operand:
    return Operand(record["name"], tuple(record["shape"]), record["dtype"])


def _sentences(answers: Mapping[KernelSet, Mapping[str, Any]]) -> Iterator[str]:
    """One for each way of not running, with the kernel sets that have it."""
    grouped: dict[str, list[str]] = {}
    for kernels, answer in answers.items():
        said = _problem(answer)
        if said is not None:
            grouped.setdefault(said, []).append(_NAMES[kernels])
    for said, names in grouped.items():
        yield f"it does not run on LiteRT's {_listed(names)}: {said}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _problem(answer: Mapping[str, Any]) -> str | None:
    if "refused" in answer:
        return str(answer["refused"])[:300]
    if "ended" in answer:
        return f"LiteRT ends the process while {answer['doing']} ({answer['ended']})"
    if "silent" in answer:
        return f"no answer within {answer['silent']} s of processor time while {answer['doing']}"
    return None


def _lies(opened: OpenedTflite, answers: Mapping[KernelSet, Mapping[str, Any]]) -> Iterator[str]:
    """The first shape that the file gives otherwise than LiteRT computes it: everything but LiteRT takes the file's word.

    Built-in kernels tell the shape of every tensor, the others those of the outputs: XNNPACK's transposed convolution,
    for one, does not look at the output shape that it is given.
    """
    open_shapes = frozenset(opened.dynamic)
    for kernels in sorted(answers, key=lambda each: each != "builtin"):
        for place, (name, tensor) in enumerate(opened.graph.tensors.items()):
            computed = answers[kernels].get("shapes", {}).get(str(place))
            if computed is None or tensor.is_constant or name in open_shapes or not tensor.shape:
                continue
            if tuple(computed) != tensor.shape and (kernels == "builtin" or name in opened.graph.outputs):
                by = "LiteRT computes" if kernels == "builtin" else f"LiteRT's {_NAMES[kernels]} compute"
                yield f"tensor '{name}' has shape {tensor.shape} in the file, and {by} {tuple(computed)}"
                return


def run(
    content: bytes, inputs: Sequence[np.ndarray], wanted: Sequence[int] | None = None, kernels: KernelSet = "builtin"
) -> list[np.ndarray]:
    """What the tensors at these places of the file (None: its outputs) hold, all samples along their first axis.

    `inputs`: (samples, *shape) for each input of the file, as it stores them.

    Raises `BridgeError` for a file that does not run as it is written; then it is not run at all.
    """
    refuse_what_does_not_run(content)
    opened = open_tflite(content)
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / "outputs"
        answer = _ask(content, opened.graph, kernels, inputs=inputs, wanted=wanted, outputs=outputs)
        said = _problem(answer)
        if said is not None:
            raise _does_not_run(f"it does not run on LiteRT's {_NAMES[kernels]}: {said}")
        with outputs.open("rb") as file:
            return [np.load(file) for _ in range(len(opened.graph.outputs) if wanted is None else len(wanted))]


def refusals(content: bytes) -> str:
    """One line for each kernel set that does not load the file, the delegate's reason included; empty when all do."""
    graph = open_tflite(content).graph
    said = {kernels: _problem(_ask(content, graph, kernels, invoke=False)) for kernels in KERNELS}
    return "".join(f"{kernels}: {problem}\n" for kernels, problem in said.items() if problem is not None)


def refuse_what_does_not_run(content: bytes) -> None:
    """Raise `BridgeError` with the first reason why a file does not run as it is written."""
    for problem in tried(content).problems[:1]:
        raise _does_not_run(problem)


def _does_not_run(problem: str) -> BridgeError:
    return BridgeError(
        where=".tflite",
        problem=problem,
        remedy="Convert the model again, and check that the file was copied whole.",
    )


def _ask(
    content: bytes,
    graph: Graph,
    kernels: KernelSet,
    *,
    invoke: bool = True,
    inputs: Sequence[np.ndarray] | None = None,
    wanted: Sequence[int] | None = None,
    outputs: Path | None = None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model, samples = Path(folder) / "model.tflite", Path(folder) / "inputs"
        model.write_bytes(content)
        if inputs is not None:
            with samples.open("wb") as file:
                for array in inputs:
                    np.save(file, array)
        request = {
            "model": str(model),
            "kernels": kernels,
            "invoke": invoke,
            "inputs": None if inputs is None else str(samples),
            "wanted": None if wanted is None else list(wanted),
            "outputs": None if outputs is None else str(outputs),
            "seconds": _seconds(graph, len(inputs[0]) if inputs else 1),
            "bytes": MOST_BYTES + 4 * len(content),
        }
        return _SERVER.answer(request)


def _seconds(graph: Graph, samples: int) -> int:
    """A minute for thousands of samples is no sign of a fault; hours for one are."""
    work = sum(abs(macs(graph, node)) for node in graph.nodes)
    work += sum(prod(map(abs, tensor.shape)) for tensor in graph.tensors.values())
    return min(MOST_SECONDS, SECONDS + work // _A_SECOND) * max(1, -(-samples // 8))


class _Server:
    """The program that forks, started when it is first needed, and again where it has gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            process = self._ready()
            assert process.stdin is not None  # noqa: S101 - asked for
            assert process.stdout is not None  # noqa: S101
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            except BaseException:
                self.end()  # its answer must not be taken for that to the next request
                raise
            if not line:
                self.end()
                return {"ended": "the process that ran it is gone", "doing": "running it"}
            answer: dict[str, Any] = json.loads(line)
            return answer

    def _ready(self) -> subprocess.Popen[str]:
        if self._owner != os.getpid():  # a fork of the process that started it
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            if find_spec("ai_edge_litert") is None:
                raise missing("ai-edge-litert", "verify")
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", str(PROGRAM)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        return self._process

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not sent yet has no reader
                        pipe.close()
            process.kill()
            process.wait()


_SERVER = _Server()
atexit.register(_SERVER.end)
