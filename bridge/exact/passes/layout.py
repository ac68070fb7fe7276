"""Channels last: every tensor is stored the way TFLite's kernels want it, and no element is moved that need not be.

Each tensor carries a permutation (stored axis i is ONNX axis perm[i]). Convolutions and pools want channels last;
element-wise operators take what comes; a Transpose is only another permutation, never an operator; a Reshape keeps
going in the stored order where its groups of axes allow it; a dense layer after a flatten has its weights permuted
(catalogue entry M18). What is left over becomes a TRANSPOSE, and a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Note, Origin, Tensor, constant
from bridge.exact.passes.qdq import rename

Perm = tuple[int, ...]

UNARY = {"Quantize", "Limit", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"}
"""Operators that treat every element alike."""

_BINARY = {"Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu"}


def channels_last(rank: int) -> Perm:
    """N, spatial axes, C."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


@dataclass
class _Stored:
    """The graph under construction: what is stored how, and the operators so far."""

    graph: Graph
    tensors: dict[str, Tensor]
    perms: dict[str, Perm]
    readers: dict[str, list[Node]]
    orders: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    views: dict[tuple[str, Perm], str] = field(default_factory=dict)
    onnx_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def write(self, node: Node, perm: Perm, index: int = 0) -> None:
        """Say how output `index` of a node is stored."""
        name = node.outputs[index]
        shape = self.onnx_shapes[name]
        tensor = self.tensors[name]
        origin = Origin(tensor.origin.name if tensor.origin else name, perm if perm != natural(perm) else None)
        self.perms[name] = perm
        self.tensors[name] = replace(tensor, shape=tuple(shape[axis] for axis in perm), origin=origin)

    def view(self, name: str, perm: Perm) -> str:
        """The name of a tensor that holds `name` in the order `perm`; made when there is none yet."""
        now = self.perms[name]
        if now == perm or not now:
            return name
        known = self.views.get((name, perm))
        if known is not None:
            return known
        tensor = self.tensors[name]
        moves = tuple(now.index(axis) for axis in perm)
        shape = tuple(tensor.shape[i] for i in moves)
        made = f"{name}/{'x'.join(map(str, perm))}"
        if tensor.is_constant:
            qparams = tensor.qparams
            if qparams is not None and qparams.axis is not None:
                qparams = qparams.on_axis(moves.index(qparams.axis))
            self.tensors[made] = constant(made, tensor.values.transpose(moves), qparams)
        else:
            origin = replace(tensor.origin, perm=perm) if tensor.origin else None
            self.tensors[made] = replace(tensor, name=made, shape=shape, origin=origin)
            moved = [axis for axis in now if self.onnx_shapes[name][axis] != 1]
            if moved == [axis for axis in perm if self.onnx_shapes[name][axis] != 1]:
                self.nodes.append(Node("Reshape", made, (name,), (made,)))
            else:
                self.nodes.append(Node("Transpose", made, (name,), (made,), {"perm": moves}))
                self.notes.append(Note("transposed", f"tensor '{name}'", f"{tensor.shape} to {shape}"))
        self.perms[made] = perm
        self.onnx_shapes[made] = self.onnx_shapes[name]
        self.views[(name, perm)] = made
        return made


def natural(perm: Sequence[int]) -> Perm:
    return tuple(range(len(perm)))


def layout(graph: Graph, *, keep_nchw: bool = False) -> Graph:
    """The same graph with channels last; its 4-D inputs and outputs too, unless `keep_nchw`.

    A 3-D input goes channels last where a convolution or pool over one axis reads it.
    """
    shapes = {name: tensor.shape for name, tensor in graph.tensors.items()}
    state = _Stored(graph, dict(graph.tensors), {}, graph.consumers(), onnx_shapes=shapes)
    for name, tensor in graph.tensors.items():
        if tensor.is_constant:
            state.perms[name] = tuple(range(len(tensor.shape)))
    for name in graph.inputs:
        _store_input(name, state, keep_nchw)
    for node in graph.nodes:
        _RULES.get(node.op, _in_natural_order)(node, state)
    outputs = tuple(_store_output(name, state, keep_nchw) for name in graph.outputs)
    stored = Graph(tuple(state.nodes), state.tensors, graph.inputs, outputs, (*graph.notes, *state.notes))
    swapped = {
        **{now: was for now, was in zip(outputs, graph.outputs, strict=True) if now != was},
        **{was: f"{was}/inner" for now, was in zip(outputs, graph.outputs, strict=True) if now != was},
    }
    return _swap(stored, swapped)


def _swap(graph: Graph, names: dict[str, str]) -> Graph:
    if not names:
        return graph
    aside = {old: f"{new}/aside" for old, new in names.items()}
    return rename(rename(graph, aside), {f"{new}/aside": new for new in names.values()})


def _store_input(name: str, state: _Stored, keep_nchw: bool) -> None:
    rank = len(state.onnx_shapes[name])
    wanted = rank == 4 or (rank == 3 and _reaches_a_window(name, state))
    perm = channels_last(rank) if wanted and not keep_nchw else tuple(range(rank))
    state.write(Node("Input", name, (), (name,)), perm)


def _reaches_a_window(name: str, state: _Stored) -> bool:
    """Whether a convolution or pool over one axis reads the tensor, directly or through element-wise operators."""
    seen, waiting = {name}, [name]
    while waiting:
        for reader in state.readers.get(waiting.pop(), ()):
            if reader.attrs.get("over_one_axis"):
                return True
            if reader.op in UNARY | _BINARY | {"Pad", "Concat", "ChannelAffine"} and reader.outputs[0] not in seen:
                seen.add(reader.outputs[0])
                waiting.append(reader.outputs[0])
    return False


def _store_output(name: str, state: _Stored, keep_nchw: bool) -> str:
    rank = len(state.onnx_shapes[name])
    if rank == 3 and not keep_nchw:
        return name
    perm = channels_last(rank) if rank == 4 and not keep_nchw else tuple(range(rank))
    return state.view(name, perm)


def _emit(node: Node, state: _Stored, inputs: Iterable[str], perm: Perm, **attrs: object) -> None:
    made = replace(node, inputs=tuple(inputs), attrs={**node.attrs, **attrs})
    state.nodes.append(made)
    for index, name in enumerate(node.outputs):
        if name:
            state.write(made, perm, index)


def _in_natural_order(node: Node, state: _Stored) -> None:
    inputs = [state.view(name, natural(state.perms[name])) if name else name for name in node.inputs]
    _emit(node, state, inputs, tuple(range(len(state.onnx_shapes[node.outputs[0]]))))


def _window(node: Node, state: _Stored) -> None:
    rank = len(state.onnx_shapes[node.inputs[0]])
    perm = channels_last(rank)
    _emit(node, state, (state.view(node.inputs[0], perm), *node.inputs[1:]), perm)


def _unary(node: Node, state: _Stored) -> None:
    x = node.inputs[0]
    _emit(node, state, node.inputs, state.perms[x])
    if x in state.orders:
        _set_order(node.outputs[0], state.orders[x], state)


def _set_order(name: str, order: np.ndarray, state: _Stored) -> None:
    state.orders[name] = order
    tensor = state.tensors[name]
    if tensor.origin is not None:
        state.tensors[name] = replace(tensor, origin=replace(tensor.origin, order=order))


def _preferred(names: Iterable[str], rank: int, state: _Stored) -> Perm:
    """The order to bring operands of one operator to: channels last if one of them is, else that of the first."""
    perms = [
        state.perms[name] for name in names if not state.tensors[name].is_constant and len(state.perms[name]) == rank
    ]
    last = channels_last(rank)
    return last if last in perms else (perms[0] if perms else tuple(range(rank)))


def _binary(node: Node, state: _Stored) -> None:
    rank = len(state.onnx_shapes[node.outputs[0]])
    perm = _preferred(node.inputs, rank, state)
    inputs = [state.view(_of_rank(name, rank, state), perm) for name in node.inputs]
    _emit(node, state, inputs, perm)


def _of_rank(name: str, rank: int, state: _Stored) -> str:
    """A lower-rank operand with leading axes of 1, as broadcasting adds them (ONNX, multidirectional broadcasting)."""
    shape = state.onnx_shapes[name]
    if len(shape) == rank or not shape:
        return name
    tensor = state.tensors[name]
    made = f"{name}/rank{rank}"
    wide = (1,) * (rank - len(shape)) + shape
    if made not in state.tensors:
        if tensor.is_constant:
            shift = rank - len(shape)
            qparams = tensor.qparams
            if qparams is not None and qparams.axis is not None:
                qparams = qparams.on_axis(qparams.axis + shift)
            state.tensors[made] = constant(made, tensor.values.reshape(wide), qparams)
        else:
            source = state.view(name, tuple(range(len(shape))))
            state.tensors[made] = replace(state.tensors[source], name=made, shape=wide, origin=None)
            state.nodes.append(Node("Reshape", made, (source,), (made,)))
        state.onnx_shapes[made] = wide
        state.perms[made] = tuple(range(rank))
    return made


def _concat(node: Node, state: _Stored) -> None:
    rank = len(state.onnx_shapes[node.outputs[0]])
    perm = _preferred(node.inputs, rank, state)
    axis = perm.index(node.attrs["axis"] % rank)
    _emit(node, state, [state.view(name, perm) for name in node.inputs], perm, axis=axis)


def _split(node: Node, state: _Stored) -> None:
    perm = state.perms[node.inputs[0]]
    axis = perm.index(node.attrs.get("axis", 0) % len(perm))
    sizes = [state.onnx_shapes[name][perm[axis]] for name in node.outputs]
    _emit(node, state, node.inputs[:1], perm, axis=axis, sizes=sizes)


def _slice(node: Node, state: _Stored) -> None:
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
        begin[axis], end[axis], stride[axis] = (*slice(start, stop).indices(shape[axis])[:2], step)
    _emit(
        node,
        state,
        (x,),
        perm,
        begin=[begin[axis] for axis in perm],
        end=[end[axis] for axis in perm],
        strides=[stride[axis] for axis in perm],
    )


def _pad(node: Node, state: _Stored) -> None:
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
    _emit(node, state, (x,), perm, paddings=[around.get(axis, (0, 0)) for axis in perm], value=value)


def _gather(node: Node, state: _Stored) -> None:
    x, indices = node.inputs[0], state.tensors[node.inputs[1]].values
    perm = state.perms[x]
    axis = node.attrs.get("axis", 0) % len(perm)
    size = state.onnx_shapes[x][axis]
    if indices.ndim > 1:
        x, perm = state.view(x, natural(perm)), natural(perm)
        after = natural(state.onnx_shapes[node.outputs[0]])
    else:
        after = perm if indices.ndim else tuple(a - (a > axis) for a in perm if a != axis)
    _emit(node, state, (x,), after, axis=perm.index(axis), indices=np.asarray(indices % size, np.int32))


def _mean(node: Node, state: _Stored) -> None:
    x = node.inputs[0]
    perm, axes = state.perms[x], node.attrs["axes"]
    after = perm
    if not node.attrs["keepdims"]:
        left = [axis for axis in perm if axis not in axes]
        after = tuple(sorted(left).index(axis) for axis in left)
    _emit(node, state, (x,), after, axes=sorted(perm.index(axis) for axis in axes))


def _softmax(node: Node, state: _Stored) -> None:
    x = node.inputs[0]
    perm = state.perms[x]
    axis = node.attrs.get("axis", -1) % len(perm)
    wanted = (*(a for a in perm if a != axis), axis)
    _emit(node, state, (state.view(x, wanted),), wanted)


def _transpose(node: Node, state: _Stored) -> None:
    """No operator: the same stored elements under another permutation."""
    x = node.inputs[0]
    rank = len(state.perms[x])
    p = list(node.attrs.get("perm") or range(rank)[::-1])
    perm = tuple(p.index(axis) for axis in state.perms[x])
    _emit(Node("Reshape", node.name, (x,), node.outputs), state, (x,), perm)


def _gemm(node: Node, state: _Stored) -> None:
    x, weight, bias = node.inputs
    order = state.orders.get(x)
    rank = len(state.perms[x])
    if order is not None:
        w = state.tensors[weight]
        permuted = constant(f"{weight}/{node.name}", w.values[:, order], w.qparams)
        state.tensors[permuted.name] = permuted
        weight = permuted.name
    else:
        x = state.view(x, tuple(range(rank)))
    _emit(node, state, (x, weight, bias), tuple(range(rank)))


def _reshape(node: Node, state: _Stored) -> None:
    x, y = node.inputs[0], node.outputs[0]
    before, after = state.onnx_shapes[x], state.onnx_shapes[y]
    groups = _groups(before, after)
    perm = state.perms[x]
    order = _flatten_order(x, y, groups, state)
    if order is not None:
        _emit(node, state, (x,), tuple(range(len(after))))
        _set_order(y, order, state)
        return
    group_of = {axis: index for index, (axes, _) in enumerate(groups) for axis in axes}
    stored = [axis for axis in perm if before[axis] != 1]
    sequence = list(dict.fromkeys(group_of[axis] for axis in stored))
    wanted = [axis for index in sequence for axis in sorted(groups[index][0]) if before[axis] != 1]
    if wanted != stored:
        ones = [axis for axis in range(len(before)) if before[axis] == 1]
        x = state.view(x, tuple(_with_ones(wanted, ones)))
    left = [axis for index in sequence for axis in sorted(groups[index][1]) if after[axis] != 1]
    _emit(node, state, (x,), _compatible(left, after))


def _compatible(sequence: list[int], shape: tuple[int, ...]) -> Perm:
    """A permutation whose axes other than 1 come in this order; channels last where that is one."""
    rank = len(shape)
    for perm in (channels_last(rank), tuple(range(rank))):
        if [axis for axis in perm if shape[axis] != 1] == sequence:
            return perm
    return tuple(_with_ones(sequence, [axis for axis in range(rank) if shape[axis] == 1]))


def _with_ones(sequence: list[int], ones: list[int]) -> list[int]:
    axes = list(sequence)
    for axis in ones:
        axes.insert(min(axis, len(axes)), axis)
    return axes


def _groups(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of neighbouring axes with equal products on both sides."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        a = before[i] if left else 1
        b = after[j] if right else 1
        i, j = i + len(left), j + len(right)
        while a != b:
            if (a < b and i < len(before)) or j >= len(after):
                a *= before[i]
                left.append(i)
                i += 1
            else:
                b *= after[j]
                right.append(j)
                j += 1
        groups.append((left, right))
    return groups


def _flatten_order(x: str, y: str, groups: list[tuple[list[int], list[int]]], state: _Stored) -> np.ndarray | None:
    """The order of a flattened last axis as it is stored, where only dense layers will read it; else None."""
    before, perm = state.onnx_shapes[x], state.perms[x]
    *others, (axes, right) = groups
    real = [axis for axis in axes if before[axis] != 1]
    stored = [axis for axis in perm if before[axis] != 1]
    if len(right) != 1 or sorted(real) == [axis for axis in stored if axis in real]:
        return None
    head = [axis for left, _ in others for axis in left if before[axis] != 1]
    if stored[: len(head)] != head or not _only_dense_reads(y, state):
        return None
    sizes = [before[axis] for axis in sorted(real)]
    moves = [sorted(real).index(axis) for axis in stored[len(head) :]]
    return np.arange(int(np.prod(sizes))).reshape(sizes).transpose(moves).reshape(-1)


def _only_dense_reads(name: str, state: _Stored) -> bool:
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        if tensor in state.graph.outputs:
            return False
        for reader in state.readers.get(tensor, ()):
            if reader.op in UNARY:
                waiting.append(reader.outputs[0])
            elif reader.op != "Gemm":
                return False
    return True


_RULES: dict[str, Callable[[Node, _Stored], None]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "ChannelAffine"), _window),
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Mean": _mean,
    "Softmax": _softmax,
    "Transpose": _transpose,
    "Gemm": _gemm,
    "Reshape": _reshape,
}
