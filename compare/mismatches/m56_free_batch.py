"""M56: a free batch dimension becomes operators that compute shapes when the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from bridge.exact.graph import Graph, Node
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import images, network
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """No SHAPE may lead to the shape input of a RESHAPE."""
    if case.file is None:
        return
    for reshape, computing in _computed(case.file.graph):
        yield Sighting(
            where=f"RESHAPE '{reshape.outputs[0]}'",
            fact=f"its shape is computed by {', '.join(node.op for node in computing)} at every inference; the input "
            f"'{case.file.graph.inputs[0]}' has a free batch",
            remedy="Convert a concrete function with a fixed shape, or build the model with batch_size=1.",
        )


_SHAPING = ("SHAPE", "STRIDED_SLICE", "PACK", "GATHER", "CONCATENATION", "REDUCE_PROD", "MUL", "CAST")


def _computed(graph: Graph) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """(RESHAPE, the operators that compute its shape, the SHAPE first) where the shape comes from a SHAPE."""
    producers = graph.producers()
    for node in graph.nodes:
        if node.op != "RESHAPE" or len(node.inputs) < 2:
            continue
        found: dict[str, Node] = {}
        waiting = [node.inputs[1]]
        while waiting:
            source = producers.get(waiting.pop())
            if source is not None and source.op in _SHAPING and source.name not in found:
                found[source.name] = source
                waiting += [name for name in source.inputs if name]
        if any(each.op == "SHAPE" for each in found.values()):
            yield node, tuple(each for each in graph.nodes if each.name in found)


@cache
def _converted(entry: str) -> bytes:
    from bridge import via_tflite_converter
    from keras_side.legacy import import_keras

    layers = import_keras().layers
    model = network(layers.Reshape((8, 8, 1)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2), shape=(8, 8))
    return via_tflite_converter.convert(model, "integer-only", entry, representative=images()[..., 0])


def reproduce() -> Case:
    """A network that begins with a Reshape, by from_keras_model, whose batch is None."""
    return Case(tflite=_converted("keras"))


def repair(case: Case) -> Case:
    """The same network as a concrete function of shape [1, ...]."""
    return replace(case, tflite=_converted("concrete"))


def measure(broken: Case, repaired: Case) -> float:
    """Operators that compute shapes."""

    def shaping(case: Case) -> int:
        assert case.file is not None  # noqa: S101 - a measure knows its own reproduction
        return len({node.name for _, computing in _computed(case.file.graph) for node in computing})

    return float(shaping(broken) - shaping(repaired))


MISMATCH = Mismatch(
    id="M56",
    name="free batch dimension",
    side="TensorFlow converter",
    severity="risk",
    versions="TensorFlow 2.19.0, from_keras_model and from_saved_model",
    source="LiteRT documentation, TensorFlow operator conversion; tflite-vx-delegate op_map.cc: RESHAPE is taken only with a "
    "constant shape; reproduced",
    cause="Keras models leave the batch open. The converter keeps it open and writes SHAPE, STRIDED_SLICE and PACK, which "
    "compute the shape of every RESHAPE at run time. Delegates for NPUs take constant shapes only, and TensorFlow Lite for "
    "Microcontrollers plans its memory ahead.",
    way_out="Convert from a concrete function with a fixed input shape (bridge.via_tflite_converter, entry 'concrete').",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("operators that compute shapes", 3.0),
    automatic=False,
)
