"""M69: a concatenation joins tensors of different scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Node, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, tflite_of
from compare.mismatches.parts.operator_edits import rescaled_before
from compare.running.trying import refusals
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """Every int8 input of a CONCATENATION must have its output's scale and zero point; uint8 ones are rescaled."""
    for _, _, part, y in _unlike(case):
        yield Sighting(
            where=f"CONCATENATION to '{y.name}', input '{part.name}'",
            fact=f"{part.q}; the output has {y.q}",
            remedy="Put a QUANTIZE before that input (python -m bridge does); TinyNN: per_tensor=False, or "
            "disable_requantization_for_cat=True.",
        )


def _unlike(case: Case) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(position of the operator, place of the input, input, output) where input and output differ."""
    graph = None if case.file is None else case.file.graph
    for at, node in enumerate(() if graph is None else graph.nodes):
        if graph is None or node.op != "CONCATENATION":
            continue
        y = graph.output(node)
        for place, name in enumerate(node.inputs):
            part = graph.tensors[name]
            integer = part.dtype == y.dtype == np.int8 and part.qparams is not None and y.qparams is not None
            if integer and not part.q.same_grid(y.q):
                yield at, place, part, y


def reproduce() -> Case:
    """Two branches, each with the scale its observer found, joined at the scale of the first."""
    a, b, y = (
        activation(name, (1, size), scale) for name, size, scale in (("a", 4, 0.5), ("b", 4, 0.25), ("y", 8, 0.5))
    )
    content = tflite_of([Node("CONCATENATION", "cat", ("a", "b"), ("y",), {"axis": 1})], [a, b, y], ["a", "b"], ["y"])
    return Case(tflite=content, log=refusals(content))


def repair(case: Case) -> Case:
    """A QUANTIZE to the output's parameters before each input that has others."""
    assert case.tflite is not None  # noqa: S101 - the catalogue repairs what detect has seen
    content = rescaled_before(case.tflite, {(at, place): y.q for at, place, _, y in _unlike(case)})
    return replace(case, tflite=content, log=refusals(content))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(broken.log.splitlines()) - len(repaired.log.splitlines()))


MISMATCH = Mismatch(
    id="M69",
    name="concatenation of different scales",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0 on x86-64",
    source="TFLite 8-bit quantization specification; lite/kernels/concatenation.cc; TinyNeuralNetwork#15, #94; reproduced",
    cause="TFLite's int8 CONCATENATION copies codes. Branches that were observed one by one have scales of their own, and no "
    "kernel loads such a file: XNNPACK says failed to delegate CONCATENATION, the reference kernel "
    "t->params.scale != output->params.scale. TinyNN writes it with quantize_target_type='int8' and its defaults; "
    "TensorFlow's converter avoids it by overwriting a trained scale. uint8 files are not affected: that kernel rescales.",
    way_out="A QUANTIZE before each branch that differs; or one observer for all branches and the output.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("kernel sets that do not load the file", 2),
)
