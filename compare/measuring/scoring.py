"""What a file's outputs are worth by the subject's labels: by a metric of task_metrics.py, or by the team's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bridge.errors import BridgeError
from compare.measuring.task_metrics import METRICS
from compare.running.workers import Lane
from compare.subjects.code import function_of, is_code
from compare.subjects.model import Form, Subject

Score = Callable[[np.ndarray, Form], float | None]
"""(outputs side by side as `form.expected`, their form) -> 0..1; None where nothing can be said."""


@contextmanager
def scoring(subject: Subject) -> Iterator[Score]:
    """The subject's metric, tried on the model's own outputs first; a team's own function runs in a process of its own.

    Raises `BridgeError` for an unknown metric, for labels that do not fit, and for what a team's function raises.
    """
    name = subject.metric or ("top1" if subject.given.classifies else None)
    if subject.metric is not None and subject.labels is None:
        raise BridgeError(
            where=f"--metric {subject.metric}",
            problem="needs labels, and there are none",
            remedy="Save them in the samples as 'labels'.",
        )
    if name is None or subject.labels is None:
        yield lambda outputs, form: None  # noqa: ARG005 - a Score's form
        return
    labels, lane = subject.labels, Lane("metric")
    if not is_code(name) and name not in METRICS:
        raise BridgeError(
            where=f"--metric {name}",
            problem="is no metric",
            remedy=f"There are {', '.join(METRICS)}, and your own: module:function(outputs, labels).",
        )

    def score(outputs: np.ndarray, form: Form) -> float:
        parts = apart(outputs, form)
        value = (
            lane.submit("", _own, name, parts, labels).result().get() if is_code(name) else METRICS[name](parts, labels)
        )
        return float(value)

    try:
        score(subject.given.expected, subject.given)
        yield score
    finally:
        lane.close()


def apart(outputs: np.ndarray, form: Form) -> list[np.ndarray]:
    """Each output (N, ...) in the model's own shape."""
    shapes = form.output_shapes or (outputs.shape[1:],)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(outputs.reshape(len(outputs), -1), ends[:-1], axis=1)
    return [part.reshape(len(outputs), *shape) for part, shape in zip(parts, shapes, strict=True)]


def _own(name: str, outputs: list[np.ndarray], labels: np.ndarray) -> float:
    """For a worker process: the team's own function."""
    function = function_of("--metric", name)
    try:
        value = float(function(outputs, labels))
    except Exception as error:
        raise BridgeError(
            where=f"--metric {name}",
            problem=f"cannot be computed ({type(error).__name__}: {error})",
            remedy="It is called with the outputs, a list of float32 arrays (samples, ...), and the labels, and returns a number.",
        ) from error
    if not 0.0 <= value <= 1.0:
        raise BridgeError(
            where=f"--metric {name}", problem=f"is {value}", remedy="Return a share from 0 to 1; more is better."
        )
    return value
