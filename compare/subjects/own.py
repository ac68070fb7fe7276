"""A team's own model as a subject: an ONNX file (own_onnx.py), or a PyTorch model (own_torch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compare.running.workers import Lane
from compare.subjects import own_onnx
from compare.subjects.code import is_code
from compare.subjects.model import Subject


def prepare(model: str, inputs: Mapping[str, np.ndarray], folder: Path, metric: str | None = None) -> Subject:
    """A team's model with its samples: the path of an ONNX file, or MODULE:FACTORY that makes a PyTorch model.

    `inputs` are the arrays of its .npz (samples.py); what routes start from is written into `folder`. A factory is run in
    a process of its own.

    Raises `BridgeError` for a model or samples that cannot be used.
    """
    if not is_code(model):
        return own_onnx.of_onnx(Path(model), inputs, folder, metric)
    from compare.subjects import own_torch

    lane = Lane("subject")
    try:
        subject: Subject = lane.submit("", own_torch.prepare, model, dict(inputs), folder, metric).result().get()
        lane.finish()  # exporters hold semaphores
        return subject
    finally:
        lane.close()


def arrays_of(dataset: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """What `--dataset MODULE:FACTORY` gives, by name, and what was left out; the factory runs in a process of its own.

    Raises `BridgeError` for what it raises, and for arrays that are no samples.
    """
    from compare.subjects import own_dataset
    from compare.subjects.arrays import checked

    lane = Lane("dataset")
    try:
        found: tuple[dict[str, np.ndarray], tuple[str, ...]] = (
            lane.submit("", own_dataset.arrays_of, dataset).result().get()
        )
    finally:
        lane.close()
    return dict(checked(found[0], f"--dataset {dataset}")), found[1]
