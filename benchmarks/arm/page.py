"""What came out on each core, as figures and as the page docs/arm.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.arm.jobs import HOST, Jobs
from bridge.exact.graph import Graph

if TYPE_CHECKING:
    from benchmarks.arm.machine import Core
    from bridge.verifying.litert import KernelSet

ROUNDED_OTHERWISE = {
    "MUL": "fixed point (`rndnu`) on NEON, float on x86 (XNNPACK, src/configs/binary-elementwise-config.c)",
    "SOFTMAX": "another table on aarch64 (LiteRT, TFLITE_SOFTMAX_USE_UINT16_LUT)",
}
"""Operators whose kernels round differently on ARM, by 1 LSB: everything else must be equal."""


@dataclass
class Figures:
    """Which job is what; all of them are read from the folder of the jobs."""

    networks: list[tuple[str, Graph, str]] = field(default_factory=list)
    operators: list[tuple[str, str]] = field(default_factory=list)
    crafted: list[tuple[str, str, str]] = field(default_factory=list)
    """Operator, job with the weights as trained, job with them made safe."""
    box_filter: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    """`--weights`, job, and what the fake-quant model says, in codes."""


@dataclass(frozen=True)
class Apart:
    """How two runs of one file differ."""

    outputs: int
    equal: int
    worst: float
    classes: int = 0
    """Samples whose largest output is another one."""

    @property
    def same(self) -> bool:
        return self.equal == self.outputs

    def __str__(self) -> str:
        if self.same:
            return "every bit"
        changed = f", {self.classes} classes" if self.classes else ""
        share = f"{self.equal / self.outputs:.2%}".replace("100.00%", "over 99.99%")
        return f"{share}, {self.worst:.3g} LSB{changed}"


def apart(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> Apart:
    """All outputs of all samples together; codes, so that a difference is LSBs."""
    outputs = equal = classes = 0
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        away = np.abs(a.astype(np.float64) - b.astype(np.float64))
        outputs, equal, worst = outputs + away.size, equal + int((away == 0).sum()), max(worst, float(away.max()))
        if a.ndim == 3 and a.shape[1] == 1 and a.shape[2] > 1:
            classes += int((a.argmax(2) != b.argmax(2)).sum())
    return Apart(outputs, equal, worst, classes)


def _together(all_of_them: Sequence[Apart]) -> Apart:
    return Apart(
        sum(each.outputs for each in all_of_them),
        sum(each.equal for each in all_of_them),
        max((each.worst for each in all_of_them), default=0.0),
        sum(each.classes for each in all_of_them),
    )


def on_core(jobs: Jobs, name: str, core: Core, kernels: KernelSet = "xnnpack") -> Apart | None:
    """A job on a core against the same job on x86, the same kernel set; None where one of them did not run."""
    here, there = jobs.outputs(name, HOST, kernels), jobs.outputs(name, core.name, kernels)
    return None if here is None or there is None else apart(there, here)


def unexplained(figures: Figures, jobs: Jobs, cores: Sequence[Core]) -> list[str]:
    """What the page does not explain: another operator than those that round otherwise, more than 1 LSB, a file that does not run."""
    said: list[str] = []
    for core in cores:
        for op, name in figures.operators:
            found = on_core(jobs, name, core)
            if found is None:
                said.append(f"{core.name}: {op} ({name}) did not run: {_why(jobs, name, core)}")
            elif not found.same and (op not in ROUNDED_OTHERWISE or found.worst > 1):
                said.append(f"{core.name}: {op} alone ({name}): {found}")
        for label, _, name in figures.networks:
            if on_core(jobs, name, core) is None:
                said.append(f"{core.name}: {label} did not run: {_why(jobs, name, core)}")
        for op, _, name in figures.crafted:
            found = on_core(jobs, name, core)
            if found is None or not found.same:
                said.append(f"{core.name}: {op} with safe weights ({name}): {found}")
    return said


def _why(jobs: Jobs, name: str, core: Core) -> str:
    return jobs.failed.get((core.name, name)) or jobs.failed.get((HOST, name)) or "no outputs"


def page(figures: Figures, jobs: Jobs, cores: Sequence[Core], about: str, asked: str) -> str:
    """Everything as Markdown."""
    heads = " | ".join(f"Cortex-{core.name.upper()}" for core in cores)
    rule = "|".join("---" for _ in cores)
    lines = [INTRODUCTION.format(about=about, asked=asked, files=len(jobs.names)), "## Whole files", ""]
    lines += ["Against XNNPACK on x86: equal outputs, largest difference, changed classes.", ""]
    lines += [f"| file | operators | samples | outputs | {heads} |", f"|---|---:|---:|---:|{rule}|"]
    lines += list(_whole(figures, jobs, cores))
    lines += ["", "## Operators alone", "", _ALONE, ""]
    lines += [f"| operator | files | outputs | {heads} |", f"|---|---:|---:|{rule}|", *_alone(figures, jobs, cores)]
    lines += ["", *(f"- {op}: {why}." for op, why in ROUNDED_OTHERWISE.items())]
    lines += ["", "## Weights of -128", "", _LOWEST, ""]
    lines += [f"| operator | kernels | weights | x86 | {heads} |", f"|---|---|---|---|{rule}|"]
    lines += list(_crafted(figures, jobs, cores))
    lines += ["", "## A network that a user would train", "", _BOX_FILTER, ""]
    lines += [f"| `--weights` | x86 | {heads} |", f"|---|---|{rule}|", *_boxes(figures, jobs, cores)]
    failed = [f"- {processor}, {name}: {reason}" for (processor, name), reason in sorted(jobs.failed.items())]
    return "\n".join([*lines, *(["", "## Did not run", "", *failed] if failed else [])]) + "\n"


def _cell(found: Apart | None) -> str:
    return "did not run" if found is None else str(found)


def _whole(figures: Figures, jobs: Jobs, cores: Sequence[Core]) -> Iterator[str]:
    drawn: list[str] = []
    for label, graph, name in figures.networks:
        if label.startswith("drawn"):
            drawn.append(name)
            continue
        here = jobs.outputs(name, HOST)
        samples, outputs = (0, 0) if here is None else (len(here[0]), sum(each.size for each in here))
        cells = " | ".join(_cell(on_core(jobs, name, core)) for core in cores)
        yield f"| {label} | {len(graph.nodes)} | {samples} | {outputs:,} | {cells} |"
    if drawn:
        found = {core.name: [on_core(jobs, name, core) for name in drawn] for core in cores}
        nodes = sum(len(graph.nodes) for label, graph, _ in figures.networks if label.startswith("drawn"))
        cells = " | ".join(_counted(found[core.name]) for core in cores)
        outputs = sum(each.outputs for each in found[cores[0].name] if each is not None)
        yield f"| {len(drawn)} drawn graphs | {nodes:,} | 3 each | {outputs:,} | {cells} |"


def _counted(found: Sequence[Apart | None]) -> str:
    """`every bit`, or how many files differ, and the rest of it."""
    ran = [each for each in found if each is not None]
    lost = f"; {len(found) - len(ran)} did not run" if len(ran) < len(found) else ""
    different = sum(not each.same for each in ran)
    if not different:
        return f"every bit{lost}"
    return f"{different} of {len(ran)} files: {_together(ran)}{lost}"


_ALONE = (
    "Every operator of these files as a file of its own, fed with what x86 computes up to it. Aim: every bit, but for "
    "the two whose kernels round otherwise."
)


def _alone(figures: Figures, jobs: Jobs, cores: Sequence[Core]) -> Iterator[str]:
    by_op: dict[str, list[str]] = defaultdict(list)
    for op, name in figures.operators:
        by_op[op].append(name)
    for op, names in sorted(by_op.items()):
        found = {core.name: [on_core(jobs, name, core) for name in names] for core in cores}
        outputs = sum(each.outputs for each in found[cores[0].name] if each is not None)
        yield f"| {op} | {len(names):,} | {outputs:,} | {' | '.join(_counted(found[core.name]) for core in cores)} |"


_LOWEST = (
    "Files of one operator, half of the weights and half of the inputs -128: on x86 against the reference kernels, on ARM "
    "against the same kernels on x86. *as trained* is what `--weights keep` writes, *safe* the default (bridge/exact/pair_sums.py has the proof). "
    "BATCH_MATMUL multiplies two computed tensors; there safe is a MAXIMUM before it. *builtin* are LiteRT's own kernels, "
    "which run what XNNPACK does not take; theirs of convolutions round otherwise on ARM, by 1 LSB."
)


def _crafted(figures: Figures, jobs: Jobs, cores: Sequence[Core]) -> Iterator[str]:
    ops = dict.fromkeys(op for op, _, _ in figures.crafted)
    kernel_sets: tuple[KernelSet, ...] = ("xnnpack", "builtin")
    for op in ops:
        for kernels in kernel_sets:
            for index, weights in ((1, "as trained"), (2, "safe")):
                names = [str(row[index]) for row in figures.crafted if row[0] == op]
                cells = []
                for core in cores:
                    found = [on_core(jobs, name, core, kernels) for name in names]
                    ran = [each for each in found if each is not None]
                    cells.append(str(_together(ran)) if len(ran) == len(found) else "did not run")
                here = [_on_x86(jobs, name, kernels) for name in names]
                said = str(_together([each for each in here if each is not None])) if all(here) else "did not run"
                yield f"| {op} | {kernels} | {weights} | {said} | {' | '.join(cells)} |"


def _on_x86(jobs: Jobs, name: str, kernels: KernelSet) -> Apart | None:
    """A kernel set against the reference kernels, both here."""
    one, reference = jobs.outputs(name, HOST, kernels), jobs.outputs(name, HOST, "reference")
    return None if one is None or reference is None else apart(one, reference)


_BOX_FILTER = (
    "A 1x1 convolution, a ReLU and a depthwise 3x3 whose first six of 16 channels start as a box filter times -1, trained "
    "with qconfig `qnnpack` (benchmarks/arm/box_filter.py), against its fake-quant model."
)


def _boxes(figures: Figures, jobs: Jobs, cores: Sequence[Core]) -> Iterator[str]:
    for weights, name, expected in figures.box_filter:
        cells = []
        for processor in (HOST, *(core.name for core in cores)):
            got = jobs.outputs(name, processor)
            cells.append("did not run" if got is None else str(apart(got, [expected])))
        yield f"| {weights} | {' | '.join(cells)} |"


INTRODUCTION = """# On ARM processors

Written by `make arm` (`python -m benchmarks.arm {asked} --write docs/arm.md`): {files:,} files on each core.

The bridge's files on LiteRT for aarch64, run by emulation on this machine: {about}. QEMU is exact on integers and on
IEEE floats, so that what is computed is what a board computes with the same kernels; times mean nothing. Which kernels
LiteRT takes follows from the core that Linux describes. Packages of Debian or Ubuntu and PyPI are unpacked into the
cache folder; nothing is installed, and root is not needed.

Not run: a board, GPUs and NPUs, other versions of LiteRT, cores with SVE or with matrix instructions (i8mm).
"""
