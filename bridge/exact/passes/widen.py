"""Windows over one axis become windows over two, the first of size 1: TFLite's kernels know no others.

Conv(x (N, C, L))   becomes   Reshape to (N, C, 1, L), the same Conv over two axes, Reshape back
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact import operators
from bridge.exact.graph import Graph, Node, Tensor, add_made, constant
from bridge.exact.names import free_name


def widen(graph: Graph) -> Graph:
    """Every convolution and pool over one axis with two reshapes around it."""
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        if not operators.of(node).windowed or len(node.attrs["kernel_shape"]) != 1:
            nodes.append(node)
            continue
        for item in _over_two_axes(node, tensors):
            if isinstance(item, Tensor):
                add_made(tensors, item)
            else:
                nodes.append(item)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _over_two_axes(node: Node, tensors: dict[str, Tensor]) -> Iterator[Node | Tensor]:
    x, y = tensors[node.inputs[0]], tensors[node.outputs[0]]
    wide_x = replace(x, name=free_name(f"{node.name}/input2d"), shape=_widened(x.shape), origin=None)
    wide_y = replace(y, name=free_name(f"{node.name}/output2d"), shape=_widened(y.shape), origin=None)
    operands = list(node.inputs[1:])
    if operators.of(node).weights is not None:
        weight = tensors[operands[0]]
        wide = constant(free_name(f"{node.name}/weight2d"), np.expand_dims(weight.values, 2), weight.qparams)
        operands[0] = wide.name
        yield wide
    yield wide_x
    yield wide_y
    attrs = dict(node.attrs)
    for name in ("kernel_shape", "strides", "dilations"):
        attrs[name] = [1, *attrs[name]]
    before, after = attrs["pads"]
    attrs["pads"] = [0, before, 0, after]
    if "output_padding" in attrs:
        attrs["output_padding"] = [0, *attrs["output_padding"]]
    yield Node("Reshape", free_name(f"{node.name}/widen"), (x.name,), (wide_x.name,))
    yield replace(node, inputs=(wide_x.name, *operands), outputs=(wide_y.name,), attrs=attrs)
    yield Node("Reshape", free_name(f"{node.name}/narrow"), (wide_y.name,), (y.name,))


def _widened(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, *shape[2:])
