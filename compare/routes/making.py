"""One route under one toolchain: its job, given to the toolchain's worker, and the file that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare.routes.model import Route
from compare.subjects.model import Form
from compare.toolchains import CURRENT, Toolchain, matching
from compare.toolchains.protocol import Answer, Work, python_of, work


@dataclass(frozen=True, eq=False)
class Cell:
    """One artifact to make: a route under a toolchain, from one form of the subject."""

    toolchain: Toolchain
    route: Route
    form: str
    """The form's name."""

    @property
    def id(self) -> str:
        """`toolchain/route`, and the form where its name says more than the route does."""
        parts = [self.toolchain.id, self.route.name, *([] if self.form == self.route.form else [self.form])]
        return "/".join(parts)


@dataclass(frozen=True, eq=False)
class Made:
    """What became of one cell; `content` is None exactly when there is a problem."""

    cell: Cell
    content: bytes | None
    problem: str | None
    onnx: bytes | None
    """What the file was made from, where that is ONNX: of a bridged route, what the toolchain wrote."""
    answers: tuple[Answer, ...]

    @property
    def id(self) -> str:
        return self.cell.id

    @property
    def log(self) -> str:
        return "".join(answer.log for answer in self.answers)


def planned(chosen: Sequence[Toolchain], routes: Sequence[Route], kinds: Mapping[str, str]) -> list[Cell]:
    """Every route under every toolchain that goes it, from every form of its kind; `kinds` are those of the forms by name."""
    return [
        Cell(toolchain, route, name)
        for toolchain in chosen
        for route in routes
        for name, kind in kinds.items()
        if route.job is not None and route.job.ability in toolchain.routes and route.form == kind
    ]


def make(cell: Cell, form: Form, folder: Path, cache: Path, seconds: float) -> Made:
    """Go the route in an empty `folder`; raises `BridgeError` where the toolchain's environment cannot be built."""
    job = cell.route.job
    assert job is not None  # noqa: S101 - `planned` gives no other
    folder.mkdir(parents=True)
    wanted = folder / ("quantized.onnx" if job.bridged else "made.tflite")
    arguments = {
        **job.arguments,
        ("onnx" if form.onnx else "weights"): str(form.file.resolve()),
        "output": str(wanted),
    }
    if job.layout != "none":
        arguments["calibration"] = str(saved_calibration(form.calibration, job.layout, folder / "calibration.npz"))
    elif not form.onnx:
        arguments["calibration"] = ""
    answers = work(python_of(cell.toolchain, cache), [Work(job.do, job.do, arguments)], folder, seconds)
    onnx = form.file.read_bytes() if form.onnx else None
    if job.bridged and answers[-1].problem is None and wanted.exists():
        onnx, converted = wanted.read_bytes(), folder / "made.tflite"
        (current,) = matching([CURRENT])
        bridge = Work("exact", "exact", {"onnx": str(wanted), "output": str(converted)})
        answers += work(python_of(current, cache), [bridge], folder / "bridge", seconds)
        wanted = converted
    problem = answers[-1].problem
    if problem is None and not wanted.exists():
        problem = "finished without writing its file"
    return Made(cell, None if problem else wanted.read_bytes(), problem, onnx, answers)


def saved_calibration(arrays: Mapping[str, np.ndarray], layout: str, path: Path) -> Path:
    """`nhwc`: what is laid out N, C, ... becomes N, ..., C, as TensorFlow takes it."""
    laid_out = {
        name: np.moveaxis(array, 1, -1) if layout == "nhwc" and array.ndim >= 3 else array
        for name, array in arrays.items()
    }
    np.savez(path, **{name: np.ascontiguousarray(array, np.float32) for name, array in laid_out.items()})
    return path.resolve()
