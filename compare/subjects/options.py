"""What `--model` and `--inputs` mean, in every command that takes a team's own model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from bridge.errors import BridgeError
from compare.subjects.code import is_code

if TYPE_CHECKING:
    from compare.subjects.model import Subject
    from compare.subjects.own_training import Training

Prepare = Callable[[Path], "Subject"]
"""Writes a model's files into a folder."""


Model = Annotated[
    str | None, typer.Option(help="Your own model instead of MNIST's: an ONNX file, or MODULE:FACTORY (PyTorch).")
]
Inputs = Annotated[
    Path | None, typer.Option(help="NPZ with its samples by input name; 'labels' as --metric takes them.")
]
DataSet = Annotated[str | None, typer.Option(help="Instead of --inputs: MODULE:FACTORY that gives its samples.")]
Metric = Annotated[
    str | None,
    typer.Option(help="What 'labels' say: top1, top5, miou, map, or MODULE:FUNCTION(outputs, labels), 0 to 1."),
]
Train = Annotated[
    str | None,
    typer.Option(
        help="With a float MODULE:FACTORY: your loop, MODULE:FUNCTION(model); every qconfig is trained by it."
    ),
]
"""The options of every command that takes a team's own model."""


def own_model(
    model: str | None,
    inputs: Path | None,
    dataset: str | None = None,
    metric: str | None = None,
    training: Training | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepare:
    """The team's own model, read once its folder is there; with a `training`, trained then, and `say` hears of it.

    Raises `BridgeError` where the model or its samples are missing, and where samples are given twice.
    """
    if inputs is not None and dataset is not None:
        raise BridgeError(
            where="--inputs, --dataset", problem="both give the samples", remedy="Leave one of the two out."
        )
    if model is None or (inputs is None and dataset is None):
        raise BridgeError(
            where="--model, --inputs",
            problem="belong together; one of them is missing",
            remedy="For example: --model model.onnx --inputs samples.npz, or --model my_package.models:build_qat "
            "--inputs samples.npz",
        )
    from compare.subjects import own, own_training
    from compare.subjects.arrays import read_arrays

    if training is not None:
        own_training.names(training)
        if not is_code(model):
            raise BridgeError(
                where=f"--train {training.train}",
                problem=f"trains what a factory makes, and --model {model} is a file",
                remedy="Give --model MODULE:FACTORY that makes your float model.",
            )

    def made(arrays: Mapping[str, np.ndarray], folder: Path) -> Subject:
        if training is None:
            return own.prepare(model, arrays, folder, metric)
        return own_training.prepare(model, training, arrays, folder, metric, say)

    if inputs is not None:
        arrays = read_arrays(inputs)
        return lambda folder: replace(made(arrays, folder), metric=metric)
    assert dataset is not None  # noqa: S101 - one of the two is there

    def prepare(folder: Path) -> Subject:
        given, said = own.arrays_of(dataset)
        subject = made(given, folder)
        return replace(subject, metric=metric, notes=(*subject.notes, *said))

    return prepare


def refuse_old(option: str, given: object, now: str) -> None:
    """Raise `BridgeError` for an option's old name."""
    if given is not None:
        raise BridgeError(where=option, problem=f"is called {now} now", remedy=f"Give {now} with the same value.")
