"""Each operator of a file alone, fed with the reference's own codes: what it alone adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bridge.exact.graph import Graph, Node
from bridge.exact.writer import write
from bridge.verifying.batches import Arrays, joined
from bridge.verifying.distance import Distance, distance
from bridge.verifying.litert import KERNELS, Kernels, Runner


@dataclass(frozen=True)
class OperatorDistance:
    """One operator fed with the reference's own quantized inputs: what it alone adds."""

    op: str
    name: str
    kernels: Kernels
    distance: Distance
    exact_input: bool
    """False where the reference computes this operator's input in float and never quantizes it."""


def operators(graph: Graph, references: Sequence[Arrays]) -> Iterator[OperatorDistance]:
    """Each operator alone, on both kernel sets.

    Tensors that the reference does not know (padded copies, rescaled inputs) are what the operators before made of it.
    """
    known = set(references[0])
    floating = _never_quantized(graph)
    for kernels in KERNELS:
        made: list[dict[str, np.ndarray]] = [dict(reference) for reference in references]
        for node in graph.nodes:
            runner = Runner(write(single(graph, node)), kernels)
            moving = [name for name in node.inputs if name and not graph.tensors[name].is_constant]
            compared = [name for name in node.outputs if name in known]
            got: dict[str, list[np.ndarray]] = {name: [] for name in compared}
            for values in made:
                outputs = runner({name: values[name] for name in moving})
                for name in node.outputs:
                    if name in known:
                        got[name].append(outputs[name])
                    else:
                        values[name] = outputs[name]
            for name in compared:
                expected = joined([reference[name].reshape(got[name][0].shape) for reference in references])
                yield OperatorDistance(
                    node.op,
                    node.name,
                    kernels,
                    distance(joined(got[name]), expected),
                    not floating.intersection(moving),
                )


_HANDS_ON = {"RESHAPE", "TRANSPOSE", "MAXIMUM", "MINIMUM", "MAX_POOL_2D", "PAD", "PADV2", "STRIDED_SLICE", "SPLIT"}


def _never_quantized(graph: Graph) -> set[str]:
    """Tensors that the reference holds in float: averages that took their input's scale, and what is picked from them."""
    averages = {note.where for note in graph.notes if note.kind == "inherited"}
    found: set[str] = set()
    for node in graph.nodes:
        averaged = any(f"'{node.name}'" in where for where in averages)
        if averaged or (node.op in _HANDS_ON and found.intersection(node.inputs)):
            found.update(node.outputs)
    return found


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
