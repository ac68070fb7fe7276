"""M77: a Keras 3 model handed to the converter beside its concrete function: the weights stay out of the file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import tflite

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import images, real_outputs
from compare.subjects.case import Case

NEVER_WRITTEN = re.compile(r"read_variable\.cc:\d+ variable != nullptr was not true")
"""kernels/read_variable.cc: said by the converter while it calibrates, and by a runtime when it runs the file."""
ABORTED = "LLVM ERROR: Failed to infer result type(s)."
"""What TensorFlow 2.17 says when it takes the whole process down."""
REMEDY = (
    "Do not pass the Keras 3 model as second argument of from_concrete_functions: pass a tf.Module with "
    "module.owned = list(function.variables), or use from_keras_model, or build the model with tf_keras."
)


def detect(case: Case) -> Iterator[Sighting]:
    """Every variable that a .tflite reads must be written in it; or the message of a variable that was not.

    A file with ASSIGN_VARIABLE, or an initializer behind CALL_ONCE, keeps state on purpose.
    """
    read = [] if case.file is None else [node for node in case.file.graph.nodes if node.op == "READ_VARIABLE"]
    if read and not _writes_variables(case.tflite or b""):
        assert case.file is not None  # noqa: S101 - it has the operators
        numbers = sum(int(np.prod(case.file.graph.tensors[node.outputs[0]].shape)) for node in read)
        yield Sighting(
            where=f"variable '{read[0].inputs[0]}'",
            fact=f"{len(read)} READ_VARIABLE read {numbers} numbers that nothing in the file writes: "
            f"the file has {len(case.tflite or b'')} bytes",
            remedy=REMEDY,
        )
    if said := NEVER_WRITTEN.search(case.log):
        yield Sighting(where="READ_VARIABLE", fact=f"'{said[0]}'", remedy=REMEDY)
    elif ABORTED in case.log:
        yield Sighting(
            where="the converter's process",
            fact=f"'{ABORTED}' (TensorFlow 2.17 with a Keras 3 model, or another operator whose type it cannot infer)",
            remedy=REMEDY,
            sure=False,
        )


def _writes_variables(content: bytes) -> bool:
    """Whether an operator in any subgraph writes a variable or runs an initializer; the codes are of the whole file."""
    model = tflite.Model.GetRootAsModel(content, 0)
    writers = (tflite.BuiltinOperator.ASSIGN_VARIABLE, tflite.BuiltinOperator.CALL_ONCE)
    return any(model.OperatorCodes(index).BuiltinCode() in writers for index in range(model.OperatorCodesLength()))


@cache
def _model() -> Any:
    """Conv2D with ReLU, Flatten, Dense in Keras 3, the weights from a seed."""
    from keras_side.legacy import import_keras

    import_keras()  # first: the process stays with Keras 2 behind tf.keras
    keras = importlib.import_module("keras")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
    random = np.random.default_rng(0)
    model.set_weights([(0.3 * random.normal(size=array.shape)).astype(np.float32) for array in model.get_weights()])
    return model


def _converted(*, owned_by_the_model: bool) -> bytes:
    """The concrete function with a batch of 1, and what the converter is told to save with it."""
    from bridge.via_tflite_converter import _stand_in, _tensorflow

    tf, model = _tensorflow(), _model()
    signature = tf.TensorSpec((1, 8, 8, 1), tf.float32)
    function = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(signature)
    owner = model if owned_by_the_model else _stand_in(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def reproduce() -> Case:
    """A Keras 3 model and its concrete function through TensorFlow's converter, Optimize.DEFAULT, no calibration."""
    return Case(tflite=_converted(owned_by_the_model=True))


def repair(case: Case) -> Case:  # noqa: ARG001 - the weights are not in the .tflite
    """The same function with a bare tf.Module that owns its variables in the model's place."""
    return Case(tflite=_converted(owned_by_the_model=False))


def measure(broken: Case, repaired: Case) -> float:
    """Share of the images on which the file does not give the Keras model's outputs, refusals included."""
    expected = _model().predict_on_batch(images())
    return _wrong(broken, expected) - _wrong(repaired, expected)


def _wrong(case: Case, expected: np.ndarray) -> float:
    try:
        found = real_outputs(case.tflite, images())
    except RuntimeError:
        return 1.0
    right = np.abs(found.reshape(expected.shape) - expected).max(axis=1) < 0.01 * np.ptp(expected)
    return float((~right).mean())  # what is not a number is not right


MISMATCH = Mismatch(
    id="M77",
    name="Keras 3's variables are left out of the file",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.17.0 with Keras 3.6, 2.19.0 with Keras 3.10 and 3.15.1, 2.21.0 with Keras 3.15.1; "
    "the file run by LiteRT 1.0 to 2.3",
    source="found here; no thread found",
    cause="from_concrete_functions([function], model) saves the model and converts what was saved. With a Keras 3 model "
    "the converter then leaves the weights as variables that the file reads and nothing writes. Without calibration it "
    "says nothing. LiteRT 1.4 and later run the file through XNNPACK on memory that nobody wrote: 10 % on MNIST. "
    "Older runtimes, and kernels without XNNPACK, refuse at invoke; with calibration the converter fails the same way, "
    "and TensorFlow 2.17 aborts the process.",
    way_out="A tf.Module that owns function.variables as the second argument, or none at all (deprecated), or "
    "from_keras_model (its batch stays free): each gave the model's outputs with 2.17, 2.19 and 2.21. "
    "model.export with an input_signature and from_saved_model did with 2.19 and 2.21. So does a tf_keras model.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("images with wrong outputs (share)", 1.0),
    automatic=False,
)
