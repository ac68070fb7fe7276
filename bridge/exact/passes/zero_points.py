"""Weights at zero point 0, the only one that TFLite's int8 kernels know: the same numbers, in one part or in several.

    numbers = code - zero point, all within -128..127     the same operator with these codes
    else numbers = a + b, each within -127..127           Conv(Concat(x, x), [a, b]), Gemm(Concat(x, x), [a, b])

The sums are the same integers, so that the second form is exact; it costs as many weights and multiplications again,
and a copy of the input. Of a grouped convolution the channels of each group are repeated by a Gather.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact import operators
from bridge.exact.arithmetic import along_axis
from bridge.exact.graph import Graph, Node, Note, QParams, Tensor, add_made, constant
from bridge.exact.names import free_name

_PART = 127
"""The largest number of a part; -128 is left out, which kernels for ARM can add wrongly (pair_sums.py)."""


def at_zero(graph: Graph) -> Graph:
    """The same graph, every quantized weight of a convolution or dense layer at zero point 0.

    Raises `BridgeError` for a grouped transposed convolution whose weight does not fit.
    """
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    notes = list(graph.notes)
    for node in graph.nodes:
        channels = operators.of(node).weights
        weight = tensors[node.inputs[1]] if channels is not None else None
        if (
            channels is None
            or weight is None
            or not weight.is_constant
            or weight.qparams is None
            or not weight.q.zero_point.any()
        ):
            nodes.append(node)
            continue
        for item in _written(node, weight, channels.inputs, tensors):
            if isinstance(item, Tensor):
                add_made(tensors, item)
            elif isinstance(item, Note):
                notes.append(item)
            else:
                nodes.append(item)
    return replace(graph, nodes=tuple(nodes), tensors=tensors, notes=tuple(notes))


Made = Iterator[Node | Tensor | Note]


def _written(node: Node, weight: Tensor, axis: int, tensors: dict[str, Tensor]) -> Made:
    """`axis`: where the input channels lie in the weight."""
    numbers = weight.values.astype(np.int32) - along_axis(weight.q, len(weight.shape))[1]
    outside = int(((numbers < -128) | (numbers > 127)).sum())
    parts = _parts(numbers) if outside else [numbers.astype(np.int8)]
    group = node.attrs.get("group", 1)
    if outside and node.op == "ConvTranspose" and group != 1:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has zero point {_shown(weight)} (as int8), and without it {outside} of {numbers.size} codes do not "
            f"fit int8; of a transposed convolution in {group} groups there is no exact form of two parts",
            remedy="Quantize the weights symmetrically (ONNX Runtime: weight_type=QuantType.QInt8, "
            "extra_options={'WeightSymmetric': True}; PyTorch: a symmetric weight observer), and export again.",
        )
    qparams = weight.q
    zeros = np.zeros_like(qparams.zero_point)
    scale_axis = None if qparams.axis is None else qparams.axis
    kept = constant(
        free_name(f"{weight.name}/at zero"), np.concatenate(parts, axis), QParams(qparams.scale, zeros, scale_axis)
    )
    if outside and scale_axis == axis:
        raise BridgeError(
            where=f"{node}, weight '{weight.name}'",
            problem=f"has its scales along axis {axis}, its input channels",
            remedy="Quantize the weight per output channel, or per tensor.",
        )
    yield kept
    if not outside:
        yield replace(node, inputs=(node.inputs[0], kept.name, *node.inputs[2:]))
        return
    x = tensors[node.inputs[0]]
    channels = len(x.shape) - 1 if node.op == "Gemm" else 1
    shape = tuple(size * (len(parts) if i == channels else 1) for i, size in enumerate(x.shape))
    repeated = replace(x, name=free_name(f"{node.name}/input repeated"), shape=shape, origin=None)
    yield repeated
    yield from _repeated(node, x, repeated, len(parts), group, channels)
    yield replace(node, inputs=(repeated.name, kept.name, *node.inputs[2:]))
    yield Note(
        "parts",
        str(node),
        f"zero point {_shown(weight)} (as int8), without which {outside} of {numbers.size} codes do not fit int8: "
        f"{len(parts)} parts, {weight.values.size * (len(parts) - 1):,} bytes of weights more",
        made=1,
    )


def _parts(numbers: np.ndarray) -> list[np.ndarray]:
    """Summands of int8, as few as there can be."""
    parts, rest = [], numbers
    while rest.any():
        part = np.clip(rest, -_PART, _PART)
        parts.append(part.astype(np.int8))
        rest = rest - part
    return parts


def _shown(weight: Tensor) -> int:
    zero = weight.q.zero_point
    return int(zero[zero != 0].flat[0])


def _repeated(node: Node, x: Tensor, repeated: Tensor, times: int, group: int, axis: int) -> Made:
    """The input's channels several times, those of a group beside each other."""
    name = free_name(f"{node.name}/repeat")
    if group == 1:
        yield Node("Concat", name, (x.name,) * times, (repeated.name,), {"axis": axis})
        return
    each = np.arange(x.shape[axis]).reshape(group, -1)
    order = constant(free_name(f"{node.name}/order"), np.tile(each, (1, times)).reshape(-1).astype(np.int64))
    yield order
    yield Node("Gather", name, (x.name, order.name), (repeated.name,), {"axis": axis})
