"""The lowest code that each int8 tensor of a lowered graph can hold: a bound that is proved, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bridge.exact.graph import Graph, Node, QParams, Tensor

LOWEST = -128
"""Where nothing better is proved; also of the model's inputs, for a caller may feed any code."""

Lows = Mapping[str, int]


def lowest_codes(graph: Graph) -> dict[str, int]:
    """By tensor, a code that none of its elements is below, whatever the model is fed.

    Constants have the lowest of theirs. Operators are walked in order, each by the rule of `_RULES` or, where it has a
    fused activation, by that; an operator without a rule, or one whose operands have different scales where its rule
    compares codes, gives -128. A rule whose kernels round (averages, interpolation, rescaling) leaves one code of room.
    """
    lows = {name: _of_constant(tensor) for name, tensor in graph.tensors.items() if tensor.is_constant}
    lows.update(dict.fromkeys(graph.inputs, LOWEST))
    for node in graph.nodes:
        for name in node.outputs:
            y = graph.tensors[name]
            lows[name] = max(LOWEST, _of_activation(node, y), _of_rule(node, y, graph, lows))
    return lows


def _of_constant(tensor: Tensor) -> int:
    return LOWEST if tensor.dtype != np.int8 else int(tensor.values.min(initial=127))


_RELU_FROM = {"RELU": 0.0, "RELU6": 0.0, "RELU_N1_TO_1": -1.0}


def _of_activation(node: Node, y: Tensor) -> int:
    """A ReLU, fused or of its own, ends at the code of its lower limit (lite/kernels/kernel_util.cc,
    CalculateActivationRangeQuantized); a limit other than zero is rounded, and gets a code of room.
    """
    name = node.op if node.op in _RELU_FROM else str(node.attrs.get("fused_activation", "NONE"))
    if name not in _RELU_FROM or y.qparams is None or y.qparams.axis is not None:
        return LOWEST
    limit = _RELU_FROM[name]
    zero = int(y.q.zero_point)
    return zero if limit == 0.0 else int(np.floor(zero + limit / float(y.q.scale))) - 1


def _of_rule(node: Node, y: Tensor, graph: Graph, lows: Lows) -> int:
    rule = _RULES.get(node.op)
    if rule is None or y.qparams is None or y.dtype != np.int8:
        return LOWEST
    operands = [graph.tensors[name] for name in node.inputs if name]
    read = [tensor for tensor in operands if tensor.dtype == np.int8 and tensor.qparams is not None]
    if not read or any(tensor.q.axis is not None for tensor in (*read, y)):
        return LOWEST
    return rule(y, read, [lows.get(tensor.name, LOWEST) for tensor in read])


Rule = Callable[[Tensor, list[Tensor], list[int]], int]
"""(output, its int8 operands, their lowest codes) -> the lowest code of the output."""


def _alike(rule: Callable[[QParams, list[int]], int]) -> Rule:
    """For operators that move or compare codes: where all are on one grid."""

    def checked(y: Tensor, read: list[Tensor], lows: list[int]) -> int:
        return rule(y.q, lows) if all(tensor.q.same_grid(y.q) for tensor in read) else LOWEST

    return checked


def _sum(y: Tensor, read: list[Tensor], lows: list[int]) -> int:
    """QUANTIZE of one tensor, ADD of two: both rise with their operands."""
    real = sum(float(tensor.q.scale) * (low - int(tensor.q.zero_point)) for tensor, low in zip(read, lows, strict=True))
    return int(np.floor(real / float(y.q.scale) + int(y.q.zero_point))) - 1


_LEAST = _alike(lambda _, lows: min(lows))
_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "GATHER",
            "CONCATENATION", "PACK", "UNPACK", "TILE", "BROADCAST_TO", "REVERSE_V2", "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE", "MIRROR_PAD", "PADV2", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "MINIMUM",
        ),
        _LEAST,
    ),
    "MAXIMUM": _alike(lambda _, lows: max(lows)),
    "PAD": _alike(lambda q, lows: min(*lows, int(q.zero_point))),  # pads with the code of zero
    **dict.fromkeys(("AVERAGE_POOL_2D", "MEAN", "RESIZE_BILINEAR"), _alike(lambda _, lows: min(lows) - 1)),
    "QUANTIZE": _sum,
    "ADD": _sum,
}  # fmt: skip
