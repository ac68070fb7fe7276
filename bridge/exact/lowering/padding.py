"""Explicit padding as TFLite has it: SAME or VALID where one of them is the same, a PAD operator where neither is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.exact.graph import Graph, Lowered, Node, QParams, Tensor, constant
from bridge.exact.names import free_name


def padded(
    node: Node, x: Tensor, graph: Graph, kernel: tuple[int, ...], lowest: bool = False
) -> tuple[Lowered, str, str]:
    """What goes before a window operator, the tensor it then reads, and "SAME" or "VALID".

    Only the padding that some window reaches counts: PyTorch's symmetric padding of a strided window often ends
    beyond the last one. `lowest`: pad with what a maximum ignores, instead of zero.
    SAME pads the smaller half first (kernels/padding.h, ComputePaddingHeightWidth). A convolution whose last windows
    end before the input does not get SAME: XNNPACK (LiteRT 2.1.0) then moves its windows on the other axis, up to 127
    codes off in kernels 1x3 with strides 3x1; its pools and the reference kernels do not (docs/properties.md).
    """
    y = graph.output(node)
    strides, dilations, pads = node.attrs["strides"], node.attrs["dilations"], node.attrs["pads"]
    before = [pads[0], pads[1]]
    after, same = [], True
    for i in range(2):
        size, out = x.shape[1 + i], y.shape[1 + i]
        reach = (out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1
        after.append(max(reach - size - before[i], 0))
        same_out = -(-size // strides[i])
        total = max((same_out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size, 0)
        same = same and same_out == out and total // 2 == before[i] and total - total // 2 == after[i]
        same = same and (reach >= size or node.op != "Conv")
    if not any(before) and not any(after):
        return Lowered(()), x.name, "VALID" if _valid_fits(x, y, kernel, strides, dilations) else "SAME"
    if same:
        return Lowered(()), x.name, "SAME"
    shape = (x.shape[0], *(x.shape[1 + i] + before[i] + after[i] for i in range(2)), x.shape[3])
    made = replace(x, name=free_name(f"{node.name}/padded"), shape=shape, origin=None, qparams=unclamped(x.qparams))
    rows = np.array([[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]], np.int32)
    paddings = constant(free_name(f"{node.name}/paddings"), rows)
    if not lowest or _zero_is_lowest(x):
        pad = Node("PAD", free_name(f"{node.name}/pad"), (x.name, paddings.name), (made.name,))
        return Lowered((pad,), (made, paddings)), made.name, "VALID"
    value = np.array(-128, np.int8) if x.qparams is not None else np.array(np.finfo(np.float32).min, np.float32)
    floor = constant(free_name(f"{node.name}/lowest"), value, x.qparams)
    pad = Node("PADV2", free_name(f"{node.name}/pad"), (x.name, paddings.name, floor.name), (made.name,))
    return Lowered((pad,), (made, paddings, floor)), made.name, "VALID"


def unclamped(qparams: QParams | None) -> QParams | None:
    """Without the clamp of what is padded: the code that pads may lie outside of it."""
    return None if qparams is None else QParams(qparams.scale, qparams.zero_point, qparams.axis)


def _zero_is_lowest(x: Tensor) -> bool:
    """Whether the code of zero, with which PAD pads, is the lowest one, as behind a ReLU. More NPUs take PAD than PADV2."""
    return x.qparams is not None and x.qparams.axis is None and int(x.q.zero_point) == -128


def _valid_fits(x: Tensor, y: Tensor, kernel: tuple[int, ...], strides: list[int], dilations: list[int]) -> bool:
    """Whether VALID gives this output size: floor((size - reach) / stride) + 1."""
    return all(
        (x.shape[1 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 == y.shape[1 + i] for i in range(2)
    )
