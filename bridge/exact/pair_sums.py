"""Codes of -128 that ARM's kernels add wrongly: found in a lowered graph, and made safe, kept or refused.

**What happens.** The int8 kernels for ARM multiply into 16 bits and add a second product before they widen to 32:
`vmull_s8`, `vmlal_s8`, `vpadalq_s16`. (-128)(-128) twice is 32768, which 16 bits hold as -32768, so that the sum is
65536 too small. Sources: XNNPACK, qs8-qc8w-dwconv-*-neon*-mla8 (pairs of taps; every core), qs8-qc8w-gemm and -igemm
and qd8-*-gemm of the c8 and c16 kinds with mlal (k and k + 8; Cortex-A72 and cores that it does not know); ruy,
kernel_arm64.cc, smull and smlal2 (LiteRT's built-in CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV; cores without dot
products). TFLite's 8-bit quantization specification has no weight of -128, and these kernels rely on it. Kernels for
x86, for Cortex-M and the reference kernels are right with every code (docs/arm.md has all of it measured).

**When it cannot happen.** Let a pair be the two products a*w and b*v that are added in 16 bits, all four int8.

1. They are products of one output element: w and v are two codes of one output channel, a and b two codes of the input,
   or codes that a kernel puts into the padding, which are the input's zero point. Padding of the channels up to the
   kernel's width has weight 0, and adds nothing.
2. |a*w| <= 16384, and a*w = 16384 for a = w = -128 only; the next largest product is (-128)(-127) = 16256. No product
   is below -128 * 127 = -16256. So the sum is at least -32512, which fits, and at most 32768, which alone does not; and
   that needs a = b = w = v = -128: any other pair adds up to 16384 + 16256 = 32640 at most, which fits.
3. So a channel with at most one code of -128 cannot overflow, whichever two codes the kernel pairs; nor can any
   channel whose input never holds the code -128, the zero point of its padding included. Nothing else is assumed of
   the kernel, and a channel that passes 3 is right on kernels that are not yet written, as long as they add two products.

What is left is made safe: -127 takes the place of -128, which moves a sum by at most the number of those codes, times
the largest input code. Where both operands are computed (BATCH_MATMUL), a MAXIMUM holds the second one above -128.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.complete.price import largest
from bridge.exact.graph import Graph, Node, Note, Tensor, constant
from bridge.exact.lowest_codes import LOWEST, lowest_codes
from bridge.exact.names import free_name

Weights = Literal["safe", "keep", "refuse"]
"""safe: codes of -128 that could overflow become -127. keep: as trained, for processors that are right with them (x86,
Cortex-M). refuse: stop at the first one."""


@dataclass(frozen=True)
class _Place:
    """Where an operator has its two factors, and the axis of the second one that is not summed over."""

    data: int
    weight: int
    channels: int
    pads: bool
    """Whether the kernel puts the input's zero point where the input has ended."""


_PLACES = {
    "CONV_2D": _Place(0, 1, 0, True),
    "DEPTHWISE_CONV_2D": _Place(0, 1, 3, True),
    "FULLY_CONNECTED": _Place(0, 1, 0, False),
    "TRANSPOSE_CONV": _Place(2, 1, 0, True),
    "BATCH_MATMUL": _Place(0, 1, -1, False),
}


@dataclass(frozen=True, eq=False)
class Pairs:
    """The codes of -128 in one operator's weight, or in what it multiplies with in the place of a weight."""

    node: Node
    weight: Tensor
    channels: tuple[int, ...]
    """Output channels that can overflow; empty where none can, and where the weight is computed."""
    count: int
    """Codes of -128: in those channels, or in all where none can overflow; 0 where the weight is computed."""
    why_not: str
    """Why no channel can overflow; empty where one can."""

    @property
    def overflows(self) -> bool:
        return not self.why_not

    @property
    def where(self) -> str:
        return f"{self.node}, {'weight' if self.weight.is_constant else 'operand'} '{self.weight.name}'"


def pairs(graph: Graph) -> Iterator[Pairs]:
    """Every int8 weight of a lowered graph that holds -128, and every computed operand that may, in order.

    Inputs: int8, or float32, which LiteRT quantizes to int8 when the model runs (hybrid operators): then every code
    is possible. Products with int16 or uint8 are computed in other ways.
    """
    lows = lowest_codes(graph)
    for node in graph.nodes:
        place = _PLACES.get(node.op)
        if place is None:
            continue
        data, weight = graph.operand(node, place.data), graph.operand(node, place.weight)
        if data is None or data.dtype not in (np.int8, np.float32) or weight is None or weight.dtype != np.int8:
            continue
        if data.dtype == np.float32 and node.op == "DEPTHWISE_CONV_2D":
            continue  # hybrid: no kernel for it adds in 16 bits (run on Cortex-A53, A55, A72 and a Neoverse N2)
        found = _found(node, place, data, weight, lows)
        if found is not None:
            yield found


def _found(node: Node, place: _Place, data: Tensor, weight: Tensor, lows: dict[str, int]) -> Pairs | None:
    lowest = _lowest_input(node, place, data, lows)
    reason = "" if lowest == LOWEST else f"no code of its input is below {lowest}"
    if not weight.is_constant:
        if lows.get(weight.name, LOWEST) > LOWEST or _summed(node, data) < 2:
            return None
        return Pairs(node, weight, (), 0, reason)
    axis = _channel_axis(node, place, weight) % max(len(weight.shape), 1)
    others = tuple(i for i in range(len(weight.shape)) if i != axis)
    per_channel = np.count_nonzero(weight.values == LOWEST, axis=others)
    if not per_channel.any():
        return None
    several = per_channel >= 2
    if not several.any():
        reason = "there is one in an output channel at most"
    if reason:
        return Pairs(node, weight, (), int(per_channel.sum()), reason)
    return Pairs(node, weight, tuple(int(i) for i in np.flatnonzero(several)), int(per_channel[several].sum()), "")


def _lowest_input(node: Node, place: _Place, data: Tensor, lows: dict[str, int]) -> int:
    if data.dtype != np.int8 or data.qparams is None:
        return LOWEST
    lowest = lows.get(data.name, LOWEST)
    padded = place.pads and (node.op == "TRANSPOSE_CONV" or node.attrs.get("padding", "SAME") == "SAME")
    return min(lowest, max(LOWEST, int(data.q.zero_point.min()))) if padded else lowest


def _channel_axis(node: Node, place: _Place, weight: Tensor) -> int:
    return len(weight.shape) - 2 if node.op == "BATCH_MATMUL" and node.attrs.get("adj_y") else place.channels


def _summed(node: Node, data: Tensor) -> int:
    """How many products one output of a product of two computed tensors is the sum of."""
    if node.op == "BATCH_MATMUL":
        return data.shape[-2 if node.attrs.get("adj_x") else -1]
    return 2  # a convolution or dense layer with computed weights: not worth a closer look


def with_weights(choice: Weights, graph: Graph) -> Graph:
    """The lowered graph with its codes of -128 made safe, or kept, and a note for each weight that has some.

    Raises `BridgeError` at the first that could overflow where the choice is "refuse".
    """
    tensors = dict(graph.tensors)
    nodes = {id(node): node for node in graph.nodes}
    raised: dict[str, Node] = {}
    notes = list(graph.notes)
    for found in pairs(graph):
        if not found.overflows:
            if found.count:
                notes.append(Note("harmless", found.where, f"{_counted(found)}, kept as trained: {found.why_not}"))
        elif choice == "refuse":
            raise BridgeError(where=found.where, problem=f"{_counted(found)}; {_OVERFLOW}", remedy=_remedy(found))
        elif choice == "keep":
            notes.append(Note("weights", found.where, f"{_counted(found)}, kept as asked: {_WRONG}"))
        elif found.weight.is_constant:
            tensors[found.weight.name] = safe(tensors[found.weight.name], found)
            what = f"{_counted(found)}, made -127: {_OVERFLOW}. {_remedy(found)}"
            notes.append(Note("weights", found.where, what, found.node.outputs[0], _moved(found, graph)))
        else:
            at_least = raised.get(found.weight.name) or _maximum(found.weight, tensors)
            raised[found.weight.name] = at_least
            (above,) = at_least.outputs
            inputs = tuple(above if i == 1 else name for i, name in enumerate(found.node.inputs))
            nodes[id(found.node)] = replace(found.node, inputs=inputs)
            notes.append(
                Note("weights", found.where, f"{_counted(found)}, raised to -127: {_OVERFLOW}. {_remedy(found)}")
            )
    return replace(graph, nodes=tuple(_with_maximums(graph, nodes, raised)), tensors=tensors, notes=tuple(notes))


def _moved(found: Pairs, graph: Graph) -> float | None:
    """By how much an output moves at most, in real numbers: a step of the weight for each code, times the largest input."""
    x = graph.operand(found.node, _PLACES[found.node.op].data)
    if x is None or found.weight.qparams is None:
        return None
    axis = _channel_axis(found.node, _PLACES[found.node.op], found.weight) % len(found.weight.shape)
    others = tuple(i for i in range(len(found.weight.shape)) if i != axis)
    counts = np.count_nonzero(found.weight.values == LOWEST, axis=others)
    steps = np.broadcast_to(found.weight.qparams.scale, counts.shape)
    return float((counts * steps)[list(found.channels)].max()) * largest(x)


def safe(weight: Tensor, found: Pairs) -> Tensor:
    """The weight with -127 for each -128 in the channels that could overflow."""
    axis = _channel_axis(found.node, _PLACES[found.node.op], weight) % len(weight.shape)
    codes = weight.values.copy()
    channels = np.moveaxis(codes, axis, 0)
    for channel in found.channels:
        channels[channel] = np.maximum(channels[channel], np.int8(LOWEST + 1))
    return replace(weight, data=codes)


def _maximum(operand: Tensor, tensors: dict[str, Tensor]) -> Node:
    """MAXIMUM(operand, -127), its tensors added to `tensors`."""
    above = replace(operand, name=free_name(f"{operand.name}/above -128"), origin=None)
    tensors[above.name] = above
    bound = constant(free_name(f"{operand.name}/-127"), np.array(LOWEST + 1, np.int8), operand.qparams)
    tensors[bound.name] = bound
    return Node("MAXIMUM", above.name, (operand.name, bound.name), (above.name,))


def _with_maximums(graph: Graph, nodes: dict[int, Node], raised: dict[str, Node]) -> Iterator[Node]:
    """The nodes in order, each MAXIMUM before the first one that reads it."""
    waiting = {node.outputs[0]: node for node in raised.values()}
    for node in graph.nodes:
        for name in nodes[id(node)].inputs:
            if name in waiting:
                yield waiting.pop(name)
        yield nodes[id(node)]


_OVERFLOW = "where two of them meet two inputs of -128, kernels for ARM add them up in 16 bits, and are far off"
_WRONG = "LiteRT on ARM Cortex-A adds two of them in 16 bits and is then far off; x86, Cortex-M and the reference kernels are right"


def _counted(found: Pairs) -> str:
    if not found.weight.is_constant:
        return "codes of -128"
    size = found.weight.values.size
    if not found.channels:
        return f"{found.count} of {size} codes are -128"
    axis = _channel_axis(found.node, _PLACES[found.node.op], found.weight)
    return f"{found.count} codes of -128 in {_listed(found.channels)} of {found.weight.shape[axis]}"


_LISTED = 8


def _listed(channels: tuple[int, ...]) -> str:
    """`channels 0, 3, 5`; the first few of many."""
    numbers = ", ".join(map(str, channels[:_LISTED]))
    more = len(channels) - _LISTED
    return f"channel{'s' if len(channels) > 1 else ''} {numbers}{f' and {more} more' if more > 0 else ''}"


def _remedy(found: Pairs) -> str:
    what = "weights" if found.weight.is_constant else "this operand"
    return f"Train {what} in -127..127 (quant_min=-127, as qconfig 'tflite' does), or pass --weights keep."
