"""What outputs are worth beside what was validated: samples that changed, and distance; of any subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compare.subjects.model import Form

ONE_LSB = 1.01
"""Runtimes may round the last bit differently; a hundredth is left to float32."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Figures of one file's outputs."""

    changed: np.ndarray
    """bool (N,): samples of another class, or, of what classifies nothing, with an output more than one LSB away."""
    max_lsb: float
    """The largest distance, in steps of the form's output."""


def judged(outputs: np.ndarray, form: Form, reference: np.ndarray | None = None) -> Judged:
    """float32 outputs (N, ...), laid side by side as `form.expected`, held against it; distances against `reference`."""
    if form.classifies:
        changed = outputs.argmax(axis=1) != form.expected.argmax(axis=1)
    else:
        changed = (np.abs(outputs - form.expected) > ONE_LSB * form.lsb).any(axis=1)
    apart = np.abs(outputs - (form.expected if reference is None else reference))
    return Judged(
        changed=changed,
        max_lsb=float(apart.max() / form.lsb),
    )
