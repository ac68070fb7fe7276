"""Nodes in an order in which every tensor is made before it is read, as ONNX demands and not every tool writes them.

AMD Quark 0.13 (XINT8) appends what it makes at the end; ONNX Runtime sorts such a file as it loads it.
"""

from __future__ import annotations

import heapq

import onnx


def in_order(model: onnx.ModelProto) -> None:
    """Sort the nodes, in place, where one reads what a later one makes; the others keep their order.

    What reads itself, or something that nothing makes, stays where it is: the guard refuses it by name.
    """
    nodes = list(model.graph.node)
    maker = {name: place for place, node in reversed(list(enumerate(nodes))) for name in node.output if name}
    needs = [{maker[name] for name in node.input if name in maker} for node in nodes]
    if all(place < reader for reader, places in enumerate(needs) for place in places):
        return
    readers: list[list[int]] = [[] for _ in nodes]
    for reader, places in enumerate(needs):
        for place in places:
            readers[place].append(reader)
    waiting = [len(places) for places in needs]
    ready = [place for place, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) == len(nodes):
        del model.graph.node[:]
        model.graph.node.extend(nodes[place] for place in order)
