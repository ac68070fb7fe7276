"""M29: what TF-MOT and the converter refuse with a message that does not say what to do."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import converted, converted_function, float_network, refusal, trained_network
from compare.subjects.case import Case

TRAINING = "FakeQuantWithMinMaxVarsPerChannel' op is neither a custom op nor a flex op"
AXES = "'tfl.transpose' op has mismatched quantized axes of input and output"
UNKNOWN = "Unknown layer: 'Quantize"
NESTED = "Quantizing a keras Model inside another keras Model is not supported."
UNSUPPORTED = "is not supported. You can quantize this layer by passing a `tfmot.quantization.keras.QuantizeConfig`"

REMEDIES: Mapping[str, tuple[str, str]] = {
    TRAINING: (
        "TFLiteConverter.convert",
        "The model was traced for training: trace it with training=False (tensorflow#56094, #52649).",
    ),
    AXES: (
        "TFLiteConverter.convert",
        "Dense weights with a scale for each channel: give them one scale, or write the layer as a 1x1 convolution.",
    ),
    UNKNOWN: ("load_model", "Load the model within tfmot.quantization.keras.quantize_scope()."),
    NESTED: ("quantize_model", "Build one flat model: call the layers of the inner model one by one."),
    UNSUPPORTED: (
        "quantize_model",
        "Give the layer a QuantizeConfig (keras_side/custom_layer.py shows one), or replace it: Conv1D by Conv2D, say.",
    ),
}
"""Message: who says it, and what to do. Each is captured from the tool in `reproduce`."""


def detect(case: Case) -> Iterator[Sighting]:
    """Each known message, once for each line that has it."""
    for line in case.log.splitlines():
        for message, (where, remedy) in REMEDIES.items():
            if message in line:
                yield Sighting(where=where, fact=f"'{line.strip()[:160]}'", remedy=remedy)


def _per_channel_dense(per_channel: bool) -> bytes:
    """A matrix product with fake-quantized weights of three columns."""
    import numpy as np
    import tensorflow as tf

    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    def function(x: Any) -> Any:
        kernel = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel(
                weights, [-1.0, -2.0, -3.0], [1.0, 2.0, 3.0], narrow_range=True
            )
            if per_channel
            else tf.quantization.fake_quant_with_min_max_vars(weights, -3.0, 3.0, narrow_range=True)
        )
        product = tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 1.0) @ kernel
        return tf.quantization.fake_quant_with_min_max_vars(product, -4.0, 4.0)

    return converted_function(function, (1, 4))


def _traced(training: bool) -> bytes:
    model = trained_network()
    return converted_function(lambda x: model(x, training=training), (1, *model.input_shape[1:]))


@functools.cache
def _attempts(right: bool) -> str:
    """Everything the tools said about five attempts, each done wrong or each done right."""
    from keras_side import qat
    from keras_side.custom_layer import channel_scale_config
    from keras_side.legacy import import_keras, import_tfmot

    keras, quantization = import_keras(), import_tfmot().quantization.keras
    source = keras.Input((4, 4, 2))
    twice = keras.Model(source, keras.layers.Multiply()([source, source]))
    outer = keras.Sequential([keras.layers.InputLayer(input_shape=(8, 8, 1)), float_network()])

    class OutputOnly(channel_scale_config()):  # type: ignore[misc]  # made on first use
        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:  # noqa: ARG002
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            """A product of two inputs has no weights."""

    def load() -> None:
        with TemporaryDirectory() as folder:
            trained_network().save(f"{folder}/model.h5")
            keras.models.load_model(f"{folder}/model.h5")

    def load_in_scope() -> None:
        with quantization.quantize_scope():
            load()

    def with_config() -> None:
        qat.quantize_with_configs(twice, {keras.layers.Multiply: OutputOnly()})

    wrong = (
        lambda: _traced(training=True),
        lambda: _per_channel_dense(per_channel=True),
        load,
        lambda: quantization.quantize_model(outer),
        lambda: quantization.quantize_model(twice),
    )
    corrected = (
        lambda: converted(trained_network()),
        lambda: _per_channel_dense(per_channel=False),
        load_in_scope,
        lambda: quantization.quantize_model(float_network()),
        with_config,
    )
    return "".join(refusal(attempt) for attempt in (corrected if right else wrong))


def reproduce() -> Case:
    """Five attempts that are refused, with what the tools really say."""
    return Case(log=_attempts(right=False))


def repair(case: Case) -> Case:  # noqa: ARG001 - a log cannot be repaired
    """The same five, done right."""
    return Case(log=_attempts(right=True))


def measure(broken: Case, repaired: Case) -> float:
    """How many of the five messages are there."""
    return float(sum((message in broken.log) - (message in repaired.log) for message in REMEDIES))


MISMATCH = Mismatch(
    id="M29",
    name="TF-MOT and the converter refuse without saying what to do",
    side="Keras/TF-MOT",
    severity="fault",
    versions="TF-MOT 0.8.1, TensorFlow 2.19.0",
    source="tensorflow#56094, #52649, model-optimization#1107, #368; reproduced",
    cause="Five situations end in a message about something else: a graph traced for training, per-channel Dense weights, a "
    "quantized model loaded without its scope, a model inside a model, and layers without a configuration (Multiply, "
    "PReLU, Conv1D, LayerNormalization, GRU, BatchNormalization behind an activation, operators such as x * 2).",
    way_out="What to do is in the sighting of each message.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("attempts that are refused", 5),
    automatic=False,
)
