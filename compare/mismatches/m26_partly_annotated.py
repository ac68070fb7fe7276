"""M26: only some layers were annotated for QAT, so the rest of the model stays float."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import (
    converted,
    dense_only_network,
    float_weighted,
    layers_of,
    source_operator,
    trained_network,
)
from compare.subjects.case import Case

REMEDY = (
    "Annotate the whole model (tfmot.quantization.keras.quantize_model) and fine-tune again; an annotated layer also "
    "needs a trained range at its input."
)


def detect(case: Case) -> Iterator[Sighting]:
    """In the Keras model: annotated beside unannotated layers with weights. In the file: float in, int8 out.

    Only the first look is sure. The second picture is a weighted float operator whose input never was integer and whose
    output is quantized at once; M24 reports the files where that goes to uint8, M27 those with an integer input.
    """
    if case.keras_model is not None:
        yield from _in_keras(case)
    elif case.file is not None:
        yield from _in_file(case)


def _in_keras(case: Case) -> Iterator[Sighting]:
    weighted = [layer for layer in layers_of(case.keras_model) if layer.weighted]
    annotated = [layer for layer in weighted if layer.annotated]
    for layer in weighted:
        if annotated and not layer.annotated:
            yield Sighting(
                where=f"layer '{layer.name}' ({layer.kind})",
                fact=f"is not quantization-aware; {len(annotated)} of {len(weighted)} layers with weights are",
                remedy=REMEDY,
            )


def _in_file(case: Case) -> Iterator[Sighting]:
    assert case.file is not None  # noqa: S101 - the caller has looked
    graph = case.file.graph
    readers = graph.consumers()
    for node in float_weighted(case.file):
        quantized = [reader for reader in readers[node.outputs[0]] if reader.op == "QUANTIZE"]
        before = source_operator(case.file, node.inputs[0])
        if not quantized or (before is not None and before.op == "DEQUANTIZE"):
            continue
        after = graph.tensors[quantized[0].outputs[0]]
        if after.dtype == np.int8:
            yield Sighting(
                where=f"{node.op}, tensor '{node.outputs[0]}'",
                fact=f"computes in float32 and is quantized right after, to {after.qparams}; its input has no scale "
                "(or the operator was left in float on purpose)",
                remedy=REMEDY,
                sure=False,
            )


def reproduce() -> Case:
    """Conv2D, Flatten, Dense with only Dense annotated, converted with Optimize.DEFAULT and int8 input and output."""
    return Case(keras_model=dense_only_network(), tflite=converted(dense_only_network()))


def repair(case: Case) -> Case:  # noqa: ARG001 - it takes another training
    """Every layer annotated."""
    return Case(keras_model=trained_network(), tflite=converted(trained_network()))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(list(float_weighted(broken.file))) - len(list(float_weighted(repaired.file))))


MISMATCH = Mismatch(
    id="M26",
    name="only some layers are quantization-aware",
    side="Keras/TF-MOT",
    severity="risk",
    versions="TF-MOT 0.8.1, TensorFlow 2.19.0",
    source="google-coral/edgetpu#238 (a QAT file found to hold float operators); reproduced",
    cause="quantize_annotate_layer on Dense only: nothing before it has a trained range, so the input of Dense has none "
    "either and Dense stays float too. Its output is quantized only to be dequantized. "
    "The converter also ignores the request for an int8 input then, without a word.",
    way_out="Annotate the whole model. Calibration data would fill the gaps, with scales that training never saw (M25).",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("weighted operators in float", 2),
    automatic=False,
)
