"""`--dataset MODULE:FACTORY`: a team's own data, as the arrays that an .npz would hold. For a worker process: it runs their code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from compare.subjects.code import made_by
from compare.subjects.samples import LABELS

MOST_SAMPLES = 10_000
"""Of an iterable; what is left is said."""
MOST_BYTES = 2**30
REMEDY = (
    "Return a dictionary of arrays by input name (with 'labels', 'calibration'), a DataLoader, or samples one by one: an array, "
    "a dictionary of arrays by input name, or a pair of either and its label."
)


def arrays_of(target: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays by name, samples along axis 0, and what was left out.

    Raises `BridgeError` for what the factory raises and for what holds no samples.
    """
    made = made_by("--dataset", target)
    if isinstance(made, Mapping):
        return {str(name): _array(target, each) for name, each in made.items()}, ()
    rows: list[dict[str, np.ndarray]] = []
    size, said = 0, tuple[str, ...]()
    batches = type(made).__name__ == "DataLoader"
    for row in _each(target, made, batches=batches):
        if len(rows) == MOST_SAMPLES or size > MOST_BYTES:
            said = (f"Of --dataset {target} the first {len(rows)} samples were used.",)
            break
        rows.append(row)
        size += sum(each.nbytes for each in row.values())
    if not rows:
        raise BridgeError(where=f"--dataset {target}", problem="gives no samples", remedy=REMEDY)
    different = {tuple((name, each.shape) for name, each in row.items()) for row in rows}
    if len(different) > 1:
        raise BridgeError(
            where=f"--dataset {target}",
            problem=f"gives samples of different shapes: {', '.join(map(str, islice(sorted(different, key=str), 3)))}",
            remedy="Bring them to one shape, as the model takes them.",
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}, said


def _each(target: str, made: Any, *, batches: bool) -> Iterator[dict[str, np.ndarray]]:
    for item in _items(target, made):
        named = _named(target, item)
        if not batches:
            yield named
            continue
        for index in range(len(next(iter(named.values())))):
            yield {name: each[index] for name, each in named.items()}


def _items(target: str, made: Any) -> Iterator[Any]:
    try:
        if isinstance(made, Iterable):
            yield from made
        else:
            yield from (made[index] for index in range(len(made)))  # torch's map-style data sets
    except BridgeError:
        raise
    except Exception as error:
        raise BridgeError(
            where=f"--dataset {target}", problem=f"cannot be read ({type(error).__name__}: {error})", remedy=REMEDY
        ) from error


def _named(target: str, item: Any) -> dict[str, np.ndarray]:
    """One sample (or batch) by name; labels as LABELS."""
    if isinstance(item, Mapping):
        return {str(name): _array(target, each) for name, each in item.items()}
    if isinstance(item, (tuple, list)) and len(item) == 2:
        inputs, label = item
        return _named(target, inputs) | {LABELS: _array(target, label)}
    return {"input": _array(target, item)}


def _array(target: str, given: Any) -> np.ndarray:
    detached = given.detach().cpu() if hasattr(given, "detach") else given
    try:
        found = np.asarray(detached)
    except Exception as error:  # whatever an object's own conversion raises
        raise BridgeError(
            where=f"--dataset {target}", problem=f"gives no array ({type(error).__name__}: {error})", remedy=REMEDY
        ) from error
    if found.dtype.kind not in "fiub":
        raise BridgeError(
            where=f"--dataset {target}", problem=f"gives {type(given).__name__}, no array of numbers", remedy=REMEDY
        )
    return found
