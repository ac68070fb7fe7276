"""What an exporter had to change before the file was written, left in the file for the converter to say.

One entry of `metadata_props`, key `ONE_SIGNED`: a JSON object, parameter name -> [channels made symmetric, channels,
by how much the weights of one output channel moved at most, as a sum of magnitudes]. torch_side/export.py writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import onnx

from bridge.exact.graph import Graph, Node, Note

ONE_SIGNED = "bridge.one_signed_weights"

_LARGEST = 1e30
"""Beyond any number of channels and any weight."""

_HANDS_ON = {"QuantizeLinear", "DequantizeLinear", "Cast", "Clip", "Identity", "Transpose", "Reshape"}


def remarks(model: onnx.ModelProto, graph: Graph) -> tuple[Note, ...]:
    """A note for each layer whose weights the export made symmetric; an entry in another form says nothing.

    `off` is of the weights yet: complete/price.py knows how large the layer's input can be.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == ONE_SIGNED), "")
    if not text:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(_notes(found, graph)) if isinstance(found, dict) else ()


def _notes(found: dict[str, object], graph: Graph) -> Iterator[Note]:
    readers = graph.consumers()
    for parameter, entry in found.items():
        if not isinstance(entry, list) or len(entry) != 3 or parameter not in graph.tensors:
            continue
        if not all(type(each) in (int, float) and 0 <= each < _LARGEST for each in entry):
            continue
        changed, channels, moved = entry
        for layer in _layers(parameter, readers):
            yield made_symmetric(layer, changed, channels, moved)


def made_symmetric(layer: Node, changed: float, channels: float, moved: float) -> Note:
    """Of a layer whose weights trained with a zero point; `moved`: by how much those of one output channel moved in all."""
    what = f"{changed:.0f} of {channels:.0f} channels made symmetric, at half the resolution they trained with"
    return Note("symmetric", str(layer), what, layer.name, float(moved))


def _layers(parameter: str, readers: dict[str, list[Node]]) -> list[Node]:
    """The operators that a parameter arrives at, through what quantizes and rearranges it."""
    waiting, seen, found = [parameter], set[str](), list[Node]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in readers.get(name, ()):
            if node.op in _HANDS_ON:
                waiting += node.outputs
            else:
                found.append(node)
    return found
