"""M62: PReLU whose slope was fake-quantized is written as a float PRELU."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import converted, network, source_operator, with_measured_ranges
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """A float PRELU with a constant slope between DEQUANTIZE and QUANTIZE."""
    for node in _float_prelus(case):
        yield Sighting(
            where=f"PRELU, tensor '{node.outputs[0]}'",
            fact="computes in float32 between 'DEQUANTIZE' and 'QUANTIZE'",
            remedy="Leave the slope out of get_weights_and_quantizers; the converter quantizes it and writes an int8 PRELU.",
        )


def _float_prelus(case: Case) -> Iterator[Any]:
    if case.file is None:
        return
    graph = case.file.graph
    readers = graph.consumers()
    for node in graph.nodes:
        if node.op != "PRELU" or graph.tensors[node.outputs[0]].dtype != np.float32:
            continue
        before = source_operator(case.file, node.inputs[0])
        quantized = any(reader.op == "QUANTIZE" for reader in readers[node.outputs[0]])
        if before is not None and before.op == "DEQUANTIZE" and quantized and graph.tensors[node.inputs[1]].is_constant:
            yield node


@functools.cache
def _converted(slope_quantized: bool) -> bytes:
    """Conv2D, PReLU, Flatten, Dense, wholly quantization-aware; the config of PReLU quantizes its slope, or does not."""
    from keras_side import qat
    from keras_side.custom_layer import channel_scale_config
    from keras_side.legacy import import_keras, import_tfmot

    layers, quantizers = import_keras().layers, import_tfmot().quantization.keras.quantizers
    slope = quantizers.LastValueQuantizer(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)

    class PReluConfig(channel_scale_config()):  # type: ignore[misc]  # made on first use
        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return [(layer.alpha, slope)] if slope_quantized else []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            if slope_quantized:
                (layer.alpha,) = quantize_weights

    model = network(
        layers.Conv2D(3, 3, name="conv"),
        layers.PReLU(shared_axes=[1, 2], name="prelu"),
        layers.Flatten(name="flatten"),
        layers.Dense(3, name="dense"),
    )
    aware = qat.quantize_with_configs(model, {layers.PReLU: PReluConfig()})
    return converted(with_measured_ranges(aware, model))


def reproduce() -> Case:
    """A QuantizeConfig that quantizes slope and output, as TF-MOT's guide shows it for weights."""
    return Case(tflite=_converted(slope_quantized=True))


def repair(case: Case) -> Case:  # noqa: ARG001 - it takes another training
    """A QuantizeConfig that quantizes the output only."""
    return Case(tflite=_converted(slope_quantized=False))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(list(_float_prelus(broken))) - len(list(_float_prelus(repaired))))


MISMATCH = Mismatch(
    id="M62",
    name="PReLU with a fake-quantized slope stays float",
    side="TensorFlow converter",
    severity="risk",
    versions="TensorFlow 2.19.0, TF-MOT 0.8.1",
    source="reproduced; the refusal of PReLU without a config is M29",
    cause="TF-MOT accepts PReLU with a QuantizeConfig of its own. When the config fake-quantizes the slope, as it would any "
    "weight, the converter does not recognise the layer as integer and writes a float PRELU between DEQUANTIZE and "
    "QUANTIZE, in a file with int8 input and output.",
    way_out="Quantize the output only: get_weights_and_quantizers returns []. The converter then quantizes the slope itself and "
    "the PRELU is int8.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("operators in float", 1),
    automatic=False,
)
