"""M37: int8 weights with float activations: what NPUs leave to the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bridge.exact.graph import Node, Tensor, constant
from compare.mismatches.m04_weights_at_minus_128 import WEIGHTED
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, codes, tflite_of
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """An operator with int8 weights must have int8 activations."""
    if case.file is None:
        return
    for name, weight in _hybrid(case):
        yield Sighting(
            where=name,
            fact=f"weight '{weight}' is int8, its activations are float32",
            remedy="Convert with full-integer quantization: every activation needs a trained or calibrated range.",
        )


def _hybrid(case: Case) -> Iterator[tuple[str, str]]:
    assert case.file is not None  # noqa: S101 - the callers have looked
    tensors = case.file.graph.tensors
    for node in case.file.graph.nodes:
        place = WEIGHTED.get(node.op)
        if place is None or len(node.inputs) <= place:
            continue
        weight, output = tensors[node.inputs[place]], tensors[node.outputs[0]]
        if weight.dtype == np.int8 and output.dtype == np.float32:
            yield f"{node.op} '{output.name}'", weight.name


_WEIGHTS = np.random.default_rng(0).integers(-120, 121, (4, 8)).astype(np.int8)


def reproduce() -> Case:
    """A dense layer as dynamic-range quantization writes it."""
    x = Tensor("x", (1, 8), np.dtype(np.float32))
    y = Tensor("y", (1, 4), np.dtype(np.float32))
    bias = constant("b", np.zeros(4, np.float32))
    dense = Node("FULLY_CONNECTED", "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([dense], [x, codes("w", _WEIGHTS, 0.01), bias, y], ["x"], ["y"]))


def repair(case: Case) -> Case:  # noqa: ARG001 - ranges cannot be made up
    """The same layer with trained ranges at its input and output."""
    x, y = activation("x", (1, 8), 0.05), activation("y", (1, 4), 0.02)
    bias = codes("b", np.zeros(4), 0.05 * 0.01, dtype=np.int32)
    dense = Node("FULLY_CONNECTED", "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([dense], [x, codes("w", _WEIGHTS, 0.01), bias, y], ["x"], ["y"]))


def measure(broken: Case, repaired: Case) -> float:
    """Operators that mix int8 weights with float activations."""
    return float(len(list(_hybrid(broken))) - len(list(_hybrid(repaired))))


MISMATCH = Mismatch(
    id="M37",
    name="int8 weights with float activations (hybrid)",
    side="NPU",
    severity="risk",
    versions="TensorFlow 2.19 (Optimize.DEFAULT without data), every NPU looked at",
    source="tflite-vx-delegate op_map.cc; tflite-micro#1189; Vela: tensors must have quantization parameters",
    cause="Dynamic-range quantization stores weights as int8 and computes in float. NPUs and TFLite Micro have no such "
    "kernels: the operator stays on the CPU, or the model does not load.",
    way_out="Quantize activations too: QAT, or a representative data set.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("hybrid operators", 1.0),
    automatic=False,
)
