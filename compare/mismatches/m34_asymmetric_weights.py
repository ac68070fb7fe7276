"""M34: a weight zero point other than 0, which some kernels apply and others ignore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Node, QParams
from compare.mismatches.m04_weights_at_minus_128 import weights
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, codes, rewritten, run_codes, tflite_of
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """int8 weights must have zero point 0 (TFLite 8-bit quantization specification)."""
    if case.file is None:
        return
    for node, weight in weights(case.file.graph):
        if weight.qparams is not None and weight.qparams.zero_point.any():
            zero_point = weight.qparams.zero_point[weight.qparams.zero_point != 0].flat[0]
            yield Sighting(
                where=f"{node.op}, weight '{weight.name}'",
                fact=f"zero point {zero_point}",
                remedy="Train with a symmetric weight observer (qconfig 'tflite'); the codes cannot be shifted exactly.",
            )


def reproduce() -> Case:
    """A dense layer whose weights have zero point 5: the reference kernel subtracts it, XNNPACK does not."""
    values = np.random.default_rng(0).integers(-100, 101, (4, 8)).astype(np.int8)
    x, y = activation("x", (1, 8), 0.05), activation("y", (1, 4), 0.15)
    bias = codes("b", np.zeros(4), 0.05 * 0.01, dtype=np.int32)
    dense = Node("FULLY_CONNECTED", "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([dense], [x, codes("w", values, 0.01, 5), bias, y], ["x"], ["y"]))


def repair(case: Case) -> Case:
    """Take the zero point off the codes; what leaves -127..127 saturates."""
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    symmetric = {}
    for _, weight in weights(case.file.graph):
        q = weight.q
        shape = [1] * len(weight.shape)
        if q.axis is not None:
            shape[q.axis] = -1
        moved = weight.values.astype(np.int16) - q.zero_point.reshape(shape)
        clipped = np.clip(moved, -127, 127).astype(np.int8)
        symmetric[weight.name] = replace(
            weight, data=clipped, qparams=QParams(q.scale, np.zeros_like(q.zero_point), q.axis)
        )
    return rewritten(case, symmetric)


def measure(broken: Case, repaired: Case) -> float:
    """Share of outputs in which XNNPACK and the reference kernels disagree, more than after the repair."""

    def disagreeing(case: Case) -> float:
        assert case.tflite is not None  # noqa: S101 - a measure knows its own reproduction
        apart = run_codes(case.tflite, "xnnpack").astype(int) - run_codes(case.tflite, "reference")
        return float((np.abs(apart) > 1).mean())

    return disagreeing(broken) - disagreeing(repaired)


MISMATCH = Mismatch(
    id="M34",
    name="weights with a zero point",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0",
    source="TFLite 8-bit quantization specification; tflite-micro#2267, PR#2469",
    cause="int8 kernels assume symmetric weights. Convolutions refuse a zero point; XNNPACK's dense kernel ignores it, "
    "the reference kernel applies it: one file, two answers.",
    way_out="Quantize weights symmetrically in training.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("outputs in which two kernel sets disagree by more than 1 LSB (share)", 0.3),
)
