"""Each operator of a file alone, fed with what the reference says it reads: what it alone adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bridge.exact.graph import Graph, Node, Tensor
from bridge.exact.writer import write
from bridge.verifying.batches import Arrays, stored_codes
from bridge.verifying.completed import REARRANGING, Anchor
from bridge.verifying.distance import Distance, RealDistance, distance, joined, real_distance
from bridge.verifying.litert import Kernels, Runner

ROUNDING = 0.5
"""LSB that rounding alone may take."""
FARTHEST = 1.0
"""LSB from the unrounded value that a kernel's own rounding may take: a tie, tables of 16 bits, two roundings in one."""
_TIE = 0.02
"""LSB that a code may be beyond `ROUNDING` and still be a tie: the float32 sums of the reference are no better."""
SHIFTED = 1 / 3
"""The share of codes beyond `ROUNDING` from which on they are not rounded but moved: a bias half a step off moves half.

The reference kernel of MEAN rounds twice and moves a quarter where it averages two, LEAKY_RELU and PRELU up to a fifth.
"""
_FLOAT = 1e-3
"""The part of its range that a float operator may be away: sums in another order, and polynomials for exp and tanh."""


@dataclass(frozen=True)
class Departure:
    """How far codes are from the reference's unrounded values."""

    count: int
    rounded_otherwise: int
    """Codes that are further from the unrounded value than rounding takes them, ties aside."""
    farthest: float
    """In LSB: the largest distance of a code from the unrounded value; up to 0.5 is rounding."""

    @property
    def beyond_rounding(self) -> bool:
        return self.farthest > FARTHEST + _TIE or self.rounded_otherwise > SHIFTED * self.count

    def joined(self, other: Departure) -> Departure:
        """Both of them: more samples."""
        return Departure(
            self.count + other.count,
            self.rounded_otherwise + other.rounded_otherwise,
            max(self.farthest, other.farthest),
        )


@dataclass(frozen=True)
class OperatorDistance:
    """One operator fed with the reference's own codes: what it alone adds.

    Where the reference does not know what an operator reads, it and those before it are judged as one, under the name
    of the last that computes: the model's own, behind what the bridge put before it.
    """

    op: str
    name: str
    kernels: Kernels
    distance: Distance | RealDistance
    departure: Departure
    tensor: str = ""
    """Whose values were compared."""
    chain: tuple[str, ...] = ()
    """The operators judged as one, in order; empty for one alone."""

    @property
    def off(self) -> bool:
        """Whether it is further away than its kernel's rounding explains."""
        return self.departure.beyond_rounding


class Operators:
    """Every operator of a graph, ready to run alone on one kernel set."""

    def __init__(self, graph: Graph, anchors: dict[str, Anchor], kernels: Kernels) -> None:
        self._graph, self._anchors, self._kernels = graph, anchors, kernels
        self._runners = [(node, Runner(write(single(graph, node)), kernels)) for node in graph.nodes]
        self._chains = _chains(graph, anchors)
        self._found: dict[tuple[int, str], list[tuple[Distance | RealDistance, Departure]]] = {}

    def add(self, values: Arrays) -> None:
        """Run all of them on one batch; `values` by their names in the completed model."""
        held: dict[str, np.ndarray] = {}
        for index, (node, runner) in enumerate(self._runners):
            moving = {name for name in node.inputs if name and not self._graph.tensors[name].is_constant}
            outputs = runner({name: self._read(name, values, held) for name in moving})
            for name in node.outputs:
                held[name] = outputs[name]
                if name in self._anchors:
                    found = compared(self._graph.tensors[name], outputs[name], self._anchors[name].real(values))
                    self._found.setdefault((index, name), []).append(found)

    def in_a_row(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """What the operators give one after the other, each fed with what those before it gave."""
        held = dict(inputs)
        for node, runner in self._runners:
            moving = {name for name in node.inputs if name and not self._graph.tensors[name].is_constant}
            held.update(runner({name: held[name] for name in moving}))
        return {name: held[name] for name in self._graph.outputs}

    def _read(self, name: str, values: Arrays, held: Arrays) -> np.ndarray:
        """What the reference says of a tensor, or what the operators before made of it where it does not."""
        if name not in self._anchors:
            return held[name]
        real = self._anchors[name].real(values)
        said = stored_codes(self._graph.tensors[name], real)
        return np.where(np.isnan(real), held[name], said) if name in held else said

    def _computes(self, node: Node) -> bool:
        """Whether it gives numbers that it did not read; a limit of codes is part of what it limits."""
        limits = node.op in ("MAXIMUM", "MINIMUM")
        constant = any(self._graph.tensors[name].is_constant for name in node.inputs if name)
        return node.op not in REARRANGING and not (limits and constant)

    def found(self) -> Iterator[tuple[int, OperatorDistance]]:
        """What was measured, each with its place in the file."""
        for (index, name), parts in self._found.items():
            apart, departure = (joined(list(each)) for each in zip(*parts, strict=True))
            chain = self._chains[self._graph.nodes[index].outputs[0]]
            named = next((node for node in reversed(chain) if self._computes(node)), chain[-1])
            together = tuple(f"{node.op} '{node.name}'" for node in chain) if len(chain) > 1 else ()
            yield index, OperatorDistance(named.op, named.name, self._kernels, apart, departure, name, together)


def compared(tensor: Tensor, got: np.ndarray, real: np.ndarray) -> tuple[Distance | RealDistance, Departure]:
    """Distance from the reference's rounded values, and departure from its unrounded ones; NaN there is not compared."""
    got, real = np.atleast_1d(got), np.atleast_1d(real)
    known = ~np.isnan(real)
    if tensor.qparams is None:
        apart = real_distance(got, real)
        off = apart.fraction > _FLOAT
        return apart, Departure(got.size, got.size if off else 0, 0.0)
    q = tensor.q
    expected = np.where(known, stored_codes(tensor, real), got)
    scale = q.scale if q.axis is None else q.scale.reshape([-1 if axis == q.axis else 1 for axis in range(real.ndim)])
    unrounded = np.clip((real / scale).astype(np.float64) + float(q.zero_point.reshape(-1)[0]), q.qmin, q.qmax)
    away = np.abs(got.astype(np.float64) - unrounded)[known]
    beyond = int(np.count_nonzero(away > ROUNDING + _TIE))
    found = distance(got, expected, int(q.zero_point.reshape(-1)[0]))
    return found, Departure(away.size, beyond, float(away.max(initial=0.0)))


def _chains(graph: Graph, anchors: dict[str, Anchor]) -> dict[str, tuple[Node, ...]]:
    """For each tensor the operators that made it since the reference last knew what they read."""
    since: dict[str, tuple[Node, ...]] = {}
    for node in graph.nodes:
        before: dict[str, Node] = {}
        for name in node.inputs:
            if name in since and (name not in anchors or anchors[name].partial):
                before.update((each.outputs[0], each) for each in since[name])
        for name in node.outputs:
            since[name] = (*before.values(), node)
    return since


def single(graph: Graph, node: Node) -> Graph:
    """The one-operator model of a node of a lowered graph."""
    names = {name for name in (*node.inputs, *node.outputs) if name}
    moving = tuple(dict.fromkeys(name for name in node.inputs if name and not graph.tensors[name].is_constant))
    return replace(
        graph,
        nodes=(node,),
        tensors={name: graph.tensors[name] for name in names},
        inputs=moving,
        outputs=node.outputs,
        notes=(),
    )
