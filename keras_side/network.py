"""The MNIST network of the article, layer for layer, in Keras 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bridge.errors import BridgeError
from keras_side.legacy import import_keras

if TYPE_CHECKING:
    import tf_keras

IMAGE = (28, 28)
CLASSES = 10

WEIGHT_SHAPES: Mapping[str, tuple[int, ...]] = {
    "conv/kernel": (3, 3, 1, 12),
    "conv/bias": (12,),
    "dense/kernel": (13 * 13 * 12, CLASSES),
    "dense/bias": (CLASSES,),
}


def build_network(seed: int) -> tf_keras.Model:
    """The article's network with freshly drawn weights; the same `seed` draws the same weights.

    (N, 28, 28) float32 pixels in 0..1 to (N, 10) float32 logits. Kernels are Glorot uniform, biases zero, as Keras'
    defaults are; each kernel has its own seed, so nothing else that was built before changes them.
    """
    layers = import_keras().layers
    glorot = import_keras().initializers.GlorotUniform
    return import_keras().Sequential(
        [
            layers.InputLayer(input_shape=IMAGE, name="input"),
            layers.Reshape((*IMAGE, 1), name="reshape"),
            layers.Conv2D(12, 3, activation="relu", kernel_initializer=glorot(seed), name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(CLASSES, kernel_initializer=glorot(seed + 1), name="dense"),
        ],
        name="mnist",
    )


def read_weights(model: tf_keras.Model) -> dict[str, np.ndarray]:
    """The four float32 weights by name: kernels HWIO and (inputs, outputs), the dense inputs in H, W, C order.

    Of a quantization-aware model these are the float weights under training, before their fake-quantization.
    """
    return {name: variable.numpy() for name, variable in _weight_variables(model).items()}


def write_weights(model: tf_keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Put `weights` (as `read_weights` returns them) into `model`, or into the float weights of its QAT version.

    Raises BridgeError for a missing or unknown name, a wrong shape, or a value that is not finite; `model` is then
    unchanged.
    """
    check_weights(weights)
    for name, variable in _weight_variables(model).items():
        variable.assign(np.asarray(weights[name], dtype=np.float32))


def check_weights(weights: Mapping[str, np.ndarray]) -> None:
    """Raise BridgeError unless `weights` has exactly the network's four arrays, well shaped and finite."""
    if set(weights) != set(WEIGHT_SHAPES):
        raise BridgeError(
            where="weights for the Keras network",
            problem=f"are named {sorted(weights)}; expected {sorted(WEIGHT_SHAPES)}",
            remedy="Pass the dictionary that read_weights returns.",
        )
    for name, shape in WEIGHT_SHAPES.items():
        _check_array(name, np.asarray(weights[name]), shape)


def _check_array(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise BridgeError(
            where=f"weight '{name}'",
            problem=f"has shape {values.shape}; expected {shape}",
            remedy="Keras kernels are (height, width, in, out) and (inputs, outputs), dense inputs in H, W, C order.",
        )
    if not np.isfinite(values).all():
        raise BridgeError(
            where=f"weight '{name}'",
            problem=f"holds {int((~np.isfinite(values)).sum())} value(s) that are not finite",
            remedy="The training it came from diverged: lower the learning rate and train again.",
        )


def _weight_variables(model: tf_keras.Model) -> dict[str, tf_keras.Variable]:
    """The variables behind WEIGHT_SHAPES, in that order.

    Looked up by variable name, which TF-MOT keeps ("conv/kernel:0"): in a QAT model, `layer.kernel` is no variable but
    the output of its fake-quantization.
    """
    found = {variable.name.split(":")[0]: variable for variable in model.weights}
    missing = [name for name in WEIGHT_SHAPES if name not in found]
    if missing:
        raise BridgeError(
            where=f"model '{model.name}'",
            problem=f"has no variable {missing} (it has: {sorted(found)})",
            remedy="Build it with keras_side.network.build_network, or quantize a model built with it.",
        )
    return {name: found[name] for name in WEIGHT_SHAPES}
