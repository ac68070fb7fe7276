"""A team's own network in a sweep: trained by its own loop for each seed and qconfig, every route of a toolchain."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.errors import BridgeError
from compare.sweep.own import figures_of
from compare.sweep.rows import row_of

if TYPE_CHECKING:
    from compare.sweep.plan import Task


def digest(model: str, train: str, inputs: Path) -> str:
    """SHA-256 of the samples and of the two modules' own files; what they import is not looked at.

    Raises `BridgeError` for samples that cannot be read, or that have no labels, and for a module that is not there.
    """
    from compare.subjects.arrays import read_arrays
    from compare.subjects.samples import LABELS

    if LABELS not in read_arrays(inputs):
        raise BridgeError(
            where=f"--inputs {inputs}",
            problem="has no labels, and a sweep over trainings compares accuracies",
            remedy="Save 'labels', the class of each sample.",
        )
    total = hashlib.sha256(inputs.read_bytes())
    for option, target in (("--model", model), ("--train", train)):
        total.update(_source(option, target))
    return total.hexdigest()


def _source(option: str, target: str) -> bytes:
    module = target.partition(":")[0]
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    finally:
        sys.path.remove(str(Path.cwd()))
    if found is None or found.origin is None:
        raise BridgeError(
            where=f"{option} {target}",
            problem=f"has no module '{module}' here",
            remedy="Give MODULE:NAME as Python would import it, from the folder that it lies in.",
        )
    return Path(found.origin).read_bytes()


def rows_of(task: Task, expected_digest: str, cache: Path) -> Iterator[dict[str, Any]]:
    """One row of figures for each artifact of the task. Raises `BridgeError` where the network cannot be trained."""
    import tempfile

    from compare.subjects import own_training
    from compare.subjects.arrays import read_arrays

    if not Path(task.folder).is_dir():
        raise BridgeError(
            where=f"{task.folder} on this machine",
            problem="is no folder, and the sweep's modules lie there",
            remedy="Put the same files there.",
        )
    os.chdir(task.folder)
    inputs = Path(task.inputs)
    if digest(task.model, task.train, inputs) != expected_digest:
        raise BridgeError(
            where=f"{task.model} on this machine",
            problem="or its samples are not those that the sweep was started with",
            remedy="Put the same files there.",
        )
    name = task.network.removeprefix("own/")
    with tempfile.TemporaryDirectory() as work:
        training = own_training.Training(task.train, seed=task.seed)
        subject = own_training.one(task.model, training, name, read_arrays(inputs), Path(work) / "model")
        for index, artifact in enumerate(task.artifacts):
            folder = Path(work) / str(index)

            def measure(artifact: str = artifact, folder: Path = folder) -> Mapping[str, Any]:
                return figures_of(task, artifact, subject, folder, cache)

            yield row_of(artifact, measure)
