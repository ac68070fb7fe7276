"""What LiteRT writes over while it is still to be read, kept apart.

LiteRT gives a RESHAPE's result the memory of its input, and lets ADD, SUB, MUL and SOFTMAX write theirs over an operand
of the same size where nothing else reads that operand. It asks so of the operand and of the tensor whose memory it
first was, and forgets the tensors between (measured with LiteRT 2.1.0, built-in and reference kernels, each operator of
schema.py: tests/bridge/exact/test_shared_memory.py; XNNPACK has memory of its own):

    a -> ADD -> h -> RESHAPE -> r -> ADD -> m, and h is read after that: it holds m by then

    RESHAPE of a RESHAPE   becomes   RESHAPE of the first one's input, which is no tensor between
    what is left           becomes   r -> MAXIMUM with the lowest number -> ADD: the same codes in memory of their own
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.exact.graph import Graph, Node, Tensor, add_made, constant, without_unused
from bridge.exact.names import free_name
from bridge.exact.schema import OPERATORS

_OVERWRITES = {op for op, row in OPERATORS.items() if row.kernel.writes_over}


def kept_apart(graph: Graph) -> Graph:
    """A lowered graph in which no tensor is written over before its last reader; the same codes everywhere."""
    graph = _reshapes_from_their_root(graph)
    readers = _last_readers(graph)
    consumers = graph.consumers()
    memory_of: dict[str, str] = {}  # a tensor -> the one whose memory it may have taken
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for place, node in enumerate(graph.nodes):
        if node.op in _OVERWRITES:
            for name in _operands_of_its_size(node, graph):
                if any(readers[other] > place for other in _sharing(name, memory_of)):
                    copy, made = _copied(name, node, graph)
                    add_made(tensors, *made)
                    nodes.append(copy)
                    memory_of.setdefault(node.outputs[0], copy.outputs[0])
                    node = replace(
                        node, inputs=tuple(copy.outputs[0] if each == name else each for each in node.inputs)
                    )
                elif len(consumers[name]) == 1:
                    memory_of.setdefault(node.outputs[0], name)
        elif node.op == "RESHAPE":
            memory_of[node.outputs[0]] = node.inputs[0]
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _reshapes_from_their_root(graph: Graph) -> Graph:
    root: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "RESHAPE":
            first = root.get(node.inputs[0], node.inputs[0])
            root[node.outputs[0]] = first
            node = replace(node, inputs=(first, *node.inputs[1:]))
        nodes.append(node)
    return without_unused(replace(graph, nodes=tuple(nodes)))


def _last_readers(graph: Graph) -> dict[str, int]:
    """Where in the order of operators a tensor is read last; outputs of the model after all of them."""
    last = dict.fromkeys(graph.tensors, -1)
    for place, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.inputs, place))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    return last


def _operands_of_its_size(node: Node, graph: Graph) -> list[str]:
    y = graph.output(node)
    size = y.dtype.itemsize * int(np.prod(y.shape))
    operands = {name: graph.tensors[name] for name in node.inputs if name}
    return [
        name for name, x in operands.items() if not x.is_constant and x.dtype.itemsize * int(np.prod(x.shape)) == size
    ]


def _sharing(name: str, memory_of: dict[str, str]) -> set[str]:
    """What may lie in the memory of `name` without LiteRT asking: the tensors between it and the first, and their copies."""
    between = set(_chain(name, memory_of)[1:-1])
    if not between:
        return set()
    return between | {other for other in memory_of if other != name and between.intersection(_chain(other, memory_of))}


def _chain(name: str, memory_of: dict[str, str]) -> list[str]:
    """The tensor, the one whose memory it took, and so on to the first."""
    found = [name]
    while found[-1] in memory_of:
        found.append(memory_of[found[-1]])
    return found


def _copied(name: str, node: Node, graph: Graph) -> tuple[Node, tuple[Tensor, ...]]:
    x = graph.tensors[name]
    copy = replace(x, name=free_name(f"{name}/kept"))
    lowest = np.array(-128 if x.dtype == np.int8 else np.finfo(np.float32).min, x.dtype)
    whole = np.full(x.shape, lowest) if len(x.shape) > 4 else lowest  # of equal shapes it takes any number of axes
    bound = constant(free_name(f"{node.name}/lowest"), whole, x.qparams)
    return Node("MAXIMUM", free_name(f"{node.name}/keep"), (name, bound.name), (copy.name,)), (copy, bound)
