"""The small Keras models that reproductions are made of, and how to look into a Keras model without importing Keras."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.exact.arithmetic import dequantize, quantize
from bridge.verifying.litert import Kernels, Runner
from compare.tflite.graph import OpenedTflite, open_tflite

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""TFLite operators that multiply by weights: where the time goes."""

RANGE_ENDINGS = ("quantize_layer", "pre_activation", "post_activation", "output")
"""What TF-MOT 0.8.1 calls an activation range: quantize_layer.py, quantize_aware_activation.py, quantize_wrapper.py."""


@functools.cache
def images() -> np.ndarray:
    """(32, 8, 8, 1) float32 in 0..1: smooth blobs from dark to bright, so that neighbours resemble each other."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:8, 0:8]
    centers = random.uniform(1, 6, (32, 2))
    light = np.linspace(0.3, 1.0, 32)
    blobs = [
        level * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6.0) for level, (cy, cx) in zip(light, centers, strict=True)
    ]
    found: np.ndarray = np.stack(blobs)[..., None].astype(np.float32)
    return found


def network(*layers: Any, shape: Sequence[int] = (8, 8, 1), seed: int = 0) -> Any:
    """A Sequential tf_keras model whose weights come from `seed` alone."""
    from keras_side.legacy import import_keras

    keras = import_keras()
    model = keras.Sequential([keras.layers.InputLayer(input_shape=tuple(shape)), *layers])
    random = np.random.default_rng(seed)
    model.set_weights([(0.3 * random.normal(size=array.shape)).astype(np.float32) for array in model.get_weights()])
    return model


@functools.cache
def float_network() -> Any:
    """Conv2D with ReLU, Flatten, Dense: not quantized."""
    from keras_side.legacy import import_keras

    layers = import_keras().layers
    return network(
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.Flatten(name="flatten"),
        layers.Dense(3, name="dense"),
    )


@functools.cache
def trained_network() -> Any:
    """`float_network`, quantization-aware in every layer, with ranges as measured on `images`."""
    from keras_side import qat

    return with_measured_ranges(qat.quantize_whole(float_network()), float_network())


@functools.cache
def dense_only_network() -> Any:
    """`float_network` with only its Dense layer annotated."""
    from keras_side import qat

    return with_measured_ranges(qat.quantize_dense_only(float_network()), float_network())


def with_measured_ranges(model: Any, source: Any, samples: np.ndarray | None = None) -> Any:
    """`model` with every activation range as the float model `source` shows it: what long training would find."""
    from keras_side import qat
    from keras_side.legacy import import_keras

    fed = images() if samples is None else samples
    model(
        fed, training=True
    )  # the ranges of the weights are set by the first training step, and are [-6, 6] until then
    outputs = import_keras().Model(source.inputs, [layer.output for layer in source.layers]).predict_on_batch(fed)
    names = [layer.name for layer in source.layers]
    ranges = {name: (float(out.min()), float(out.max())) for name, out in zip(names, outputs, strict=True)}
    qat.start_ranges(model, {**ranges, "input": (float(fed.min()), float(fed.max()))})
    return model


def converted(
    model: Any, *, optimize: bool = True, integer_io: bool = True, representative: np.ndarray | None = None
) -> bytes:
    """A Keras model through TensorFlow's converter; `representative` also asks for the integer operator set."""
    from bridge.via_tflite_converter import Settings, _apply, _from_concrete_function

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Statistics for quantized inputs were expected": said of every QAT model
        converter = _from_concrete_function(model)
        _apply(converter, Settings(optimize, False, representative is not None, integer_io), representative)
        return bytes(converter.convert())


def converted_function(function: Callable[[Any], Any], shape: Sequence[int]) -> bytes:
    """A function of one float32 tensor, full of fake-quants, through TensorFlow's converter to int8 at both ends."""
    from bridge.via_tflite_converter import Settings, _apply, _stand_in, _tensorflow

    tf = _tensorflow()
    traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(tuple(shape), tf.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], _stand_in(traced))
        _apply(converter, Settings(optimize=True, integer_io=True), None)
        return bytes(converter.convert())


def refusal(attempt: Callable[[], object]) -> str:
    """What a tool says when it refuses; empty when it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt()
    except Exception as error:  # noqa: BLE001 - whatever the tool raises is the finding
        return f"{type(error).__name__}: {error}\n"
    return ""


@dataclass(frozen=True)
class Layer:
    """One layer of a Keras model, out of its TF-MOT wrapper."""

    name: str
    kind: str
    annotated: bool
    relu: bool
    weighted: bool


def layers_of(model: Any) -> tuple[Layer, ...]:
    """The layers of a Keras model, the TF-MOT input quantizer left out; empty for what is not a Keras model."""
    found = []
    for outer in getattr(model, "layers", ()):
        annotated = is_a(outer, "QuantizeWrapper")
        inner = outer.layer if annotated else outer
        if is_a(inner, "QuantizeLayer") or is_a(inner, "InputLayer"):
            continue
        activation = getattr(inner, "activation", None)  # under TF-MOT a QuantizeAwareActivation around the function
        named = getattr(getattr(activation, "activation", activation), "__name__", "")
        weighted = is_a(inner, "Conv") or is_a(inner, "Dense")
        found.append(
            Layer(inner.name, type(inner).__name__, annotated, is_a(inner, "ReLU") or "relu" in named, weighted)
        )
    return tuple(found)


def is_a(thing: Any, class_name: str) -> bool:
    """Whether some class of `thing` has this name; Keras and TF-MOT need not be importable for that."""
    return any(each.__name__ == class_name for each in type(thing).__mro__)


def trained_ranges(model: Any, endings: tuple[str, ...] = RANGE_ENDINGS) -> dict[str, tuple[float, float]]:
    """(min, max) of every per-tensor range that TF-MOT keeps in a model, by the variables' common name."""
    variables = {variable.name.split(":")[0]: variable for variable in getattr(model, "weights", ())}
    names = [name.removesuffix("_min") for name in variables if name.endswith("_min")]
    return {
        name: (float(variables[f"{name}_min"]), float(variables[f"{name}_max"]))
        for name in names
        if name.endswith(endings) and len(variables[f"{name}_min"].shape) == 0
    }


def float_weighted(file: OpenedTflite | None) -> Iterator[Any]:
    """The weighted operators of a .tflite that read and write float32 and have float32 weights."""
    if file is None:
        return
    tensors = file.graph.tensors
    for node in file.graph.nodes:
        operands = (*node.inputs[:2], node.outputs[0])
        if node.op in WEIGHTED and all(name and tensors[name].dtype == np.float32 for name in operands):
            yield node


def source_operator(file: OpenedTflite, tensor: str) -> Any:
    """The operator that computes a tensor, RESHAPEs on the way skipped; None for inputs and constants."""
    producers = file.graph.producers()
    node = producers.get(tensor)
    while node is not None and node.op == "RESHAPE":
        node = producers.get(node.inputs[0])
    return node


def real_outputs(tflite: bytes | None, samples: np.ndarray, kernels: Kernels = "xnnpack") -> np.ndarray:
    """The real values of a .tflite with one input and one output, int8 or float32, on float32 samples."""
    assert tflite is not None  # noqa: S101 - a measure knows its own reproduction
    graph = open_tflite(tflite).graph
    runner = Runner(tflite, kernels)
    source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    fed = samples if source.qparams is None else quantize(samples, source.qparams)
    got = np.concatenate([runner({source.name: sample[None]})[target.name] for sample in fed])
    return got if target.qparams is None else dequantize(got, target.qparams)
