"""A Reshape on data that is stored in another order than ONNX has it: which axes can stay where they are.

A reshape splits and merges neighbouring axes. Groups of axes with equal products on both sides are found first; where
the stored order keeps every group together and in order, the reshape works on the stored data as it is.
"""

from __future__ import annotations

import numpy as np

from bridge.exact import operators
from bridge.exact.graph import Node
from bridge.exact.operators.record import Axes
from bridge.exact.passes.stored import Perm, Stored, channels_last, emit, set_order


def regroup(node: Node, state: Stored) -> None:
    """The rule for Reshape: one on the stored data, with a Transpose before it where a group is torn apart."""
    x, y = node.inputs[0], node.outputs[0]
    before, after = state.onnx_shapes[x], state.onnx_shapes[y]
    groups = _groups(before, after)
    perm = state.perms[x]
    order = _flatten_order(x, y, groups, state)
    if order is not None:
        emit(node, state, (x,), tuple(range(len(after))))
        set_order(y, order, state)
        return
    group_of = {axis: index for index, (axes, _) in enumerate(groups) for axis in axes}
    stored = [axis for axis in perm if before[axis] != 1]
    sequence = list(dict.fromkeys(group_of[axis] for axis in stored))
    wanted = [axis for index in sequence for axis in sorted(groups[index][0]) if before[axis] != 1]
    if wanted != stored:
        ones = [axis for axis in range(len(before)) if before[axis] == 1]
        x = state.view(x, tuple(_with_ones(wanted, ones)))
    left = [axis for index in sequence for axis in sorted(groups[index][1]) if after[axis] != 1]
    emit(node, state, (x,), _compatible(left, after))


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


def _flatten_order(x: str, y: str, groups: list[tuple[list[int], list[int]]], state: Stored) -> np.ndarray | None:
    """The order of a flattened last axis as it is stored, where only dense layers will read it; else None."""
    before, perm = state.onnx_shapes[x], state.perms[x]
    if not groups:  # a scalar to a scalar
        return None
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


def _only_dense_reads(name: str, state: Stored) -> bool:
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        if tensor in state.graph.outputs:
            return False
        for reader in state.readers.get(tensor, ()):
            if operators.of(reader).axes is Axes.AS_STORED:
                waiting.append(reader.outputs[0])
            elif reader.op != "Gemm":
                return False
    return True
