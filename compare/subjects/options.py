"""What `--model` and `--inputs` mean, in every command that takes a team's own model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from compare.subjects.model import Subject

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
"""The options of every command that takes a team's own model."""


def own_model(model: str | None, inputs: Path | None, dataset: str | None = None, metric: str | None = None) -> Prepare:
    """The team's own model, read once its folder is there.

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
    from compare.subjects import own
    from compare.subjects.arrays import read_arrays

    if inputs is not None:
        arrays = read_arrays(inputs)
        return lambda folder: replace(own.prepare(model, arrays, folder, metric), metric=metric)
    assert dataset is not None  # noqa: S101 - one of the two is there

    def prepare(folder: Path) -> Subject:
        given, said = own.arrays_of(dataset)
        subject = own.prepare(model, given, folder, metric)
        return replace(subject, metric=metric, notes=(*subject.notes, *said))

    return prepare


def refuse_old(option: str, given: object, now: str) -> None:
    """Raise `BridgeError` for an option's old name."""
    if given is not None:
        raise BridgeError(where=option, problem=f"is called {now} now", remedy=f"Give {now} with the same value.")
