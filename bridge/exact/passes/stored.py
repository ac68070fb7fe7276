"""What the layout pass knows while it works: how each tensor is stored, and the operators so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bridge.exact.graph import Graph, Node, Note, Origin, Tensor, add_made, constant
from bridge.exact.names import free_name

Perm = tuple[int, ...]


def channels_last(rank: int) -> Perm:
    """N, spatial axes, C."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


@dataclass
class Stored:
    """The graph under construction: what is stored how, and the operators so far."""

    graph: Graph
    tensors: dict[str, Tensor]
    perms: dict[str, Perm]
    readers: dict[str, list[Node]]
    orders: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    views: dict[tuple[str, Perm], str] = field(default_factory=dict)
    wide: dict[tuple[str, int], str] = field(default_factory=dict)
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
        made = free_name(f"{name}/{'x'.join(map(str, perm))}")
        if tensor.is_constant:
            qparams = tensor.qparams
            if qparams is not None and qparams.axis is not None:
                qparams = qparams.on_axis(moves.index(qparams.axis))
            add_made(self.tensors, constant(made, tensor.values.transpose(moves), qparams))
        else:
            origin = replace(tensor.origin, perm=perm) if tensor.origin else None
            add_made(self.tensors, replace(tensor, name=made, shape=shape, origin=origin))
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


def emit(node: Node, state: Stored, inputs: Iterable[str], perm: Perm, **attrs: object) -> None:
    made = replace(node, inputs=tuple(inputs), attrs={**node.attrs, **attrs})
    state.nodes.append(made)
    for index, name in enumerate(node.outputs):
        if name:
            state.write(made, perm, index)


def set_order(name: str, order: np.ndarray, state: Stored) -> None:
    state.orders[name] = order
    tensor = state.tensors[name]
    if tensor.origin is not None:
        state.tensors[name] = replace(tensor, origin=replace(tensor.origin, order=order))
