"""Keras to .tflite with TensorFlow's own converter: five post-training modes, two ways in.

What the modes really do to the article's network (TensorFlow 2.19; each line is a test):

- A QAT model becomes all-integer in every mode but "none". "dynamic-range" and "float16" give it nothing they are named
  after: operators, scales and outputs are those of "full-integer", without calibration data.
- A QAT model in mode "none" is a float model with uint8 QUANTIZE/DEQUANTIZE pairs (catalogue entry M24).
- A Dense-only QAT model has no integer operator at all unless the mode takes calibration data, which then decides every
  activation scale but that of the logits (M25, M26).
- Entry "keras" adds SHAPE, STRIDED_SLICE and PACK, and about 900 bytes, in every mode.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import BridgeError

if TYPE_CHECKING:
    import tf_keras

WHERE = "TensorFlow's TFLite converter"


@dataclass(frozen=True)
class Settings:
    """What one mode asks of the converter (tensorflow.org/lite/performance/post_training_quantization)."""

    optimize: bool = False  # optimizations=[DEFAULT]; without it fake-quantization stays a Q/DQ pair around float
    float16: bool = False  # weights are stored as float16 where nothing better is known
    integer_operators: bool = False  # TFLITE_BUILTINS_INT8: quantize all; demands calibration data, even after QAT
    integer_io: bool = False  # int8 input and output instead of float32


SETTINGS: Mapping[str, Settings] = {
    "none": Settings(),
    "dynamic-range": Settings(optimize=True),
    "float16": Settings(optimize=True, float16=True),
    "full-integer": Settings(optimize=True, integer_operators=True),
    "integer-only": Settings(optimize=True, integer_operators=True, integer_io=True),
}
MODES = tuple(SETTINGS)


def convert(
    model: tf_keras.Model, mode: str, entry: str, representative: np.ndarray | None, *, per_channel: bool = True
) -> bytes:
    """The .tflite bytes of a Keras 2 model with one input and one output; the same model gives the same bytes.

    `mode` is one of MODES, `entry` one of ENTRIES: "concrete" fixes the batch at 1, "keras" leaves it free.
    `representative` is float32 (N, *input shape), scaled as the model expects its input; "full-integer" and
    "integer-only" need it, the other modes ignore it. About 100 images are enough. Without `per_channel`, weights that
    the converter quantizes itself get one scale, not one for each channel: a batch norm it folds into trained ones, too.
    Raises BridgeError for an unknown name, missing or unfit data, and for what the converter refuses.
    """
    settings = _look_up(SETTINGS, mode, kind="mode")
    open_converter = _look_up(_OPENERS, entry, kind="entry")
    _check_one_input_and_output(model)
    if settings.integer_operators:
        _check_representative(representative, model.input_shape[1:], mode)
    converter = open_converter(model)
    _apply(converter, settings, representative)
    converter._experimental_disable_per_channel = not per_channel  # noqa: SLF001 - nothing public does it
    try:
        with warnings.catch_warnings():
            # Said of every fake-quantized model; the statistics are in its fake-quantization.
            warnings.filterwarnings("ignore", message="Statistics for quantized inputs were expected")
            return bytes(converter.convert())
    except _converter_errors() as error:
        raise BridgeError(
            where=f"{WHERE}, mode '{mode}', entry '{entry}'",
            problem=f"refuses model '{model.name}': {first_meaningful_line(str(error))}",
            remedy="Replace what it names by something TFLite has (tensorflow.org/mlir/tfl_ops), then convert again.",
        ) from error


def first_meaningful_line(text: str) -> str:
    """The first line of a converter message that says what is wrong, without the source position before it."""
    for line in text.splitlines():
        said = line.rpartition("error: ")[2].strip()
        if said and ": note: " not in line:
            return said
    return "it gives no reason"


def _from_concrete_function(model: tf_keras.Model) -> Any:
    """The article's way: one concrete function with the fixed shape [1, ...], so no SHAPE, STRIDED_SLICE, PACK."""
    tf = _tensorflow()
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(signature)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], _stand_in(function))


def _from_keras_model(model: tf_keras.Model) -> Any:
    """`from_keras_model`, with the free batch dimension and the input and output names that Keras itself would save."""
    tf = _tensorflow()
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name=model.input_names[0])
    (output,) = model.output_names
    serve = tf.function(lambda x: {output: model(x, training=False)}, input_signature=[signature], autograph=False)
    stand_in = _stand_in(serve.get_concrete_function())
    stand_in.serve = serve
    return tf.lite.TFLiteConverter.from_keras_model(stand_in)


_OPENERS: Mapping[str, Callable[[Any], Any]] = {"concrete": _from_concrete_function, "keras": _from_keras_model}
ENTRIES = tuple(_OPENERS)


def _stand_in(function: Any) -> Any:
    """A bare tf.Module that owns the variables `function` reads and is saved in the place of their Keras model.

    The converter writes a SavedModel first, and saving a Keras model retraces every layer for training and inference:
    two thirds of a conversion. The .tflite is the same to the last byte (a test compares them).
    """
    module = _tensorflow().Module()
    module.owned = list(function.variables)
    return module


def _apply(converter: Any, settings: Settings, representative: np.ndarray | None) -> None:
    tf = _tensorflow()
    if settings.optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings.float16:
        converter.target_spec.supported_types = [tf.float16]
    if settings.integer_operators and representative is not None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _one_by_one(representative)
    if settings.integer_io:
        converter.inference_input_type = converter.inference_output_type = tf.int8


def _one_by_one(representative: np.ndarray) -> Iterator[list[np.ndarray]]:
    for index in range(len(representative)):
        yield [representative[index : index + 1]]


def _check_representative(representative: np.ndarray | None, shape: tuple[int, ...], mode: str) -> None:
    if representative is None:
        raise BridgeError(
            where=f"{WHERE}, mode '{mode}'",
            problem="needs calibration data: its integer operator set demands it, even when QAT trained every range",
            remedy="Pass about 100 training images, scaled as in training, or convert with mode 'dynamic-range'.",
        )
    if representative.dtype != np.float32 or representative.shape[1:] != shape or not len(representative):
        raise BridgeError(
            where=f"{WHERE}, calibration data",
            problem=f"is {representative.dtype} {representative.shape}; expected float32 (N, {str(shape)[1:-1]})",
            remedy="Pass images in the form the model was trained on, at least one.",
        )
    if not np.isfinite(representative).all():
        raise BridgeError(
            where=f"{WHERE}, calibration data",
            problem="holds values that are not finite",
            remedy="Look for a division by zero in the preprocessing.",
        )


def _check_one_input_and_output(model: tf_keras.Model) -> None:
    inputs, outputs = list(model.input_names), list(model.output_names)
    if len(inputs) != 1 or len(outputs) != 1:
        raise BridgeError(
            where=f"{WHERE}, model '{model.name}'",
            problem=f"has inputs {inputs} and outputs {outputs}; this route converts one of each",
            remedy="Wrap it in a Keras model with one input and one output.",
        )


def _look_up(table: Mapping[str, Any], name: str, *, kind: str) -> Any:
    if name not in table:
        raise BridgeError(
            where=WHERE,
            problem=f"there is no {kind} '{name}'",
            remedy=f"Choose one of: {', '.join(table)}.",
        )
    return table[name]


def _converter_errors() -> tuple[type[Exception], ...]:
    """What the converter raises on models and settings it cannot handle; anything else is our own defect."""
    converter_error = importlib.import_module("tensorflow.lite.python.convert_phase").ConverterError
    return (converter_error, ValueError, RuntimeError, NotImplementedError)


def _tensorflow() -> Any:
    """TensorFlow, with Keras 2 behind `tf.keras` where nobody imported it before: TF-MOT's models are Keras 2 models."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    return importlib.import_module("tensorflow")
