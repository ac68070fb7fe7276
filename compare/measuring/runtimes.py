"""Files on the runtimes of several toolchains: does each load, and what does it answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare.measuring.feeding import arranged
from compare.report.records.versions import NOT_FINITE
from compare.subjects.case import Case
from compare.subjects.model import Form
from compare.toolchains import Toolchain
from compare.toolchains.protocol import Answer, Work, python_of, work


@dataclass(frozen=True, eq=False)
class Ran:
    """One file on one runtime: its outputs, float32 (N, outputs), or why there are none."""

    outputs: np.ndarray | None
    problem: str | None
    log: str
    versions: Mapping[str, str]


def save_inputs(content: bytes, form: Form, path: Path) -> None:
    """A form's samples as this file takes them, for worker.py; raises `BridgeError` where they do not fit its inputs.

    Maps with as many channels as rows and columns fit in both orders: the form's ONNX model tells.
    """
    arrays = arranged(Case(tflite=content, onnx=form.file.read_bytes() if form.onnx else None, inputs=form.inputs))
    np.savez(path, **{str(index): array for index, array in enumerate(arrays)})


def run_all(
    runtime: Toolchain,
    files: Mapping[str, Path],
    inputs: Mapping[str, Path],
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
    folder: Path,
    cache: Path,
    seconds: float,
    answered: Callable[[str, str | None], None],
) -> dict[str, Ran]:
    """Run every file, by name, on this runtime; `inputs` has each file's samples as `save_inputs` wrote them.

    Outputs are laid out as `shapes` has them: what a file gives as H, W, C and the model as C, H, W is turned.

    Raises `BridgeError` where the runtime's environment cannot be built.
    """
    assert runtime.runtime is not None  # noqa: S101 - the planner only asks those that have one
    module = runtime.runtime

    def job(name: str) -> Work:
        arguments = {"module": module, "tflite": str(files[name]), "inputs": str(inputs[name])}
        return Work(name, "run", {**arguments, "output": str(folder.resolve() / f"{name}.npz")})

    def heard(answer: Answer) -> None:
        answered(answer.work.name, answer.problem)

    answers = work(python_of(runtime, cache), [job(name) for name in files], folder, seconds, answered=heard)
    return {answer.work.name: _ran(answer, folder, shapes[answer.work.name]) for answer in answers}


def _ran(answer: Answer, folder: Path, shapes: Sequence[tuple[int, ...]]) -> Ran:
    problem, outputs = answer.problem, None
    if problem is None:
        try:
            outputs = _loaded(folder / f"{answer.work.name}.npz", shapes)
        except (OSError, ValueError, KeyError, EOFError) as error:
            problem = f"answered with garbage ({error})"
    if outputs is not None and not np.isfinite(outputs).all():
        outputs, problem = None, NOT_FINITE
    return Ran(outputs, problem, answer.log, answer.versions)


def _loaded(path: Path, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    with np.load(path, allow_pickle=False) as stored:
        parts: Sequence[np.ndarray] = [stored[str(index)] for index in range(len(stored.files))]
    if len(shapes) == len(parts):
        parts = [_turned(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    joined: np.ndarray = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    return joined


def _turned(part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures come as H, W, C from every route, also where all three are equal and no shape tells."""
    moved = np.moveaxis(part, -1, 1) if part.ndim >= 3 else part
    fits, fits_turned = part.shape[1:] == shape, moved.shape[1:] == shape
    return moved if fits_turned and (part.ndim == 4 or not fits) else part
