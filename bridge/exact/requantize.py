"""By which operator one trained scale becomes another: the only choice that trades exactness against custom."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from bridge.exact.graph import Graph, Node, QParams, Tensor, add_made, constant
from bridge.exact.limits import LIMITS, OUTPUT_SCALES
from bridge.exact.names import free_name

Requantize = Literal["ADD", "QUANTIZE"]
"""ADD: of a zero, exact up to ties on XNNPACK, on the reference kernels and on every NPU that can add.

QUANTIZE: the operator made for it. XNNPACK computes it with a multiplier of 8 fractional bits
(src/reference/unary-elementwise and qs8-vcvt), which moves 2 to 9 % of the codes by one.
"""


def requantized_by(operator: Requantize, graph: Graph) -> Graph:
    """A lowered graph in which every int8 to int8 QUANTIZE is done by `operator`."""
    if operator == "QUANTIZE":
        return graph
    tensors = dict(graph.tensors)
    nodes = []
    for node in graph.nodes:
        x = graph.tensors[node.inputs[0]]
        y = graph.output(node)
        if node.op == "QUANTIZE" and x.qparams is not None and y.qparams is not None and _addable(x.q, y.q):
            zero = _zero(node, x)
            add_made(tensors, zero)
            node = Node("ADD", node.name, (x.name, zero.name), node.outputs, {"fused_activation": "NONE"})
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


FITS_16_BITS = 127.0
"""Steps of the output for one of the input, times 255 codes, and a zero point: LiteRT's built-in ADD adds the zero point in
16 bits without saturation (optimized_integer_ops, AddElementwiseInt8), and beyond that gives the other end of the range."""


def _addable(x: QParams, y: QParams) -> bool:
    """Whether ADD goes that far (limits.py); QUANTIZE does, and exactly: there is nothing left to round."""
    near = float(x.scale) / float(y.scale) < min(LIMITS["ADD"].below, FITS_16_BITS)
    return near and float(y.scale) <= OUTPUT_SCALES["ADD"]


def _zero(node: Node, x: Tensor) -> Tensor:
    """Real zero at the scale of `x`: the code 0 with zero point 0."""
    qparams = replace(x.q, zero_point=np.zeros((), np.int32), qmin=-128, qmax=127)
    return constant(free_name(f"{node.name}/zero"), np.zeros((), np.int8), qparams)
