"""The model that a matrix is made of, as files: what routes start from, and what their outputs are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Form:
    """One form of the model: a file that routes start from, and what it says on the samples."""

    file: Path
    """An ONNX file, or an .npz of weights."""
    expected: np.ndarray
    """float32 (N, outputs): what was validated, several outputs and more dimensions laid side by side."""
    lsb: float
    """One output step in real units: the trained scale, or 1/255 of the range of a float network's outputs."""
    onnx: bool
    inputs: Mapping[str, np.ndarray]
    """float32 samples by input name, laid out as this form takes them, samples along axis 0."""
    calibration: Mapping[str, np.ndarray]
    """The same, of what a converter may calibrate with."""
    kind: str
    """What it is in the routes' words: `qdq`, `int8`, `float`, ...; a subject may have several of one kind."""
    output_shapes: tuple[tuple[int, ...], ...] = ()
    """Shape of each output of one sample, as this form lays it out; empty: one output, one dimension."""

    @property
    def classifies(self) -> bool:
        """One score for each of several classes: its largest is what counts."""
        if not self.output_shapes:
            return True
        return len(self.output_shapes) == 1 and len(self.output_shapes[0]) == 1 and self.output_shapes[0][0] > 1


@dataclass(frozen=True, eq=False)
class Subject:
    """A model in one or more forms by name; `labels` are (N, ...) as the metric takes them, None where nobody knows them.

    The first form is the model as its team gave it.
    """

    name: str
    forms: Mapping[str, Form]
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()
    metric: str | None = None
    """What --metric names; None: the share of samples of the label's class, where outputs are scores of classes."""

    @property
    def given(self) -> Form:
        return next(iter(self.forms.values()))

    @property
    def samples(self) -> int:
        return len(self.given.expected)

    @property
    def kinds(self) -> Mapping[str, str]:
        """By the name of the form."""
        return {name: form.kind for name, form in self.forms.items()}


def reference_lsb(logits: np.ndarray, trained: float | None) -> float:
    """One output step in real units: the trained scale; of a float network, 1/255 of the range of its own logits.

    It belongs to the reference, not to the file that is judged: a file with a coarse scale must not look close.
    """
    if trained is not None:
        return trained
    return float(max(logits.max(), 0.0) - min(logits.min(), 0.0)) / 255
