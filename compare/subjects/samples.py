"""A team's samples: the arrays of one .npz, told apart into inputs, labels and what a converter may calibrate with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bridge.errors import BridgeError
from compare.subjects.model import Form

LABELS, CALIBRATION = "labels", "calibration"
"""Arrays of these names are no inputs; of several inputs, each has its own `calibration:NAME`."""
CALIBRATION_SAMPLES = 100


@dataclass(frozen=True, eq=False)
class Samples:
    """float32 by input name, samples along axis 0."""

    inputs: Mapping[str, np.ndarray]
    calibration: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    """(N, ...), as the metric takes them."""
    own_calibration: bool
    """False where the first of the samples calibrate."""


def samples(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Samples:
    """The arrays as a model with these inputs takes them; with one input its array may have any name.

    Raises `BridgeError` for a missing array, and for numbers of samples that do not agree.
    """
    labels = arrays.get(LABELS)
    special = {LABELS, CALIBRATION} | {name for name in arrays if name.startswith(f"{CALIBRATION}:")}
    inputs = _named({name: array for name, array in arrays.items() if name not in special}, names)
    counts = {len(array) for array in inputs.values()} | ({len(labels)} if labels is not None else set())
    if len(counts) != 1:
        raise BridgeError(
            where="--inputs",
            problem=f"has arrays with different numbers of samples: {sorted(counts)}",
            remedy="Save as many samples of each input, and as many labels.",
        )
    own = {name: arrays[key] for name in names if (key := _calibration_of(name, arrays, names)) is not None}
    if own and len(own) != len(names):
        raise BridgeError(
            where="--inputs",
            problem=f"has calibration data for {len(own)} of {len(names)} inputs",
            remedy=f"Save one array for each: {', '.join(f'{CALIBRATION}:{name}' for name in names)}.",
        )
    calibration = {name: np.ascontiguousarray(array, np.float32) for name, array in own.items()}
    for name, array in calibration.items():
        if array.shape[1:] != inputs[name].shape[1:]:
            raise BridgeError(
                where=f"--inputs, calibration data of '{name}'",
                problem=f"has shape {array.shape}, and the samples {inputs[name].shape}",
                remedy="Save it as the samples are, samples along axis 0.",
            )
    first = {name: array[:CALIBRATION_SAMPLES] for name, array in inputs.items()}
    return Samples(inputs, calibration or first, labels, bool(own))


def _calibration_of(name: str, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> str | None:
    wanted = (f"{CALIBRATION}:{name}", *((CALIBRATION,) if len(names) == 1 else ()))
    return next((key for key in wanted if key in arrays), None)


def _named(given: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    if len(names) == 1 and len(given) == 1:
        given = {names[0]: next(iter(given.values()))}
    missing = [name for name in names if name not in given]
    if missing:
        raise BridgeError(
            where="--inputs",
            problem=f"has no array '{missing[0]}' (it has: {', '.join(given) or 'nothing'})",
            remedy=f"Save one array for each input of the model, samples along axis 0: {', '.join(names)}.",
        )
    return {name: np.ascontiguousarray(given[name], np.float32) for name in names}


def refuse_no_truth(expected: np.ndarray) -> None:
    """Raise `BridgeError` for outputs that nothing can be held against: NaN, infinity, or nothing but zeros."""
    if not np.isfinite(expected).all():
        problem = "gives NaN or infinity on these samples"
    elif not expected.any():
        problem = "gives nothing but zeros on these samples: there is no distance to measure"
    else:
        return
    raise BridgeError(
        where="--model", problem=problem, remedy="Train it further, or give samples of the kind that it was trained on."
    )


def notes(form: Form, given: Samples, metric: str | None = None) -> tuple[str, ...]:
    """What a reader must know of the samples and of what counts as changed."""
    count, unused = (
        len(next(iter(given.calibration.values()))),
        given.labels is not None and not form.classifies and metric is None,
    )
    return (
        f"Converters that calibrate were given {'your calibration data' if given.own_calibration else f'the first {count} of your own samples'}.",
        "Its output is taken for one score for each class: a sample has changed when another score is the largest."
        if form.classifies
        else "Its outputs are no scores of classes: a sample has changed when an output is more than one LSB away.",
        *(
            (
                "Labels were given, and nothing here is a score of a class: they were not used. --metric says how to use them.",
            )
            if unused
            else ()
        ),
    )
