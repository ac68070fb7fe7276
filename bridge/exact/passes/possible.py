"""What no file can mean is refused here, once everything constant is known: numbers that are none, sizes that fit nothing.

ONNX's own checks leave these open: shape inference wraps around near 2^63, takes a Reshape at its word, and never looks
at indices or at the values of constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Tensor
from bridge.exact.integers import cut

MOST_ELEMENTS = 2**31 - 1
"""Of one tensor and of one axis: TFLite counts both in int32."""

_MAY_BE_INFINITE = {"Clip": (1, 2), "Pad": (2,)}
"""Operands where infinity means something: no limit; and padding that a maximum ignores, saturated like the rest."""

_OWN_SENTENCE = {"QuantizeLinear", "DequantizeLinear"}
"""passes/fold.py says more about a scale that is not finite."""


def possible(graph: Graph) -> Graph:
    """The same graph; raises `BridgeError`, naming operator and operand, for what cannot be computed as it stands."""
    for name in graph.inputs:
        _size(f"input '{name}'", graph.tensors[name])
    for node in graph.nodes:
        _finite(node, graph.tensors)
        for name in node.outputs:
            if name:
                _size(f"{node}, output '{name}'", graph.tensors[name])
        if node.op in _CHECKS:
            _CHECKS[node.op](node, graph.tensors)
    return graph


def _finite(node: Node, tensors: Mapping[str, Tensor]) -> None:
    for name, value in node.attrs.items():
        if isinstance(value, (float, list)) and not all(np.isfinite(number) for number in _floats(value)):
            raise _no_number(str(node), f"attribute '{name}'")
    if node.op in _OWN_SENTENCE:
        return
    for place, name in enumerate(node.inputs):
        tensor = tensors[name] if name else None
        if tensor is None or tensor.data is None or tensor.dtype.kind != "f":
            continue
        infinite = place in _MAY_BE_INFINITE.get(node.op, ())
        if np.isnan(tensor.data).any() or not (infinite or np.isfinite(tensor.data).all()):
            raise _no_number(str(node), f"constant '{name}'")


def _floats(value: Any) -> Iterator[float]:
    yield from (number for number in (value if isinstance(value, list) else [value]) if isinstance(number, float))


def _no_number(where: str, what: str) -> BridgeError:
    return BridgeError(
        where=f"{where}, {what}",
        problem="holds NaN or infinity",
        remedy="The training diverged, or the file is damaged; no integer can stand for these values.",
    )


def _size(where: str, tensor: Tensor) -> None:
    if tensor.is_constant:
        return
    if any(size < 1 for size in tensor.shape):
        raise BridgeError(
            where=where,
            problem=f"has shape {tensor.shape}, and so no element",
            remedy="Check the sizes and limits that lead to it; the integer kernels do not compute nothing.",
        )
    if prod(tensor.shape) > MOST_ELEMENTS:
        raise BridgeError(
            where=where,
            problem=f"has shape {tensor.shape}: {prod(tensor.shape)} elements, more than TFLite can count",
            remedy="The file is damaged, or was made for another input size; export it again.",
        )


def _wrong(
    node: Node, problem: str, remedy: str = "The file is damaged or was edited by hand; export it again."
) -> BridgeError:
    return BridgeError(where=str(node), problem=problem, remedy=remedy)


def _reshape(node: Node, tensors: Mapping[str, Tensor]) -> None:
    before, after = tensors[node.inputs[0]].shape, tensors[node.outputs[0]].shape
    if prod(before) != prod(after):
        raise _wrong(node, f"makes shape {after} of {before}: {prod(before)} elements are not {prod(after)}")


def _transpose(node: Node, tensors: Mapping[str, Tensor]) -> None:
    rank = len(tensors[node.inputs[0]].shape)
    perm = node.attrs.get("perm")
    if perm is not None and sorted(perm) != list(range(rank)):
        raise _wrong(node, f"has perm {perm}, which is no order of {rank} axes")


def _axes(node: Node, axes: list[int], rank: int) -> list[int]:
    found = [axis + rank if axis < 0 else axis for axis in axes]
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) < len(found):
        raise _wrong(node, f"names axes {axes} of a tensor with {rank}; each can be named once")
    return found


def _numbers(node: Node, place: int, tensors: Mapping[str, Tensor]) -> list[int] | None:
    """A constant operand as whole numbers; None where it is left out."""
    if place >= len(node.inputs) or not node.inputs[place]:
        return None
    return [int(number) for number in tensors[node.inputs[place]].values.reshape(-1)]


def _slice(node: Node, tensors: Mapping[str, Tensor]) -> None:
    shape = tensors[node.inputs[0]].shape
    starts, ends = _numbers(node, 1, tensors) or [], _numbers(node, 2, tensors) or []
    axes = _numbers(node, 3, tensors)
    axes = _axes(node, list(range(len(starts))) if axes is None else axes, len(shape))
    steps = _numbers(node, 4, tensors)
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise _wrong(node, f"has {len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps")
    if 0 in steps:
        raise _wrong(node, "has a step of 0")
    made = list(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        made[axis] = len(cut(start, end, step, shape[axis]))
    if tuple(made) != tensors[node.outputs[0]].shape:
        raise _wrong(node, f"takes {tuple(made)} of {shape}; the file says {tensors[node.outputs[0]].shape}")


def _gather(node: Node, tensors: Mapping[str, Tensor]) -> None:
    shape = tensors[node.inputs[0]].shape
    (axis,) = _axes(node, [int(node.attrs.get("axis", 0))], len(shape))
    indices = tensors[node.inputs[1]].values
    outside = indices[(indices < -shape[axis]) | (indices >= shape[axis])]
    if outside.size:
        raise _wrong(node, f"picks element {outside.flat[0]} of {shape[axis]} on axis {axis}")


def _pad(node: Node, tensors: Mapping[str, Tensor]) -> None:
    shape = tensors[node.inputs[0]].shape
    pads, axes = _numbers(node, 1, tensors) or [], _numbers(node, 3, tensors)
    axes = _axes(node, list(range(len(shape))) if axes is None else axes, len(shape))
    if len(pads) != 2 * len(axes):
        raise _wrong(node, f"has {len(pads)} paddings for {len(axes)} axes")
    if len(node.inputs) > 2 and node.inputs[2] and tensors[node.inputs[2]].values.size != 1:
        raise _wrong(node, f"pads with {tensors[node.inputs[2]].values.size} numbers instead of one")
    made = list(shape)
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        made[axis] += before + after
        if node.attrs.get("mode") == "reflect" and max(before, after) >= shape[axis]:
            raise _wrong(
                node,
                f"reflects {max(before, after)} elements of the {shape[axis]} on axis {axis}, the border not counted",
                "Pad by less than the size of the axis: there is nothing more to reflect.",
            )
    if tuple(made) != tensors[node.outputs[0]].shape:
        raise _wrong(node, f"makes {tuple(made)} of {shape}; the file says {tensors[node.outputs[0]].shape}")


def _prelu(node: Node, tensors: Mapping[str, Tensor]) -> None:
    """Slopes broadcast to the input and never beyond it; shape inference does not look."""
    x, slope = (tensors[name].shape for name in node.inputs)
    wide = (1,) * (len(x) - len(slope)) + slope
    if len(slope) > len(x) or any(size not in (1, whole) for size, whole in zip(wide, x, strict=True)):
        raise _wrong(node, f"has slopes of shape {slope}, which do not broadcast to its input {x}")


_CHECKS: dict[str, Callable[[Node, Mapping[str, Tensor]], None]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "PRelu": _prelu,
}
