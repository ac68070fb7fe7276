"""One task of a sweep in a process of its own: `python -m compare.sweep.job REQUEST.json ANSWER.json`.

Trains the network (or finds it in the cache), makes every artifact of the task, runs each on the test images, and writes
one row for each. An artifact that cannot be made is a row with its reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import hashlib
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import BridgeError
from compare.sweep.plan import MNIST, Task, made_with, settings_of
from compare.sweep.rows import Figures, row_of
from compare.toolchains import CURRENT

if TYPE_CHECKING:
    from compare.subjects.mnist.dataset import Dataset
    from compare.subjects.mnist.networks import TrainedNetwork

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a process gets when the one that started it dies."""


def main() -> None:
    request, answer = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    _end_with_parent()
    if request["made_with"] != made_with():
        raise BridgeError(
            where=f"this machine ({platform.node()})",
            problem="has another version of this project or of its packages than the one the sweep was started on",
            remedy="Install the same on every machine: the same checkout, then make.",
        )
    task = Task(**{**request["task"], "artifacts": tuple(request["task"]["artifacts"])})
    rows = list(_rows(task, request["data"], request["digest"], Path(request["cache"])))
    beside = answer.with_suffix(".part")
    beside.write_text(json.dumps(rows))
    beside.replace(answer)


def _rows(task: Task, data_spec: str | None, digest: str, cache: Path) -> Iterator[dict[str, Any]]:
    if task.model == MNIST:
        return rows_of(task, data_spec, digest, cache)
    from compare.sweep import own, own_trained

    return own_trained.rows_of(task, digest, cache) if task.train else own.rows_of(task, digest, cache)


def rows_of(task: Task, data_spec: str | None, digest: str, cache: Path) -> Iterator[dict[str, Any]]:
    """One row of figures for each artifact of the task. Raises `BridgeError` when the network itself cannot be had."""
    import tempfile

    from compare.subjects.mnist import dataset

    data = dataset.load(data_spec, cache=cache)
    if data.digest != digest:
        raise BridgeError(
            where=f"data '{data_spec or 'embedded sample'}' on this machine",
            problem="is not the data that the sweep was started with",
            remedy="Put the same files there, or use the embedded sample.",
        )
    with tempfile.TemporaryDirectory() as work:
        network = _trained(task, data, cache, Path(work))
        for artifact in task.artifacts:

            def measure(name: str = artifact) -> Figures:
                content = _made(task, name, network, data, cache, Path(work))
                return _figures(content, network, _form(task, name), data)

            yield row_of(artifact, measure)


def _trained(task: Task, data: Dataset, cache: Path, work: Path) -> TrainedNetwork:
    """The task's network; the float network that both frameworks start from is trained by one process at a time."""
    from compare.subjects.mnist import networks
    from compare.subjects.mnist.shared_start import torch_to_keras

    settings = settings_of(task)
    specs = {spec.id: spec for spec in networks.NETWORKS}

    def train(identity: str, start: networks.Arrays | None) -> TrainedNetwork:
        job = networks.Job(
            specs[identity], settings, cache / "networks", fresh=False, work=work, exporter="torchscript"
        )
        return networks.train(job, data, start)

    with _alone(cache / "networks" / f"torch-{task.preset}-{task.seed}.lock"):
        first = train("torch/float", None)
    if task.network == first.spec.id:
        return first
    if specs[task.network].framework == "torch":
        return train(task.network, first.arrays)
    return train(task.network, torch_to_keras(first.arrays))


def _made(task: Task, artifact: str, network: TrainedNetwork, data: Dataset, cache: Path, work: Path) -> bytes:
    form = _form(task, artifact)
    if form in network.refusals:
        raise BridgeError(where=artifact, problem=network.refusals[form], remedy="")
    if task.toolchain != CURRENT:
        return _made_elsewhere(task, artifact, network, data, cache, work)
    from compare.routes.model import Source
    from compare.routes.registry import variants
    from compare.subjects.mnist.calibration import calibration_images

    here, variant = next((route.here, variant) for route, variant in variants() if variant.id(route.name) == artifact)
    assert here is not None  # noqa: S101 - it has variants
    calibration = calibration_images(data, variant.settings.get("calibration", "representative"))
    settings = settings_of(task)
    source = Source(network.spec, settings, network.arrays, network.onnx.get(variant.form))
    try:
        return here.convert(source, variant, calibration)
    finally:
        gc.collect()  # TensorFlow's converter leaves hundreds of megabytes in cycles


def _made_elsewhere(
    task: Task, artifact: str, network: TrainedNetwork, data: Dataset, cache: Path, work: Path
) -> bytes:
    from compare.routes.making import Cell, make
    from compare.routes.registry import ROUTES
    from compare.subjects.mnist.forms import forms_of
    from compare.toolchains import matching
    from compare.toolchains.protocol import JOB_SECONDS

    (toolchain,) = matching([task.toolchain])
    route = next(route for route in ROUTES if route.name == artifact.split("/")[0])
    form = forms_of(network, data, work)[route.form]
    made = make(Cell(toolchain, route, route.form), form, work / artifact.replace("/", "--"), cache, JOB_SECONDS)
    if made.content is None:
        raise BridgeError(where=artifact, problem=made.problem or "was not made", remedy="")
    return made.content


def _form(task: Task, artifact: str) -> str:
    """Which form of the network the artifact is made from, and held against."""
    from compare.routes.registry import ROUTES, variants

    if task.toolchain == CURRENT:
        return next(variant.form for route, variant in variants() if variant.id(route.name) == artifact)
    return next(route.form for route in ROUTES if route.name == artifact.split("/")[0])


def _figures(content: bytes, network: TrainedNetwork, form: str, data: Dataset) -> Figures:
    """What a row says of a file, held against the form it was made from: the same whenever and wherever it is measured."""
    from compare.measuring import metrics
    from compare.subjects.model import reference_lsb
    from compare.tflite.file import read

    logits = metrics.outputs(content, data.test_images)
    expected = network.expected(form)
    apart = metrics.distance(logits, expected, reference_lsb(expected, network.output_scale))
    file = read(content, "the file")
    right, reference_right = (scores.argmax(axis=1) == data.test_labels for scores in (logits, expected))
    return {
        "accuracy": float(right.mean()),
        "reference_accuracy": float(reference_right.mean()),
        "disagreements": apart.disagreements,
        "max_lsb": apart.max_lsb,
        "equal_outputs": apart.equal,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "operators": len(file.operators),
        "float_operators": sum(not file.is_integer(operator) for operator in file.operators),
        "correct": np.packbits(right).tobytes().hex(),
        "reference_correct": np.packbits(reference_right).tobytes().hex(),
    }


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _end_with_parent() -> None:
    """Where the system can do it (Linux): a sweep that is killed leaves no job behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it died before that
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    try:
        main()
    except BridgeError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(2)
