"""M67: SOFTMAX, LOGISTIC or TANH has another output scale than the one TFLite prescribes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Node, QParams, Tensor, per_tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, tflite_of
from compare.mismatches.parts.operator_edits import rescaled_after
from compare.running.trying import refusals
from compare.subjects.case import Case

PRESCRIBED: Mapping[str, tuple[float, int]] = {
    "SOFTMAX": (1 / 256, -128),
    "LOGISTIC": (1 / 256, -128),
    "TANH": (1 / 128, 0),
}
"""(scale, zero point) of int8 outputs: TFLite 8-bit quantization specification."""
TOLERATED = 1e-3
"""Relative, of SOFTMAX: lite/kernels/activations.cc says near. LOGISTIC must be equal there."""
_UNSIGNED = 128


def detect(case: Case) -> Iterator[Sighting]:
    """An 8-bit output of these operators must have the prescribed scale and zero point."""
    for node, y in _others(case):
        prescribed = _prescribed(node, y)
        refused = _refused_by_litert(node, y, prescribed)
        yield Sighting(
            where=f"{node.op}, output '{y.name}'",
            fact=f"{y.q}; prescribed: {prescribed}"
            + ("" if refused else " (LiteRT 2.1 computes this one right; other runtimes need not)"),
            remedy="Write the prescribed numbers and a QUANTIZE after it, as python -m bridge does, or train with "
            "FixedQParamsFakeQuantize.",
            sure=refused,
        )


def _others(case: Case) -> Iterator[tuple[Node, Tensor]]:
    """Operators whose 8-bit output is not as prescribed, with that output."""
    for node in () if case.file is None else case.file.graph.nodes:
        y = case.file.graph.output(node) if case.file is not None and node.op in PRESCRIBED else None
        if y is None or y.qparams is None or y.dtype.itemsize != 1:
            continue
        prescribed = _prescribed(node, y)
        near = node.op == "SOFTMAX" and bool(np.isclose(y.q.scale, prescribed.scale, rtol=TOLERATED, atol=0))
        same_zero = np.array_equal(y.q.zero_point, prescribed.zero_point)
        if not (same_zero and (near or np.array_equal(y.q.scale, prescribed.scale))):
            yield node, y


def _prescribed(node: Node, y: Tensor) -> QParams:
    scale, zero_point = PRESCRIBED[node.op]
    return per_tensor(scale, zero_point + _UNSIGNED * (y.dtype == np.uint8))


def _refused_by_litert(node: Node, y: Tensor, prescribed: QParams) -> bool:
    """SOFTMAX by every kernel, LOGISTIC with another scale by every kernel but XNNPACK's; each was tried."""
    return node.op == "SOFTMAX" or (node.op == "LOGISTIC" and not np.array_equal(y.q.scale, prescribed.scale))


def reproduce() -> Case:
    """A SOFTMAX whose output an observer has measured: 0 to 1 in 255 steps."""
    x, y = activation("x", (1, 8), 0.05), activation("y", (1, 8), 1 / 255, -128)
    content = tflite_of([Node("SOFTMAX", "softmax", ("x",), ("y",), {"beta": 1.0})], [x, y], ["x"], ["y"])
    return Case(tflite=content, log=refusals(content))


def repair(case: Case) -> Case:
    """The operator writes what is prescribed, a QUANTIZE after it brings it to the scale the file had."""
    assert case.tflite is not None  # noqa: S101 - the catalogue repairs what detect has seen
    content = rescaled_after(case.tflite, {y.name: _prescribed(node, y) for node, y in _others(case)})
    return replace(case, tflite=content, log=refusals(content))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(broken.log.splitlines()) - len(repaired.log.splitlines()))


MISMATCH = Mismatch(
    id="M67",
    name="another output scale than TFLite prescribes",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0 on x86-64",
    source="TFLite 8-bit quantization specification; lite/kernels/activations.cc; each operator run on both kernel sets",
    cause="TFLite fixes the output of SOFTMAX and LOGISTIC to scale 1/256, zero point -128, and of TANH to 1/128, 0. An observer "
    "that saw 0 to 1 gives 1/255. SOFTMAX then does not load: output->params.scale not near 1.f / 256. LOGISTIC loads with "
    "XNNPACK and is right, and does not load on the reference kernels. TANH, and LOGISTIC with another zero point only, "
    "are right on both; kernels of NPUs and microcontrollers may have the prescribed numbers built in.",
    way_out="Prescribed parameters at the output, then a QUANTIZE to the trained scale. PyTorch has FixedQParamsFakeQuantize "
    "for these operators.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("kernel sets that do not load the file", 2),
)
