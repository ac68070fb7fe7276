"""A team's own model in a sweep: an ONNX file with its samples beside it, every route of a toolchain, held against ONNX Runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import BridgeError
from compare.sweep.rows import row_of

if TYPE_CHECKING:
    from compare.subjects.model import Subject
    from compare.sweep.plan import Task


def samples_of(onnx: Path, given: str = "") -> Path:
    """The `given` samples; without, `model.npz` beside `model.onnx`. Raises `BridgeError` where it is missing."""
    samples = Path(given) if given else onnx.with_suffix(".npz")
    if not samples.is_file():
        raise BridgeError(
            where=f"--models {onnx}",
            problem=f"has no samples beside it ({samples.name})",
            remedy=f"Save them with numpy.savez('{samples}', input_name=array), samples along axis 0; 'labels' are classes.",
        )
    return samples


def digest(onnx: Path, given: str = "") -> str:
    """SHA-256 of the model and its samples. Raises `BridgeError` where either cannot be read, or the samples are none."""
    from bridge.exact.reader import parse_whole
    from compare.subjects.arrays import read_arrays

    read_arrays(samples_of(onnx, given))
    model = parse_whole(onnx).SerializeToString(deterministic=True)
    return hashlib.sha256(hashlib.sha256(model).digest() + samples_of(onnx, given).read_bytes()).hexdigest()


def rows_of(task: Task, expected_digest: str, cache: Path) -> Iterator[dict[str, Any]]:
    """One row of figures for each artifact of the task. Raises `BridgeError` when the model or its samples are no use."""
    import tempfile

    from compare.subjects.arrays import read_arrays
    from compare.subjects.own_onnx import of_onnx

    onnx = Path(task.model)
    if digest(onnx, task.inputs) != expected_digest:
        raise BridgeError(
            where=f"{onnx} on this machine",
            problem="or its samples are not those that the sweep was started with",
            remedy="Put the same files there.",
        )
    with tempfile.TemporaryDirectory() as work:
        subject = of_onnx(onnx, read_arrays(samples_of(onnx, task.inputs)), Path(work) / "model")
        for index, artifact in enumerate(task.artifacts):
            folder = Path(work) / str(index)
            yield row_of(artifact, lambda name=artifact, place=folder: figures_of(task, name, subject, place, cache))  # type: ignore[misc]


def figures_of(task: Task, artifact: str, subject: Subject, folder: Path, cache: Path) -> Mapping[str, Any]:
    """Made by the task's toolchain, run by the current one; raises `BridgeError` where the subject lacks the route's form."""
    from compare.measuring.judging import judged
    from compare.measuring.metrics import distance
    from compare.measuring.runtimes import run_all, save_inputs
    from compare.measuring.scoring import scoring
    from compare.routes.making import Cell, make
    from compare.routes.registry import ROUTES
    from compare.tflite.file import read
    from compare.toolchains import CURRENT, matching
    from compare.toolchains.protocol import JOB_SECONDS

    (toolchain,), (here,) = matching([task.toolchain]), matching([CURRENT])
    route = next(route for route in ROUTES if route.name == artifact.split("/")[0])
    if route.form not in subject.forms:
        said = subject.notes[-1] if subject.notes else "the model has no such form"
        raise BridgeError(where=artifact, problem=said, remedy="")
    form = subject.forms[route.form]
    made = make(Cell(toolchain, route, route.form), form, folder / "made", cache, JOB_SECONDS)
    if made.content is None:
        raise BridgeError(where=artifact, problem=made.problem or "was not made", remedy="")
    file, inputs = (folder / "made.tflite").resolve(), (folder / "inputs.npz").resolve()
    file.write_bytes(made.content)
    save_inputs(made.content, form, inputs)
    shapes = {"it": form.output_shapes}
    (ran,) = run_all(
        here, {"it": file}, {"it": inputs}, shapes, folder / "run", cache, JOB_SECONDS, lambda *_: None
    ).values()
    if ran.outputs is None or ran.outputs.shape != form.expected.shape:
        raise BridgeError(where=f"{artifact}, made", problem=ran.problem or "answers with another shape", remedy="")
    seen, content = judged(ran.outputs, form), read(made.content, "the file")
    with scoring(subject) as score:
        accuracy, reference_accuracy = score(ran.outputs, form), score(form.expected, form)
    return {
        "accuracy": accuracy,
        "reference_accuracy": reference_accuracy,
        "disagreements": int(seen.changed.sum()),
        "max_lsb": seen.max_lsb,
        "equal_outputs": distance(ran.outputs, form.expected, form.lsb).equal,
        "size": len(made.content),
        "sha256": hashlib.sha256(made.content).hexdigest(),
        "operators": len(content.operators),
        "float_operators": sum(not content.is_integer(operator) for operator in content.operators),
        **(_masks(ran.outputs, form.expected, subject.labels) if accuracy is not None and form.classifies else {}),
    }


def _masks(outputs: np.ndarray, expected: np.ndarray, labels: np.ndarray | None) -> Mapping[str, Any]:
    right = {"correct": outputs.argmax(axis=1) == labels, "reference_correct": expected.argmax(axis=1) == labels}
    return {name: np.packbits(mask).tobytes().hex() for name, mask in right.items()}
