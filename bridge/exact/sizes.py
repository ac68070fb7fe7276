"""The output size that TFLite's kernels compute for themselves, held against the one the model has.

A kernel does not read the shape in the file: it computes its own when it prepares, and everything behind it goes on with
that. So each operator that is written is asked here what its kernel will make.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from bridge.exact.passes.possible import MOST_ELEMENTS

Shape = tuple[int, ...]


def refuse_other_sizes(graph: Graph) -> None:
    """Raise `BridgeError` for the first operator of a lowered graph whose kernel makes another size than the model."""
    for node in graph.nodes:
        said = [graph.tensors[name].shape for name in node.outputs]
        made = _SIZES.get(node.op, _of_first)(node, graph)
        for name, shape in zip(node.outputs, said, strict=True):
            if prod(shape) > MOST_ELEMENTS or any(size < 1 for size in shape):
                raise BridgeError(
                    where=f"{node}, output '{name}'",
                    problem=f"has shape {shape}, which TFLite cannot hold: 1 to {MOST_ELEMENTS} elements",
                    remedy="The file is damaged, or was made for another input size; export it again.",
                )
        if made != said:
            raise BridgeError(
                where=str(node),
                problem=f"makes {' and '.join(map(str, made))} of its inputs; the model says {' and '.join(map(str, said))}",
                remedy="The file is damaged or was edited by hand; export it again.",
            )


def _of_first(node: Node, graph: Graph) -> list[Shape]:
    return [graph.tensors[node.inputs[0]].shape]


def _broadcast(node: Node, graph: Graph) -> list[Shape]:
    return [np.broadcast_shapes(*(graph.tensors[name].shape for name in node.inputs))]


def _numbers(node: Node, place: int, graph: Graph) -> list[int]:
    return [int(number) for number in graph.tensors[node.inputs[place]].values.reshape(-1)]


def _reshape(node: Node, graph: Graph) -> list[Shape]:
    wanted = tuple(_numbers(node, 1, graph))
    before = graph.tensors[node.inputs[0]].shape
    return [wanted if prod(wanted) == prod(before) else before]


def _transpose(node: Node, graph: Graph) -> list[Shape]:
    x = graph.tensors[node.inputs[0]]
    return [tuple(x.shape[axis] for axis in _numbers(node, 1, graph))]


def _pad(node: Node, graph: Graph) -> list[Shape]:
    x, rows = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]].values
    return [tuple(size + int(before) + int(after) for size, (before, after) in zip(x.shape, rows, strict=True))]


def _slice(node: Node, graph: Graph) -> list[Shape]:
    return [tuple(_numbers(node, 2, graph))]


def _strided_slice(node: Node, graph: Graph) -> list[Shape]:
    cuts = zip(*(_numbers(node, place, graph) for place in (1, 2, 3)), strict=True)
    return [tuple(len(range(*each)) for each in cuts)]


def _split(node: Node, graph: Graph) -> list[Shape]:
    x, (axis,) = graph.tensors[node.inputs[1]], _numbers(node, 0, graph)
    parts = int(node.attrs["num_splits"])
    part = x.shape[axis] // parts if x.shape[axis] % parts == 0 else -1
    return [(*x.shape[:axis], part, *x.shape[axis + 1 :])] * parts


def _split_v(node: Node, graph: Graph) -> list[Shape]:
    x, (axis,) = graph.tensors[node.inputs[0]], _numbers(node, 2, graph)
    return [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in _numbers(node, 1, graph)]


def _concatenation(node: Node, graph: Graph) -> list[Shape]:
    shapes = [graph.tensors[name].shape for name in node.inputs]
    axis = int(node.attrs["axis"])
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    whole = sum(shape[axis] for shape in shapes) if len(others) == 1 else -1
    return [(*shapes[0][:axis], whole, *shapes[0][axis + 1 :])]


def _gather(node: Node, graph: Graph) -> list[Shape]:
    x, indices = (graph.tensors[name].shape for name in node.inputs)
    axis = int(node.attrs["axis"])
    return [(*x[:axis], *indices, *x[axis + 1 :])]


def _mean(node: Node, graph: Graph) -> list[Shape]:
    shape, axes = graph.tensors[node.inputs[0]].shape, _numbers(node, 1, graph)
    if node.attrs["keep_dims"]:
        return [tuple(1 if axis in axes else size for axis, size in enumerate(shape))]
    return [tuple(size for axis, size in enumerate(shape) if axis not in axes)]


def _dense(node: Node, graph: Graph) -> list[Shape]:
    x, weight = (graph.tensors[name].shape for name in node.inputs[:2])
    if node.attrs.get("keep_num_dims"):
        return [(*x[:-1], weight[0] if x[-1] == weight[1] else -1)]
    return [(prod(x) // weight[1], weight[0] if prod(x) % weight[1] == 0 else -1)]


def _batch_matmul(node: Node, graph: Graph) -> list[Shape]:
    a, b = (graph.tensors[name].shape for name in node.inputs)
    return [(*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1] if a[-1] == b[-2] else -1)]


def _window(node: Node, graph: Graph) -> list[Shape]:
    """kernels/padding.h, ComputeOutSize."""
    x = graph.tensors[node.inputs[0]].shape
    weight = graph.tensors[node.inputs[1]].shape if len(node.inputs) > 1 else None
    sizes = weight[1:3] if weight else (node.attrs["filter_height"], node.attrs["filter_width"])
    spatial = []
    for i, side in enumerate("hw"):
        reach = (sizes[i] - 1) * node.attrs.get(f"dilation_{side}_factor", 1) + 1
        stride = node.attrs[f"stride_{side}"]
        covered = x[1 + i] if node.attrs["padding"] == "SAME" else x[1 + i] - reach + 1
        spatial.append(-(-covered // stride))
    channels = x[3] if weight is None else weight[3] if node.op == "DEPTHWISE_CONV_2D" else weight[0]
    return [(x[0], *spatial, channels)]


def _transpose_conv(node: Node, graph: Graph) -> list[Shape]:
    """The operand that says the output's shape; the convolution it reverses must come back to the input's."""
    shape, x = tuple(_numbers(node, 0, graph)), graph.tensors[node.inputs[2]].shape
    weight = graph.tensors[node.inputs[1]].shape
    for i, side in enumerate("hw"):
        stride = node.attrs[f"stride_{side}"]
        covered = shape[1 + i] if node.attrs["padding"] == "SAME" else shape[1 + i] - weight[1 + i] + 1
        if -(-covered // stride) != x[1 + i]:
            return [(-1,) * 4]
    return [shape]


def _resize(node: Node, graph: Graph) -> list[Shape]:
    x = graph.tensors[node.inputs[0]].shape
    return [(x[0], *_numbers(node, 1, graph), x[3])]


_SIZES: dict[str, Callable[[Node, Graph], list[Shape]]] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "PRELU"), _broadcast),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pad),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D"), _window),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _dense,
    "GATHER": _gather,
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
}
"""By operator; the ones that are missing keep the shape of their first operand."""
