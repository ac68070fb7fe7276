"""Channels last: every tensor is stored the way TFLite's kernels want it, and no element is moved that need not be.

Each tensor carries a permutation (stored axis i is ONNX axis perm[i]). Convolutions and pools want channels last;
element-wise operators take what comes; a Transpose is only another permutation, never an operator; a Reshape keeps
going in the stored order where its groups of axes allow it; a dense layer after a flatten has its weights permuted
(catalogue entry M18). What is left over becomes a TRANSPOSE, and a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bridge.errors import BridgeError
from bridge.exact import operators
from bridge.exact.graph import Graph, Node, add_made, constant
from bridge.exact.integers import cut
from bridge.exact.names import free_name
from bridge.exact.operators.record import Axes
from bridge.exact.passes.qdq import rename
from bridge.exact.passes.regroup import regroup
from bridge.exact.passes.stored import Perm, Stored, channels_last, emit, natural, set_order

Order = Literal["nhwc", "nchw"]
"""nhwc: channels last, the model's axis 1 behind all others. nchw: the axes as in the model, whatever they mean."""


@dataclass(frozen=True)
class Borders:
    """How the model's inputs and outputs are stored, in their order: stored axis i is the model's axis perm[i]."""

    inputs: tuple[Perm, ...]
    outputs: tuple[Perm, ...]


def borders(graph: Graph, order: Order = "nhwc", named: Mapping[str, Order] | None = None) -> Borders:
    """What the caller wants: `order` for the inputs and outputs with 4 axes, `named` for single ones of any rank.

    All others keep the axes of the model. Raises `BridgeError` for a name that is neither an input nor an output, and
    for channels last where there is no spatial axis to put before them.
    """
    named = named or {}
    for name, wanted in named.items():
        if name not in (*graph.inputs, *graph.outputs):
            raise BridgeError(
                where=f"layout {name}={wanted}",
                problem="is not about an input or output of this model",
                remedy=f"Its inputs: {', '.join(graph.inputs)}. Its outputs: {', '.join(graph.outputs)}.",
            )
        rank = len(graph.tensors[name].shape)
        if wanted == "nhwc" and rank < 3:
            raise BridgeError(
                where=f"layout {name}={wanted}",
                problem=f"asks for channels last, and '{name}' has {rank} axes",
                remedy=f"Leave it out: '{name}' keeps the axes of the model.",
            )

    def perm(name: str) -> Perm:
        rank = len(graph.tensors[name].shape)
        wanted = named.get(name, order if rank == 4 else "nchw")
        return channels_last(rank) if wanted == "nhwc" else tuple(range(rank))

    return Borders(tuple(map(perm, graph.inputs)), tuple(map(perm, graph.outputs)))


def layout(graph: Graph, *, border: Borders | None = None) -> Graph:
    """The same graph with channels last inside; its inputs and outputs as `border` says, else 4-D ones channels last."""
    border = border or borders(graph)
    shapes = {name: tensor.shape for name, tensor in graph.tensors.items()}
    state = Stored(graph, dict(graph.tensors), {}, graph.consumers(), onnx_shapes=shapes)
    for name, tensor in graph.tensors.items():
        if tensor.is_constant:
            state.perms[name] = tuple(range(len(tensor.shape)))
    for name, perm in zip(graph.inputs, border.inputs, strict=True):
        state.write(Node("Input", name, (), (name,)), perm)
    for node in graph.nodes:
        _RULES[operators.of(node).axes](node, state)
    outputs = tuple(state.view(name, perm) for name, perm in zip(graph.outputs, border.outputs, strict=True))
    notes = (*graph.notes, *state.notes)
    stored = replace(graph, nodes=tuple(state.nodes), tensors=state.tensors, outputs=outputs, notes=notes)
    swapped = {now: was for now, was in zip(outputs, graph.outputs, strict=True) if now != was}
    swapped |= {was: free_name(f"{was}/inner") for was in tuple(swapped.values())}
    return _swap(stored, swapped)


def _swap(graph: Graph, names: dict[str, str]) -> Graph:
    if not names:
        return graph
    aside = {old: free_name(f"{new}/aside") for old, new in names.items()}
    return rename(rename(graph, aside), {aside[old]: new for old, new in names.items()})


def _in_natural_order(node: Node, state: Stored) -> None:
    inputs = [state.view(name, natural(state.perms[name])) if name else name for name in node.inputs]
    emit(node, state, inputs, tuple(range(len(state.onnx_shapes[node.outputs[0]]))))


def _window(node: Node, state: Stored) -> None:
    rank = len(state.onnx_shapes[node.inputs[0]])
    perm = channels_last(rank)
    emit(node, state, (state.view(node.inputs[0], perm), *node.inputs[1:]), perm)


def _unary(node: Node, state: Stored) -> None:
    x = node.inputs[0]
    emit(node, state, node.inputs, state.perms[x])
    if x in state.orders:
        set_order(node.outputs[0], state.orders[x], state)


def _preferred(names: Iterable[str], rank: int, state: Stored) -> Perm:
    """The order to bring operands of one operator to: channels last if one of them is, else that of the first."""
    perms = [
        state.perms[name] for name in names if not state.tensors[name].is_constant and len(state.perms[name]) == rank
    ]
    last = channels_last(rank)
    return last if last in perms else (perms[0] if perms else tuple(range(rank)))


def _binary(node: Node, state: Stored) -> None:
    rank = len(state.onnx_shapes[node.outputs[0]])
    perm = _preferred(node.inputs, rank, state)
    inputs = [state.view(_of_rank(name, rank, state), perm) for name in node.inputs]
    emit(node, state, inputs, perm)


def _of_rank(name: str, rank: int, state: Stored) -> str:
    """A lower-rank operand with leading axes of 1, as broadcasting adds them (ONNX, multidirectional broadcasting)."""
    shape = state.onnx_shapes[name]
    if len(shape) == rank or not shape:
        return name
    tensor = state.tensors[name]
    made = state.wide.get((name, rank), "")
    if not made:
        wide = (1,) * (rank - len(shape)) + shape
        made = state.wide[name, rank] = free_name(f"{name}/rank{rank}")
        if tensor.is_constant:
            shift = rank - len(shape)
            qparams = tensor.qparams
            if qparams is not None and qparams.axis is not None:
                qparams = qparams.on_axis(qparams.axis + shift)
            add_made(state.tensors, constant(made, tensor.values.reshape(wide), qparams))
        else:
            source = state.view(name, tuple(range(len(shape))))
            add_made(state.tensors, replace(state.tensors[source], name=made, shape=wide, origin=None))
            state.nodes.append(Node("Reshape", made, (source,), (made,)))
        state.onnx_shapes[made] = wide
        state.perms[made] = tuple(range(rank))
    return made


def _concat(node: Node, state: Stored) -> None:
    rank = len(state.onnx_shapes[node.outputs[0]])
    perm = _preferred(node.inputs, rank, state)
    axis = perm.index(node.attrs["axis"] % rank)
    emit(node, state, [state.view(name, perm) for name in node.inputs], perm, axis=axis)


def _split(node: Node, state: Stored) -> None:
    perm = state.perms[node.inputs[0]]
    axis = perm.index(node.attrs.get("axis", 0) % len(perm))
    sizes = [state.onnx_shapes[name][perm[axis]] for name in node.outputs]
    emit(node, state, node.inputs[:1], perm, axis=axis, sizes=sizes)


def _slice(node: Node, state: Stored) -> None:
    x = node.inputs[0]
    shape, perm = state.onnx_shapes[x], state.perms[x]
    numbers = [state.tensors[name].values.tolist() if name else None for name in (*node.inputs[1:], "", "")[:4]]
    starts, ends = numbers[0] or [], numbers[1] or []
    axes = numbers[2] if numbers[2] is not None else list(range(len(starts)))
    steps = numbers[3] if numbers[3] is not None else [1] * len(starts)
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise BridgeError(
                where=str(node),
                problem=f"slices backwards (step {step})",
                remedy="Flip the weights instead; the integer kernel steps forwards.",
            )
        kept = cut(start, stop, step, shape[axis])
        begin[axis], end[axis], stride[axis] = kept.start, kept.stop, min(step, shape[axis])
    emit(
        node,
        state,
        (x,),
        perm,
        begin=[begin[axis] for axis in perm],
        end=[end[axis] for axis in perm],
        strides=[stride[axis] for axis in perm],
    )


def _pad(node: Node, state: Stored) -> None:
    x = node.inputs[0]
    perm, rank = state.perms[x], len(state.onnx_shapes[x])
    pads = state.tensors[node.inputs[1]].values.tolist()
    axes = list(range(rank))
    if len(node.inputs) > 3 and node.inputs[3]:
        axes = [axis % rank for axis in state.tensors[node.inputs[3]].values.tolist()]
    around = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    value = 0.0
    if len(node.inputs) > 2 and node.inputs[2]:
        value = float(state.tensors[node.inputs[2]].real.reshape(-1)[0])
    emit(node, state, (x,), perm, paddings=[around.get(axis, (0, 0)) for axis in perm], value=value)


def _gather(node: Node, state: Stored) -> None:
    x, indices = node.inputs[0], state.tensors[node.inputs[1]].values
    perm = state.perms[x]
    axis = node.attrs.get("axis", 0) % len(perm)
    size = state.onnx_shapes[x][axis]
    if indices.ndim > 1:
        x, perm = state.view(x, natural(perm)), natural(perm)
        after = natural(state.onnx_shapes[node.outputs[0]])
    else:
        after = perm if indices.ndim else tuple(a - (a > axis) for a in perm if a != axis)
    emit(node, state, (x,), after, axis=perm.index(axis), indices=np.asarray(indices % size, np.int32))


def _mean(node: Node, state: Stored) -> None:
    x = node.inputs[0]
    perm, axes = state.perms[x], node.attrs["axes"]
    after = perm
    if not node.attrs["keepdims"]:
        left = [axis for axis in perm if axis not in axes]
        after = tuple(sorted(left).index(axis) for axis in left)
    emit(node, state, (x,), after, axes=sorted(perm.index(axis) for axis in axes))


def _softmax(node: Node, state: Stored) -> None:
    x = node.inputs[0]
    perm = state.perms[x]
    axis = node.attrs.get("axis", -1) % len(perm)
    wanted = (*(a for a in perm if a != axis), axis)
    emit(node, state, (state.view(x, wanted),), wanted)


def _transpose(node: Node, state: Stored) -> None:
    """No operator: the same stored elements under another permutation."""
    x = node.inputs[0]
    rank = len(state.perms[x])
    p = list(node.attrs.get("perm") or range(rank)[::-1])
    perm = tuple(p.index(axis) for axis in state.perms[x])
    emit(Node("Reshape", node.name, (x,), node.outputs), state, (x,), perm)


def _gemm(node: Node, state: Stored) -> None:
    x, weight, bias = node.inputs
    order = state.orders.get(x)
    rank = len(state.perms[x])
    if order is not None:
        w = state.tensors[weight]
        permuted = constant(free_name(f"{weight}/{node.name}"), w.values[:, order], w.qparams)
        add_made(state.tensors, permuted)
        weight = permuted.name
    else:
        x = state.view(x, tuple(range(rank)))
    emit(node, state, (x, weight, bias), tuple(range(rank)))


_RULES: Mapping[Axes | None, Callable[[Node, Stored], None]] = {
    Axes.AS_IN_ONNX: _in_natural_order,
    Axes.AS_STORED: _unary,
    Axes.CHANNELS_LAST: _window,
    Axes.BROADCAST: _binary,
    Axes.CONCAT: _concat,
    Axes.SPLIT: _split,
    Axes.SLICE: _slice,
    Axes.PAD: _pad,
    Axes.GATHER: _gather,
    Axes.REDUCE: _mean,
    Axes.LAST: _softmax,
    Axes.TRANSPOSE: _transpose,
    Axes.RESHAPE: regroup,
    Axes.DENSE: _gemm,
}
