"""Operators with more axes than their kernels count, or fewer: neighbouring axes that are treated alike become one.

    PRELU(x (1, C, 2, 4, 4), slope (C, 1, 1, 1))   becomes   RESHAPE to (1, C, 32), PRELU with (C, 1), RESHAPE back

A reshape moves no element and rounds nothing, so that the operator computes what it did. What stays too wide is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Tensor, add_made, constant, without_unused
from bridge.exact.kernels import MOST_AXES as MOST
from bridge.exact.lowering.activation import shape_of
from bridge.exact.names import free_name
from bridge.exact.schema import OPERATORS

MOST_AXES = {op: row.kernel.axes for op, row in OPERATORS.items() if row.kernel.axes < MOST}
"""Axes up to which both kernel sets compute an operator (tests/bridge/exact/test_ranks.py); of others, `MOST`."""

LEAST_AXES = {op: row.kernel.least_axes for op, row in OPERATORS.items() if row.kernel.least_axes}
"""Axes below which an operator's output has another shape than was asked for, or none."""

_SAME_SHAPE_IS_FREE = {"ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"}
"""Sums, products and extremes of two equal shapes have no limit."""


@dataclass(frozen=True)
class Merged:
    """A node on merged axes: the shapes of its activations, and its constants and attributes anew."""

    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, np.ndarray]
    attrs: dict[str, object] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return max(len(shape) for shape in self.shapes.values())


def within_ranks(graph: Graph) -> Graph:
    """A lowered graph in which no operator has more axes than its kernels count, nor fewer.

    Raises `BridgeError` where axes cannot be merged that far.
    """
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if _too_few(node, graph):
            made, new = _on_merged_axes(node, graph, _with_a_row(node, graph))
            nodes += made
            add_made(tensors, *new)
            continue
        rank = max(len(graph.tensors[name].shape) for name in (*node.inputs, *node.outputs) if name)
        if rank <= _limit(node, graph):
            nodes.append(node)
            continue
        merged = _MERGERS[node.op](node, graph) if node.op in _MERGERS else None
        if merged is None or merged.rank > MOST_AXES[node.op]:
            raise BridgeError(
                where=f"{node}, output '{node.outputs[0]}'",
                problem=f"has {rank} axes, and the kernels of {node.op} count {_limit(node, graph)}",
                remedy="Merge axes that are treated alike with a Reshape before it, or leave out axes of size 1.",
            )
        made, new = _on_merged_axes(node, graph, merged)
        nodes += made
        add_made(tensors, *new)
    return _without_detours(replace(graph, nodes=tuple(nodes), tensors=tensors))


def _without_detours(graph: Graph) -> Graph:
    """Of an operator on merged axes right behind another, the RESHAPE apart and the one back together go."""
    made_of = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.op == "RESHAPE"}
    alias: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        source = made_of.get(node.inputs[0]) if node.op == "RESHAPE" else None
        if source is not None and node.outputs[0] not in graph.outputs:
            before, after = graph.tensors[source], graph.tensors[node.outputs[0]]
            if before.shape == after.shape and before.qparams == after.qparams:
                alias[node.outputs[0]] = source
                continue
        nodes.append(node)
    return without_unused(replace(graph, nodes=tuple(nodes))) if alias else graph


def _too_few(node: Node, graph: Graph) -> bool:
    """Whether an activation is a vector where the kernel takes matrices; raises `BridgeError` for a product of two."""
    few = any(len(tensor.shape) < LEAST_AXES.get(node.op, 0) for tensor in _activations(node, graph))
    if few and node.op == "BATCH_MATMUL":
        raise BridgeError(
            where=f"{node}, output '{node.outputs[0]}'",
            problem="multiplies a vector; the kernel multiplies matrices",
            remedy="Unsqueeze the vector to a matrix of one row or one column before the product.",
        )
    return few


def _activations(node: Node, graph: Graph) -> list[Tensor]:
    named = [graph.tensors[name] for name in (*node.inputs, *node.outputs) if name]
    return [tensor for tensor in named if not tensor.is_constant]


def _with_a_row(node: Node, graph: Graph) -> Merged:
    """Vectors as matrices of one row; constants as they are."""
    named = {name: graph.tensors[name] for name in (*node.inputs, *node.outputs)}
    return Merged(
        {name: tensor.shape if tensor.is_constant else (1, *tensor.shape) for name, tensor in named.items()}, {}
    )


def _limit(node: Node, graph: Graph) -> int:
    shapes = {graph.tensors[name].shape for name in node.inputs if name}
    if node.op not in MOST_AXES or (node.op in _SAME_SHAPE_IS_FREE and len(shapes) == 1):
        return MOST
    return MOST_AXES[node.op]


def _on_merged_axes(node: Node, graph: Graph, merged: Merged) -> tuple[list[Node], list[Tensor]]:
    before: list[Node] = []
    after: list[Node] = []
    made: list[Tensor] = []
    inputs = []
    for place, name in enumerate(node.inputs):
        x, merged_name = graph.tensors[name], free_name(f"{node.name}/merged {place}")
        if name in merged.constants:
            made.append(constant(merged_name, merged.constants[name], x.qparams))
        elif x.is_constant:
            made.append(constant(merged_name, x.values.reshape(merged.shapes[name]), x.qparams))
        else:
            wide = replace(x, name=merged_name, shape=merged.shapes[name], origin=None)
            shape = shape_of(free_name(f"{node.name}/merged shape {place}"), wide)
            made += [wide, shape]
            before.append(Node("RESHAPE", free_name(f"{node.name}/merge {place}"), (name, shape.name), (wide.name,)))
        inputs.append(merged_name)
    outputs = []
    for place, name in enumerate(node.outputs):
        y = graph.tensors[name]
        inner = replace(y, name=free_name(f"{node.name}/merged output {place}"), shape=merged.shapes[name], origin=None)
        back = shape_of(free_name(f"{node.name}/output shape {place}"), y)
        made += [inner, back]
        after.append(Node("RESHAPE", free_name(f"{node.name}/apart {place}"), (inner.name, back.name), (name,)))
        outputs.append(inner.name)
    attrs = {**node.attrs, **merged.attrs}
    node = replace(node, inputs=tuple(inputs), outputs=tuple(outputs), attrs=attrs)
    return [*before, node, *after], made


def _runs(kinds: Sequence[object]) -> list[list[int]]:
    """Neighbouring places of equal kind, one run at least; a kind of None is left out, and parts nothing."""
    runs: list[list[int]] = []
    last: object = None
    for place, kind in enumerate(kinds):
        if kind is None:
            continue
        if runs and kind == last:
            runs[-1].append(place)
        else:
            runs.append([place])
        last = kind
    return runs or [[]]


def _products(shape: Sequence[int], runs: list[list[int]]) -> tuple[int, ...]:
    return tuple(prod(shape[axis] for axis in run) for run in runs)


def _broadcast(node: Node, graph: Graph) -> Merged:
    """Two operands: axes go together where each operand has all of them or none."""
    y = graph.output(node)
    rank = len(y.shape)
    padded = {name: _of_rank(graph.tensors[name].shape, rank) for name in node.inputs}
    kinds = [
        None if y.shape[axis] == 1 else tuple(shape[axis] == 1 for shape in padded.values()) for axis in range(rank)
    ]
    runs = _runs(kinds)
    shapes = {name: _products(shape, runs) for name, shape in padded.items()}
    return Merged({**shapes, y.name: _products(y.shape, runs)}, {})


def _of_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


def _batch_matmul(node: Node, graph: Graph) -> Merged:
    """The axes before the last two, as in a sum."""
    y = graph.output(node)
    rank = len(y.shape)
    padded = {name: _of_rank(graph.tensors[name].shape, rank) for name in node.inputs}
    kinds = [
        None if y.shape[axis] == 1 else tuple(shape[axis] == 1 for shape in padded.values()) for axis in range(rank - 2)
    ]
    runs = _runs(kinds)
    shapes = {name: (*_products(shape, runs), *shape[-2:]) for name, shape in padded.items()}
    return Merged({**shapes, y.name: (*_products(y.shape, runs), *y.shape[-2:])}, {})


def _transpose(node: Node, graph: Graph) -> Merged:
    """Axes that stay neighbours in their order go together."""
    x, y = graph.tensors[node.inputs[0]], graph.output(node)
    perm = [int(axis) for axis in graph.tensors[node.inputs[1]].values if x.shape[int(axis)] != 1]
    real = [axis for axis in range(len(x.shape)) if x.shape[axis] != 1]
    moved = [real.index(axis) for axis in perm]
    runs: list[list[int]] = []
    for axis in moved:
        if runs and runs[-1][-1] + 1 == axis:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    runs = runs or [[0]]
    first = sorted(run[0] for run in runs)
    sizes = [prod(x.shape[real[axis]] for axis in run) if real else 1 for run in runs]
    order = [first.index(run[0]) for run in runs]
    shape = tuple(size for _, size in sorted(zip(order, sizes, strict=True)))
    return Merged({x.name: shape, y.name: tuple(sizes)}, {node.inputs[1]: np.array(order, np.int32)})


def _pad(node: Node, graph: Graph) -> Merged:
    """Axes without padding go together."""
    x, y = graph.tensors[node.inputs[0]], graph.output(node)
    pads = graph.tensors[node.inputs[1]].values
    kinds = [place if pads[place].any() else (None if size == 1 else "whole") for place, size in enumerate(x.shape)]
    runs = _runs(kinds)
    rows = np.array([pads[run[0]] if run else (0, 0) for run in runs], np.int32)
    scalars = {name: graph.tensors[name].values for name in node.inputs[2:]}
    shapes = {x.name: _products(x.shape, runs), y.name: _products(y.shape, runs)}
    return Merged(shapes, {node.inputs[1]: rows, **scalars})


def _slice(node: Node, graph: Graph) -> Merged:
    """Axes that are taken whole go together, and with the axis before them where that is taken in one piece."""
    x, y = graph.tensors[node.inputs[0]], graph.output(node)
    numbers = [graph.tensors[name].values.astype(np.int64) for name in node.inputs[1:]]
    begin, second = numbers[0], numbers[1]
    strides = numbers[2] if node.op == "STRIDED_SLICE" else np.ones_like(begin)
    end = second if node.op == "STRIDED_SLICE" else begin + second
    rows: list[list[int]] = []  # size, begin, end, stride, size of the output
    for axis, size in enumerate(x.shape):
        row = [size, int(begin[axis]), int(end[axis]), int(strides[axis]), y.shape[axis]]
        whole = row[1:4] == [0, size, 1]
        if size == 1 and whole:
            continue
        if rows and whole and rows[-1][3] == 1:
            rows[-1] = [number * size if place != 3 else 1 for place, number in enumerate(rows[-1])]
        else:
            rows.append(row)
    sizes, begins, ends, steps, made = np.array(rows or [[1, 0, 1, 1, 1]], np.int32).T
    new = [begins, ends, steps] if node.op == "STRIDED_SLICE" else [begins, made]
    return Merged(
        {x.name: tuple(sizes.tolist()), y.name: tuple(made.tolist())}, dict(zip(node.inputs[1:], new, strict=True))
    )


def _beside(kept: int, node: Node, graph: Graph) -> tuple[list[list[int]], int]:
    """The axes before and behind one that is kept, each as one; and where that one is then."""
    shape = graph.output(node).shape
    runs = [run for run in (list(range(kept)), [kept], list(range(kept + 1, len(shape)))) if run]
    return runs, int(kept > 0)


def _concatenation(node: Node, graph: Graph) -> Merged:
    runs, axis = _beside(int(node.attrs["axis"]), node, graph)
    names = (*node.inputs, *node.outputs)
    return Merged({name: _products(graph.tensors[name].shape, runs) for name in names}, {}, {"axis": axis})


def _split(node: Node, graph: Graph) -> Merged:
    """SPLIT has its axis as the first operand, SPLIT_V as the last."""
    axis = node.inputs[0] if node.op == "SPLIT" else node.inputs[2]
    runs, place = _beside(int(graph.tensors[axis].values), node, graph)
    constants = {name: graph.tensors[name].values for name in node.inputs if graph.tensors[name].is_constant}
    moving = [name for name in (*node.inputs, *node.outputs) if name not in constants]
    shapes = {name: _products(graph.tensors[name].shape, runs) for name in moving}
    return Merged(shapes, {**constants, axis: np.array(place, np.int32)})


def _gather(node: Node, graph: Graph) -> Merged:
    """The axes before and behind the one that is picked from; those of the indices stay."""
    x, indices = (graph.tensors[name] for name in node.inputs)
    axis = int(node.attrs["axis"])
    before, behind = prod(x.shape[:axis]), prod(x.shape[axis + 1 :])
    shapes = {x.name: (before, x.shape[axis], behind), node.outputs[0]: (before, *indices.shape, behind)}
    return Merged(shapes, {indices.name: indices.values}, {"axis": 1})


def _mean(node: Node, graph: Graph) -> Merged:
    """Neighbouring axes that are averaged go together, and those that are not."""
    x, y = graph.tensors[node.inputs[0]], graph.output(node)
    averaged = {int(axis) for axis in graph.tensors[node.inputs[1]].values}
    runs = _runs([None if size == 1 else place in averaged for place, size in enumerate(x.shape)])
    axes = [place for place, run in enumerate(runs) if run and run[0] in averaged]
    before = _products(x.shape, runs)
    after = tuple(1 if place in axes else size for place, size in enumerate(before))
    return Merged({x.name: before, y.name: after}, {node.inputs[1]: np.array(axes, np.int32)}, {"keep_dims": True})


def _dense(node: Node, graph: Graph) -> Merged:
    """All axes before the features."""
    x, y = graph.tensors[node.inputs[0]], graph.output(node)
    runs = [list(range(len(x.shape) - 1)), [len(x.shape) - 1]]
    shapes = {tensor.name: _products(tensor.shape, runs) for tensor in (x, y)}
    constants = {name: graph.tensors[name].values for name in node.inputs[1:] if name}
    return Merged(shapes, constants, {"keep_num_dims": False})


def _softmax(node: Node, graph: Graph) -> Merged:
    runs = [list(range(len(graph.output(node).shape) - 1)), [len(graph.output(node).shape) - 1]]
    return Merged({name: _products(graph.tensors[name].shape, runs) for name in (*node.inputs, *node.outputs)}, {})


_MERGERS: dict[str, Callable[[Node, Graph], Merged]] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "PRELU"), _broadcast),
    "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _dense,
    "GATHER": _gather,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _split),
    "TRANSPOSE": _transpose,
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), _slice),
}
