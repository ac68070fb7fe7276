"""M24: a QAT model was converted without Optimize.DEFAULT and became a float model full of QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import converted, float_weighted, trained_network
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """Fake-quants that were not fused stay behind as QUANTIZE to uint8 and DEQUANTIZE around float operators.

    uint8 is what tells them from Q/DQ pairs of other tools: TensorFlow 2 never quantizes an operator to it.
    """
    if case.file is None:
        return
    graph = case.file.graph
    producers, readers = graph.producers(), graph.consumers()
    pairs = {
        node.outputs[0]
        for node in graph.nodes
        if node.op == "QUANTIZE"
        and graph.tensors[node.outputs[0]].dtype == np.uint8
        and graph.tensors[node.inputs[0]].dtype == np.float32
        and {reader.op for reader in readers[node.outputs[0]]} == {"DEQUANTIZE"}
    }
    around = [
        node
        for node in float_weighted(case.file)
        if any(producers[name].inputs[0] in pairs for name in node.inputs[:2] if name in producers)
    ]
    if around:
        yield Sighting(
            where=f"{around[0].op}, tensor '{around[0].outputs[0]}'",
            fact=f"{len(around)} weighted operators compute in float32 between {len(pairs)} QUANTIZE/DEQUANTIZE pairs to uint8",
            remedy="Set converter.optimizations = [tf.lite.Optimize.DEFAULT] and convert the same QAT model again.",
        )


def reproduce() -> Case:
    """A wholly quantization-aware Conv2D-Dense model, converted with the converter's default settings."""
    return Case(tflite=converted(trained_network(), optimize=False, integer_io=False))


def repair(case: Case) -> Case:  # noqa: ARG001 - the QAT model is not in the .tflite
    """The same model with Optimize.DEFAULT; int8 input and output then need no calibration data."""
    return Case(tflite=converted(trained_network()))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(list(float_weighted(broken.file))) - len(list(float_weighted(repaired.file))))


MISMATCH = Mismatch(
    id="M24",
    name="QAT model converted without Optimize.DEFAULT",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0, TF-MOT 0.8.1",
    source="tensorflow#42082 (the recipe, TensorFlow 2.4 and later); reproduced",
    cause="The converter fuses fake-quants into int8 operators only when optimizations=[DEFAULT] is set. "
    "Without it the file converts, runs and has the right accuracy, but every operator computes in float32, "
    "with a QUANTIZE to uint8 and a DEQUANTIZE at each fake-quant. Kernels of weights go through them on every call.",
    way_out="converter.optimizations = [tf.lite.Optimize.DEFAULT]. For int8 input and output set inference_input_type and "
    "inference_output_type as well; no representative dataset is needed.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("weighted operators in float", 2),
    automatic=False,
)
