"""M04: weight codes of -128, which TFLite's specification does not have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Graph, Node, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, codes, rewritten, share_that_differs, tflite_of
from compare.subjects.case import Case

WEIGHTED = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
"""Where the weight stands among the inputs."""


def weights(graph: Graph) -> Iterator[tuple[Node, Tensor]]:
    """Every constant int8 weight of a .tflite, with its operator."""
    for node in graph.nodes:
        place = WEIGHTED.get(node.op)
        if place is not None and len(node.inputs) > place:
            weight = graph.tensors[node.inputs[place]]
            if weight.is_constant and weight.dtype == np.int8:
                yield node, weight


def detect(case: Case) -> Iterator[Sighting]:
    """int8 weights must lie in -127..127 (TFLite 8-bit quantization specification)."""
    if case.file is None:
        return
    for node, weight in weights(case.file.graph):
        count = int(np.count_nonzero(weight.values == -128))
        if count:
            yield Sighting(
                where=f"{node.op}, weight '{weight.name}'",
                fact=f"{count} of {weight.values.size} codes are -128",
                remedy="Train with qconfig 'tflite' (weights in -127..127). Kernels take one such code in an output channel as it is; "
                "with two, see M81.",
            )


def reproduce() -> Case:
    """A dense layer with one code of -128 in eight, as PyTorch's symmetric observers leave them."""
    values = np.random.default_rng(0).integers(-127, 128, (4, 8)).astype(np.int8)
    values[:, 0] = -128
    x, y = activation("x", (1, 8), 0.05), activation("y", (1, 4), 0.15)
    bias = codes("b", np.zeros(4), 0.05 * 0.01, dtype=np.int32)
    dense = Node("FULLY_CONNECTED", "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([dense], [x, codes("w", values, 0.01), bias, y], ["x"], ["y"]))


def repair(case: Case) -> Case:
    """Make each -128 a -127: within the specification, and no longer the trained code."""
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    clamped = {
        weight.name: replace(weight, data=np.maximum(weight.values, np.int8(-127)))
        for _, weight in weights(case.file.graph)
    }
    return rewritten(case, clamped)


MISMATCH = Mismatch(
    id="M04",
    name="weight codes of -128",
    side="PyTorch",
    severity="risk",
    versions="torch 2.13 (every symmetric weight observer)",
    source="TFLite 8-bit quantization specification; kernels that add two products in 16 bits rely on it (M81)",
    cause="PyTorch's symmetric weights use -128..127 and the scale absmax / 127.5, TFLite's -127..127 and absmax / 127. "
    "LiteRT takes one such code in an output channel on every processor it was run on; two of them are added wrongly on "
    "ARM (M81). Other tools clamp the code, and change the model.",
    way_out="Train with quant_min=-127 for weights (qconfig 'tflite').",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("outputs that a clamp to -127 changes (share)", 0.15),
)
