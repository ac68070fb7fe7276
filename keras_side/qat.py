"""Quantization-aware training with TF-MOT: the whole model, its Dense layer only, and a layer TF-MOT does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import BridgeError
from keras_side.legacy import import_keras, import_tfmot

if TYPE_CHECKING:
    import tf_keras

# What TF-MOT calls the range of an activation: quantize_layer.py, quantize_aware_activation.py, quantize_wrapper.py.
_ACTIVATION_RANGES = ("quantize_layer_min", "pre_activation_min", "post_activation_min", "output_min")
_INT8_STEPS = 255  # an activation uses all 256 codes, -128..127
_INT8_LOWEST = -128


def quantize_whole(model: tf_keras.Model, scheme: Any = None) -> tf_keras.Model:
    """The article's ordinary use: every layer of `model` becomes quantization-aware. Weights are copied.

    Kernels get int8 symmetric fake-quantization (the convolution per output channel, Dense per tensor); with a `scheme`
    of `keras_side.schemes.for_target`, the one that runs fast there. The input range is the widest seen. The ranges of
    convolution and logits start at [-6, 6] and move by 0.1 % per step: after the article's two steps larger logits are
    still clipped and the zero point after the ReLU is about 0, not -128, so half of its codes are unused; `start_ranges`
    avoids that. Source: tensorflow/model-optimization #368.
    Raises BridgeError for a layer that TF-MOT has no configuration for.
    """
    quantization = import_tfmot().quantization.keras
    if scheme is None:
        return _quantized(quantization.quantize_model, model)
    return _quantized(
        lambda plain: quantization.quantize_apply(quantization.quantize_annotate_model(plain), scheme), model
    )


def quantize_dense_only(model: tf_keras.Model) -> tf_keras.Model:
    """The article's advanced use: a clone of `model` in which only Dense layers are quantization-aware.

    TF-MOT also wraps Flatten, without quantizing anything in it. The input of Dense has no trained range, so without
    calibration data no operator of the converted file is integer.
    """
    dense = import_keras().layers.Dense
    return _quantize_annotated(model, {dense: None})


def quantize_with_configs(model: tf_keras.Model, configs: Mapping[type, Any]) -> tf_keras.Model:
    """`quantize_whole` for a model with layers TF-MOT does not know: `configs` maps such a layer class to its config.

    A config is an instance of a QuantizeConfig class, see keras_side/custom_layer.py. Raises as `quantize_whole` does.
    """
    every_layer: dict[type, Any] = {type(layer): None for layer in model.layers}
    return _quantize_annotated(model, every_layer | dict(configs))


def output_scale(model: tf_keras.Model) -> float | None:
    """The trained float32 scale of the logits (real units per int8 step); None when `model` is a float model."""
    ranges = list(activation_ranges(model).values())
    return quantization_of_range(*ranges[-1])[0] if ranges else None


def activation_scales(model: tf_keras.Model) -> dict[str, tuple[float, int]]:
    """The trained (scale, int8 zero point) of every quantized activation, by layer, from input to output.

    For the network of the article: "input", "conv" and "dense" after `quantize_whole`; "dense" after
    `quantize_dense_only`; nothing for a float model. "pool" and "flatten" keep the values of "conv".
    Raises BridgeError before the first training step, when the input has no range yet.
    """
    return {name: quantization_of_range(low, high) for name, (low, high) in activation_ranges(model).items()}


def activation_ranges(model: tf_keras.Model) -> dict[str, tuple[float, float]]:
    """The (lowest, highest) real value each quantized activation can take, by layer, as training left them."""
    return {name: (float(low.numpy()), float(high.numpy())) for name, (low, high) in _range_variables(model).items()}


def start_ranges(model: tf_keras.Model, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Start the activation ranges of a QAT model from measured ones instead of TF-MOT's [-6, 6] (catalogue entry M28).

    `ranges` by layer, as `keras_side.training.measure_ranges` finds them in the float model; call it before training.
    Each range is widened to contain zero, as TFLite requires. Raises BridgeError when a layer's range is missing.
    """
    variables = _range_variables(model)
    missing = [name for name in variables if name not in ranges]
    if missing:
        raise BridgeError(
            where=f"activation ranges for model '{model.name}'",
            problem=f"has none for {missing} (given: {sorted(ranges)})",
            remedy="Measure them in the float model this one was quantized from.",
        )
    for name, (low, high) in variables.items():
        low.assign(min(ranges[name][0], 0.0))
        high.assign(max(ranges[name][1], 0.0))


def quantization_of_range(low: float, high: float) -> tuple[float, int]:
    """The (float32 scale, int8 zero point) TensorFlow takes for a fake-quantization range.

    The range is moved, not stretched, so that zero falls on a code.
    Source: getNudgedScaleAndZeroPoint in MLIR's lib/Dialect/Quant/Utils/FakeQuantSupport.cpp, in float64.
    """
    if not low <= 0.0 <= high or low == high:
        raise BridgeError(
            where=f"fake-quantization range [{low}, {high}]",
            problem="must contain zero and be wider than zero",
            remedy="Fine-tune for at least one step, so that the range is set from data.",
        )
    scale = (high - low) / _INT8_STEPS
    zero_point = int(np.floor(_INT8_LOWEST - low / scale + 0.5))
    return float(np.float32(scale)), int(np.clip(zero_point, _INT8_LOWEST, _INT8_LOWEST + _INT8_STEPS))


def plain_name(name: str) -> str:
    """`name` without the running number Keras gives the second and later QuantizeLayer of one process."""
    return re.sub(r"quantize_layer_\d+", "quantize_layer", name)


def _range_variables(model: tf_keras.Model) -> dict[str, tuple[tf_keras.Variable, tf_keras.Variable]]:
    """The (min, max) variables of every quantized activation, by layer, in the order of the layers."""
    found = {plain_name(variable.name.split(":")[0]): variable for variable in model.weights}
    pairs: dict[str, tuple[tf_keras.Variable, tf_keras.Variable]] = {}
    for name, low in found.items():
        layer, _, leaf = name.rpartition("/")
        if leaf in _ACTIVATION_RANGES:
            pairs[_activation_name(layer)] = (low, found[name.removesuffix("_min") + "_max"])
    return pairs


def _activation_name(layer: str) -> str:
    return "input" if layer == "quantize_layer" else layer.removeprefix("quant_")


def _quantize_annotated(model: tf_keras.Model, configs: Mapping[type, Any]) -> tf_keras.Model:
    """Annotate the layers whose class is in `configs` (None: TF-MOT's own configuration) and make those aware."""
    quantization = import_tfmot().quantization.keras

    def annotate(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        if type(layer) in configs:
            return quantization.quantize_annotate_layer(layer, configs[type(layer)])
        return layer.__class__.from_config(layer.get_config())

    clone = import_keras().models.clone_model(model, clone_function=annotate)
    clone.set_weights(model.get_weights())
    return _quantized(quantization.quantize_apply, clone, *(config for config in configs.values() if config))


def _quantized(quantize: Any, model: tf_keras.Model, *configs: Any) -> tf_keras.Model:
    """Call TF-MOT with every class it has to clone in scope, and say in our words what it refuses."""
    layers = [getattr(layer, "layer", layer) for layer in model.layers]  # annotated layers wrap the original
    scope = {type(item).__name__: type(item) for item in (*layers, *configs)}
    try:
        with import_tfmot().quantization.keras.quantize_scope(scope):
            return quantize(model)
    except (RuntimeError, ValueError) as error:
        raise BridgeError(
            where=f"model '{model.name}'",
            problem=f"TF-MOT refuses it: {str(error).splitlines()[0]}",
            remedy="Give that layer a QuantizeConfig (keras_side/custom_layer.py shows one), or replace the layer.",
        ) from error
