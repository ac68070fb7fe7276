"""Whether the samples of a verification can prove anything: inputs in their range, outputs that are not all the same."""

from __future__ import annotations

import numpy as np

from bridge.exact.graph import Graph
from bridge.verifying.batches import Arrays
from bridge.verifying.reference import quantized_input

CLIPPED = 0.05
"""The share of values outside of the trained range from which on an input is reported: a few outliers are usual."""


class Seen:
    """What the samples so far were like."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._outside: dict[str, int] = dict.fromkeys(graph.inputs, 0)
        self._count: dict[str, int] = dict.fromkeys(graph.inputs, 0)
        self._first: dict[str, np.ndarray] = {}
        self._varying: set[str] = set()

    def add(self, batch: Arrays, said: Arrays) -> None:
        """Inputs of one batch in real numbers, and what the reference said."""
        for name, values in batch.items():
            tensor = quantized_input(self._graph, name)
            if tensor.qparams is None or tensor.q.axis is not None:
                continue
            steps = values / tensor.q.scale + tensor.q.zero_point
            outside = (steps < tensor.q.qmin - 0.5) | (steps > tensor.q.qmax + 0.5)
            self._outside[name] += int(np.count_nonzero(outside))
            self._count[name] += values.size
        for name, values in said.items():
            for sample in np.atleast_1d(values):
                first = self._first.setdefault(name, np.array(sample))
                if not np.array_equal(first, sample):
                    self._varying.add(name)

    @property
    def clipped(self) -> dict[str, float]:
        """The share of each input that lies outside of its trained range."""
        return {name: self._outside[name] / max(count, 1) for name, count in self._count.items()}

    @property
    def constant(self) -> tuple[str, ...]:
        """Outputs that are the very same for every sample."""
        return tuple(name for name in self._first if name not in self._varying)
