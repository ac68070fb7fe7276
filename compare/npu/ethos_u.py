"""Arm Ethos-U through its own compiler: what Vela leaves out of the ethos-u operator runs on the CPU."""

from __future__ import annotations

import csv
import re
import signal
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tflite

from bridge.errors import BridgeError
from bridge.exact.graph import Graph
from compare.npu.kept import kept
from compare.npu.locked import locked
from compare.npu.model import Estimate, OperatorVerdict, Target, TargetVerdict
from compare.tflite.graph import OpenedTflite
from compare.tflite.macs import macs
from compare.tflite.unpacked import packed, unpacked
from compare.toolchains.environments import Environment, ensure

SECONDS = 120
"""Time limit of one compilation; MobileNetV2 takes half a second."""


@dataclass(frozen=True)
class Compiler:
    """One accelerator, and the version of Vela that compiles for it."""

    version: str
    accelerator: str

    @property
    def environment(self) -> Environment:
        return next(each for each in ENVIRONMENTS if each.name == f"vela-{self.version}")

    @property
    def software(self) -> str:
        return f"ethos-u-vela {self.version}, {self.accelerator}"


def judge(compiler: Compiler, target: str, content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:
    """Compile the file, and read in Vela's own output which operators stayed outside the ethos-u operator.

    Its exit code is 0 even when nothing was placed, so the output file is the evidence. Verdicts are kept in the cache
    by compiler and file.
    """

    def compile_it() -> TargetVerdict:
        return _compiled(compiler, target, ensure(compiler.environment, cache), content, opened)

    return kept(cache, compiler.software, content, compile_it)


def _compiled(compiler: Compiler, target: str, python: Path, content: bytes, opened: OpenedTflite) -> TargetVerdict:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.tflite"
        source.write_bytes(with_numbered_tensors(content))
        command = [str(python), "-I", "-m", "ethosu.vela", str(source), "--accelerator-config", compiler.accelerator]
        try:
            done = subprocess.run(  # noqa: S603 - the environment's own Vela
                [*command, "--output-dir", str(Path(folder) / "out")],
                capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, cwd=folder,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BridgeError(
                where=f"target '{target}'",
                problem=f"{compiler.software} did not finish within {SECONDS} s",
                remedy="Try again when the machine is less busy; nothing was recorded for this file.",
            ) from error
        written = Path(folder) / "out" / "model_vela.tflite"
        if done.returncode != 0 or not written.exists():
            return _refused(compiler, target, opened.graph, how_it_ended(done.returncode, done.stderr))
        try:
            left, estimate = left_to_the_cpu(written.read_bytes()), _estimate(compiler, Path(folder) / "out")
        except (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError) as error:
            return _refused(compiler, target, opened.graph, f"what it wrote cannot be read ({error})")
        return TargetVerdict(
            target=target,
            software=compiler.software,
            basis="compiled",
            operators=_verdicts(compiler, opened.graph, left, reasons(done.stdout + done.stderr)),
            estimate=estimate,
            notes=(_ESTIMATED, *((_WITHOUT_CPU,) if left.tensors else ())),
        )


_ESTIMATED = "Cycles and times are the compiler's estimates, not measured on a device."
_WITHOUT_CPU = "They leave out what runs on the CPU."


def _verdicts(compiler: Compiler, graph: Graph, left: Left, said: Mapping[int, str]) -> tuple[OperatorVerdict, ...]:
    numbers = {name: number for number, name in enumerate(graph.tensors)}
    found = []
    for index, node in enumerate(graph.nodes):
        outputs = [numbers[name] for name in node.outputs]
        falls_back = left.placed_none or any(number in left.tensors for number in outputs)
        reason = next(
            (said[number] for number in outputs if number in said), "Vela places it on the CPU without a reason"
        )
        found.append(
            OperatorVerdict(
                index=index,
                op=node.op,
                tensor=node.outputs[0] if node.outputs else "",
                placement="cpu-fallback" if falls_back else "npu-fast",
                reason=_with_names(reason, list(graph.tensors)) if falls_back else "",
                source=compiler.software,
                macs=macs(graph, node),
            )
        )
    return tuple(found)


def _refused(compiler: Compiler, target: str, graph: Graph, reason: str) -> TargetVerdict:
    """Vela ended without a file: nothing of this model can be deployed."""
    operators = tuple(
        OperatorVerdict(index, node.op, node.outputs[0] if node.outputs else "", "fails", f"Vela made no model of it: {reason}",
                        compiler.software, macs(graph, node))
        for index, node in enumerate(graph.nodes)
    )  # fmt: skip
    return TargetVerdict(target, compiler.software, "compiled", operators)


def how_it_ended(code: int, said: str) -> str:
    """Why Vela wrote nothing: its error, or the signal of a crash, of which it says nothing itself."""
    if code < 0:
        return f"it crashed ({signal.Signals(-code).name})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {code}"


# ------------------------------------------------------------------------------------------------ names

_NAME = re.compile(r"'*tensor(\d+)of(?:_reshape)?\d*'*")
"""A tensor's number; Vela puts names in quotes at some places, and a suffix to those it reshaped or met twice."""


def with_numbered_tensors(content: bytes) -> bytes:
    """The file with every tensor of its main subgraph named `tensor12of`: names in a file may be empty or twice there.

    Raises `BridgeError` for a file that is damaged where `open_tflite` does not look, in its signatures for example.
    """
    model = unpacked(content)
    for number, tensor in enumerate(model.subgraphs[0].tensors or ()):
        tensor.name = f"tensor{number}of"
    return packed(model, len(content) + 1024)


def _with_names(reason: str, names: list[str]) -> str:
    return _NAME.sub(lambda match: f"'{names[int(match[1])]}'", reason)


@dataclass(frozen=True)
class Left:
    """What a compiled file still computes on the CPU. An operator that is in neither place was computed by Vela itself."""

    tensors: frozenset[int]
    """Numbers of the tensors that an operator other than ethos-u computes."""
    placed_none: bool
    """There is no ethos-u operator at all."""


def left_to_the_cpu(content: bytes) -> Left:
    """Read in Vela's output file what stayed outside the ethos-u operators."""
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    found, placed = set(), False
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        if (model.OperatorCodes(operator.OpcodeIndex()).CustomCode() or b"") == b"ethos-u":
            placed = True
            continue
        for j in range(operator.OutputsLength()):
            number = _NAME.match((graph.Tensors(operator.Outputs(j)).Name() or b"").decode(errors="replace"))
            if number is not None:
                found.add(int(number[1]))
    return Left(frozenset(found), not placed)


_FIVE = re.compile(r"operator: \S+, ofm: 'tensor(\d+)of\w*'\s*\nReason: ((?:(?!Warning|Network|\n\n|Tensor ).+\n?)+)")
"""Vela 4 and 5: a line with the operator, then the reason on one or more lines."""
_THREE = re.compile(r"\S+ 'tensor(\d+)of\w*'(?: is not supported on the NPU)?\. Placing on CPU instead\n((?: +.+\n?)+)")
"""Vela 3: the rule and what breaks it, indented."""


_CPU_ONLY = re.compile(r"Info: (\S+) 'tensor(\d+)of\w*' is a CPU only op")
"""Vela 3: an operator it does not know at all."""


def reasons(said: str) -> dict[int, str]:
    """Why an operator is left to the CPU, in Vela's words, by the number of the tensor it computes."""
    found: dict[int, str] = {}
    for match in _CPU_ONLY.finditer(said):
        found[int(match[2])] = f"{match[1]} is a CPU only op"
    for pattern in (_FIVE, _THREE):
        for match in pattern.finditer(said):
            lines = [line.strip(" -") for line in match[2].splitlines() if line.strip()]
            found.setdefault(int(match[1]), "; ".join(lines))
    return found


# ------------------------------------------------------------------------------------------------ estimate


def _estimate(compiler: Compiler, folder: Path) -> Estimate | None:
    """From the summary; None where nothing was placed (Vela writes 0 s and nan then)."""
    for path in folder.glob("*summary*.csv"):
        with path.open(newline="") as lines:
            row = next(csv.DictReader(lines), None)
        if row is None or not float(row["inference_time"]) > 0:
            return None
        return Estimate(
            what=f"{compiler.software}, {row['system_config']}, {row['memory_mode']}",
            inference_seconds=float(row["inference_time"]),
            cycles=int(float(row["cycles_total"])),
            memory_bytes=int(1024 * float(row["sram_memory_used"])),
        )
    return None


# ------------------------------------------------------------------------------------------------ targets

_TODAY, _BOARD = "5.2.0", "3.10.0"
"""NXP's board software lf-6.6.3 ships 3.10.0 (nxp-imx/ethos-u-vela), which crashes with NumPy 2."""

ENVIRONMENTS = (
    locked("vela-5.2.0", ("ethos-u-vela==5.2.0",)),
    # 3.10.0 has no wheel; behind NumPy stands what its pyproject.toml asks for to build it.
    locked(
        "vela-3.10.0",
        ("ethos-u-vela==3.10.0", "numpy==1.26.4", "setuptools", "setuptools_scm[toml]==7.1.0", "wheel"),
        from_source=("ethos-u-vela",),
    ),
)


def _target(identity: str, name: str, about: str, compiler: Compiler, by_default: int | None = None) -> Target:
    return Target(
        identity,
        name,
        about,
        "compiled",
        partial(judge, compiler, identity),
        partial(ensure, compiler.environment),
        by_default,
    )


TARGETS = (
    _target("ethos-u55", "Arm Ethos-U55", "Microcontrollers with 128 MACs per cycle; compiled by today's Vela.",
            Compiler(_TODAY, "ethos-u55-128")),
    _target("imx93", "NXP i.MX 93 (Ethos-U65)", "256 MACs per cycle; compiled by today's Vela.",
            Compiler(_TODAY, "ethos-u65-256"), by_default=3),  # the others take minutes the first time
    _target("imx93-lf6.6.3", "NXP i.MX 93, board software lf-6.6.3",
            "The same chip with the Vela its board software ships, which refuses per-axis dense weights.",
            Compiler(_BOARD, "ethos-u65-256")),
    _target("ethos-u85", "Arm Ethos-U85", "256 MACs per cycle, more operators; compiled by today's Vela.",
            Compiler(_TODAY, "ethos-u85-256")),
)  # fmt: skip
