"""What `--model` and `--inputs` mean, in every command that takes a team's own model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from compare.subjects.model import Subject

Prepare = Callable[[Path], "Subject"]
"""Writes a model's files into a folder."""


def own_model(model: str | None, inputs: Path | None) -> Prepare:
    """The team's own model, read once its folder is there; raises `BridgeError` where one of the two is missing."""
    if model is None or inputs is None:
        raise BridgeError(
            where="--model, --inputs",
            problem="belong together; one of them is missing",
            remedy="For example: --model model.onnx --inputs samples.npz, or --model my_package.models:build_qat "
            "--inputs samples.npz",
        )
    from compare.subjects import own
    from compare.subjects.arrays import read_arrays

    arrays = read_arrays(inputs)
    return lambda folder: own.prepare(model, arrays, folder)


def refuse_old(option: str, given: object, now: str) -> None:
    """Raise `BridgeError` for an option's old name."""
    if given is not None:
        raise BridgeError(where=option, problem=f"is called {now} now", remedy=f"Give {now} with the same value.")
