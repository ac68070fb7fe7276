"""Codes of 32 bits are those of a bias; anywhere else they are the real numbers that they stand for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact import operators
from bridge.exact.graph import Graph, Node, Tensor, add_made, constant
from bridge.exact.names import free_name

_BIAS = 2
"""Which operand of an operator with weights its kernel adds in int32."""


def only_biases(graph: Graph) -> Graph:
    """The same graph, in which int32 codes are read as biases only.

    Every other operand is of 8 bits: LiteRT prepares no ADD of int8 and int32, and PRELU and CONV_2D take the bytes of
    the one for codes of the other, without a word. Raises `BridgeError` for an output of the model that is such codes.
    """
    tensors = dict(graph.tensors)
    for name in graph.outputs:
        if _wide(tensors[name]):
            raise BridgeError(
                where=f"output '{name}'",
                problem="is a constant of int32 codes; outputs have 8 bits",
                remedy="Remove this output: it is the same for every input.",
            )
    nodes = tuple(_with_real_operands(node, tensors) for node in graph.nodes)
    return replace(graph, nodes=nodes, tensors=tensors)


def _wide(tensor: Tensor) -> bool:
    return tensor.is_constant and tensor.qparams is not None and tensor.dtype == np.int32


def _with_real_operands(node: Node, tensors: dict[str, Tensor]) -> Node:
    inputs = list(node.inputs)
    weighted = operators.of(node).weights is not None
    for place, name in enumerate(inputs):
        if name and _wide(tensors[name]) and not (weighted and place == _BIAS):
            inputs[place] = free_name(f"{name}/real/{node.name}")
            add_made(tensors, constant(inputs[place], tensors[name].real.astype(np.float32)))
    return replace(node, inputs=tuple(inputs))
