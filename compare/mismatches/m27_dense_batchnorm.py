"""M27: BatchNormalization behind a layer with one weight scale leaves that layer in float."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import (
    converted,
    float_weighted,
    network,
    source_operator,
    with_measured_ranges,
)
from compare.subjects.case import Case

OFF_GRID = 2e-3
"""How far from an integer, in steps, a weight may lie that was rounded to the grid and then multiplied in float32."""


def detect(case: Case) -> Iterator[Sighting]:
    """A weighted float operator between DEQUANTIZE and QUANTIZE whose weights lie on an int8 grid in every channel.

    The grid is what fake-quantization left; that its step differs by channel is what folding the normalisation did.
    """
    if case.file is None:
        return
    graph = case.file.graph
    readers = graph.consumers()
    for node in float_weighted(case.file):
        before = source_operator(case.file, node.inputs[0])
        weights = graph.tensors[node.inputs[1]]
        quantized = any(reader.op == "QUANTIZE" for reader in readers[node.outputs[0]])
        if before is None or before.op != "DEQUANTIZE" or not quantized or weights.data is None:
            continue
        steps = _steps(weights.data)
        if steps is not None and steps.max() > 1.001 * steps.min():
            yield Sighting(
                where=f"{node.op}, tensor '{node.outputs[0]}'",
                fact=f"float32 between DEQUANTIZE and QUANTIZE; its weights lie on int8 grids of {steps.min():.4g} to "
                f"{steps.max():.4g}, a scale for each channel where training had one for all",
                remedy="Fold the BatchNormalization into this layer before quantize_model, or leave it out.",
            )


def _steps(weights: np.ndarray) -> np.ndarray | None:
    """The grid step of each of the first eight output channels (axis 0 of TFLite's weights); None if one has no grid.

    The largest code of a channel is unknown, 1..127: every one is tried, from the coarsest grid on.
    """
    found = []
    for channel in weights.reshape(len(weights), -1)[:8, :256].astype(np.float64):
        largest = np.abs(channel).max()
        if largest == 0 or np.count_nonzero(channel) < 8:
            return None
        candidates = largest / np.arange(1, 128)
        multiples = channel / candidates[:, None]
        fits = np.abs(multiples - np.rint(multiples)).max(1) < OFF_GRID
        if not fits.any():
            return None
        found.append(candidates[int(fits.argmax())])
    return np.array(found)


@functools.cache
def _samples() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(64, 16)).astype(np.float32)


def _float_network(folded: bool) -> Any:
    """Dense, BatchNormalization, ReLU, Dense; or the same function with the normalisation folded into the Dense."""
    from keras_side.legacy import import_keras

    layers = import_keras().layers
    random = np.random.default_rng(4)
    gamma, beta, mean, variance = (random.uniform(0.5, 2.0, 16).astype(np.float32) for _ in range(4))
    kernel, last = (0.3 * random.normal(size=shape).astype(np.float32) for shape in ((16, 16), (16, 5)))
    bias, last_bias = np.zeros(16, np.float32), np.zeros(5, np.float32)
    if folded:
        gain = gamma / np.sqrt(variance + np.float32(1e-3))  # 1e-3 is Keras' epsilon
        model = network(layers.Dense(16), layers.ReLU(), layers.Dense(5), shape=(16,))
        model.set_weights([kernel * gain, (bias - mean) * gain + beta, last, last_bias])
    else:
        model = network(layers.Dense(16), layers.BatchNormalization(), layers.ReLU(), layers.Dense(5), shape=(16,))
        model.set_weights([kernel, bias, gamma, beta, mean, variance, last, last_bias])
    return model


@functools.cache
def _converted(folded: bool) -> bytes:
    from keras_side import qat

    model = _float_network(folded)
    statistics = [weights.copy() for weights in model.get_weights()]
    aware = with_measured_ranges(qat.quantize_whole(model), model, _samples())
    if not folded:  # the training step that sets the weight ranges also moved these
        for name, value in zip(("moving_mean", "moving_variance"), statistics[4:6], strict=True):
            next(each for each in aware.weights if name in each.name).assign(value)
    return converted(aware)


def reproduce() -> Case:
    """A wholly annotated Dense-BatchNormalization-ReLU-Dense model, converted to int8 at both ends."""
    return Case(tflite=_converted(folded=False))


def repair(case: Case) -> Case:  # noqa: ARG001 - it takes another training
    """The normalisation folded into the Dense layer before quantize_model."""
    return Case(tflite=_converted(folded=True))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(list(float_weighted(broken.file))) - len(list(float_weighted(repaired.file))))


MISMATCH = Mismatch(
    id="M27",
    name="BatchNormalization behind Dense leaves it in float",
    side="Keras/TF-MOT",
    severity="risk",
    versions="TensorFlow 2.19.0, TF-MOT 0.8.1",
    source="model-optimization#1131, #438, #552, #363, tensorflow#43882; reproduced",
    cause="The converter folds BatchNormalization into the weights after their fake-quant. A convolution has a scale for each "
    "channel, which takes the factor. Dense has one scale for all in TF-MOT, the factor differs by channel, the "
    "fake-quant no longer fits, and the layer computes in float, int8 input and output of the model notwithstanding.",
    way_out="Fold BatchNormalization into the layer before quantize_model, or drop it behind Dense.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("weighted operators in float", 1),
    automatic=False,
)
