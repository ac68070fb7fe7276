"""Int8 sums as XNNPACK's NEON kernels make them, in numpy: two products are added in 16 bits before they are widened.

Which two follows from the kernels' sources (bridge/exact/pair_sums.py names them). The requantization is theirs too:
float32, rounded half to even. Held against the kernels themselves, run by emulation, in tests/benchmarks/test_arm.py.
"""

from __future__ import annotations

import numpy as np

from bridge.exact.graph import Graph, Node, Tensor


def outputs(graph: Graph, x: np.ndarray, *, wraps: bool = True) -> np.ndarray:
    """Output codes of a graph of one CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED for the input codes `x`.

    As on a Cortex-A72; a Cortex-A53 or A55 has the same depthwise kernels, and others for the rest. `wraps` False: as
    on a processor that adds in 32 bits. Strides and SAME or VALID padding; no dilation, depth multiplier 1, no groups.
    """
    (node,) = graph.nodes
    data, weight, bias = graph.operands(node)
    codes = x.astype(np.int32)
    if node.op == "FULLY_CONNECTED":
        sums = _by_eights(codes.reshape(-1, codes.shape[-1])[:, None, :] * weight.values.astype(np.int32), wraps)
    else:
        windows = _windows(codes, node, data, weight)  # (N, H, W, taps, C)
        if node.op == "DEPTHWISE_CONV_2D":
            taps = weight.values.astype(np.int32).reshape(-1, weight.shape[3])
            height, width = weight.shape[1:3]
            # Column by column: xnn_indirection_init_dwconv2d puts tap (y, x) at x * height + y.
            order = np.arange(height * width).reshape(height, width).T.reshape(-1)
            products = np.moveaxis((windows * taps)[..., order, :], 3, -1)
            sums = _by_neighbours(products, wraps and height * width <= _LARGEST_UNIPASS)
        else:
            taps = weight.values.astype(np.int32).reshape(weight.shape[0], -1, weight.shape[3])
            sums = _by_eights(windows[..., None, :, :] * taps, wraps).sum(-1)
    zeros = int(data.q.zero_point) * weight.values.astype(np.int64).sum(
        tuple(i for i in range(len(weight.shape)) if i != (3 if node.op == "DEPTHWISE_CONV_2D" else 0))
    )
    return _requantized(sums - zeros + bias.values, data, weight, graph.output(node), node)


_LARGEST_UNIPASS = 25
"""Taps of the largest depthwise kernel that adds pairs; larger windows take several passes, which widen each product."""


def _by_neighbours(products: np.ndarray, wraps: bool) -> np.ndarray:
    """Products along the last axis, 0 with 1, 2 with 3; the last one of an odd number alone."""
    even = np.concatenate([products, np.zeros((*products.shape[:-1], products.shape[-1] % 2), np.int32)], -1)
    return np.asarray(_added(even.reshape(*even.shape[:-1], -1, 2), wraps).sum(-1))


def _by_eights(products: np.ndarray, wraps: bool) -> np.ndarray:
    """Products along the last axis, k with k + 8 in each sixteen of them."""
    missing = -products.shape[-1] % 16
    whole = np.concatenate([products, np.zeros((*products.shape[:-1], missing), np.int32)], -1)
    blocks = np.moveaxis(whole.reshape(*whole.shape[:-1], -1, 2, 8), -2, -1)
    return np.asarray(_added(blocks, wraps).sum((-1, -2)))


def _added(two: np.ndarray, wraps: bool) -> np.ndarray:
    """The sum of the two products on the last axis, in int32, or in int16 and then widened."""
    total: np.ndarray = two.sum(-1)
    return total.astype(np.int16).astype(np.int32) if wraps else total


def _windows(x: np.ndarray, node: Node, data: Tensor, weight: Tensor) -> np.ndarray:
    """(N, H, W, taps, C) of NHWC codes; what SAME adds is the zero point."""
    sizes, strides = weight.shape[1:3], (node.attrs["stride_h"], node.attrs["stride_w"])
    pads = [(0, 0), (0, 0)]
    if node.attrs["padding"] == "SAME":
        for i in range(2):
            total = max((-(-x.shape[1 + i] // strides[i]) - 1) * strides[i] + sizes[i] - x.shape[1 + i], 0)
            pads[i] = (total // 2, total - total // 2)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=int(data.q.zero_point))
    height, width = ((padded.shape[1 + i] - sizes[i]) // strides[i] + 1 for i in range(2))
    taps = [
        padded[:, top : top + height * strides[0] : strides[0], left : left + width * strides[1] : strides[1]]
        for top in range(sizes[0])
        for left in range(sizes[1])
    ]
    windows: np.ndarray = np.stack([tap[:, :height, :width] for tap in taps], 3)
    return windows


_LIMITS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def _requantized(sums: np.ndarray, data: Tensor, weight: Tensor, y: Tensor, node: Node) -> np.ndarray:
    factor = (data.q.scale * weight.q.scale / y.q.scale).astype(np.float32)
    zero = int(y.q.zero_point)
    low, high = -128, 127
    if (name := node.attrs.get("fused_activation", "NONE")) in _LIMITS:
        low, high = (int(np.clip(np.rint(limit / y.q.scale) + zero, -128, 127)) for limit in _LIMITS[str(name)])
    codes = np.rint(sums.astype(np.float32) * factor) + zero
    clipped: np.ndarray = np.clip(codes, low, high).astype(np.int8).reshape(sums.shape)
    return clipped
