"""M23: tf.keras is Keras 3, and TF-MOT refuses every model of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import refusal
from compare.subjects.case import Case

MESSAGES = (
    "`to_quantize` can only either be a keras Sequential or Functional model",
    "`to_annotate` can only be a `keras.layers.Layer` instance. You passed an instance of type:",
)
"""quantize.py of TF-MOT 0.8.1; the first one is also what a subclassed tf_keras model gets."""
REMEDY = (
    "Install tf_keras of TensorFlow's own minor version and set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported, "
    "or build the model with tf_keras."
)


def detect(case: Case) -> Iterator[Sighting]:
    """A model of Keras 3; or TF-MOT's refusal; or TF-MOT installed where no Keras 2 is.

    Keras 3 keeps its models in keras.src.models; Keras 2.13 to 2.15 had them in keras.src.engine.
    """
    model = case.keras_model
    if model is not None and any(each.__module__.startswith("keras.src.models") for each in type(model).__mro__):
        yield Sighting(
            where=f"model '{model.name}'", fact=f"is a Keras 3 model, class '{type(model).__name__}'", remedy=REMEDY
        )
    elif model is None and (said := [message for message in MESSAGES if message in case.log]):
        yield Sighting(
            where="TF-MOT", fact=f"'{said[0]}' (or the model is a subclassed one)", remedy=REMEDY, sure=False
        )
    versions = case.packages or {}
    tensorflow = versions.get("tensorflow") or versions.get("tensorflow-cpu") or ""
    installed = {name.replace("_", "-") for name in versions}
    if "tensorflow-model-optimization" in installed and "tf-keras" not in installed and _minor(tensorflow) >= (2, 16):
        yield Sighting(
            where="packages",
            fact=f"tensorflow {tensorflow} brings Keras 3, tensorflow-model-optimization needs Keras 2, tf_keras is missing",
            remedy=REMEDY,
            severity="risk",
        )


def _minor(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(part.isdigit() for part in parts) else (0, 0)


def _model(keras: Any) -> Any:
    return keras.Sequential([keras.layers.InputLayer((4,)), keras.layers.Dense(2)], name="small")


def reproduce() -> Case:
    """A Keras 3 model, given to quantize_model."""
    from keras_side.legacy import import_tfmot

    quantization = import_tfmot().quantization.keras  # first: it settles TensorFlow on Keras 2
    model = _model(importlib.import_module("keras"))
    return Case(keras_model=model, log=refusal(lambda: quantization.quantize_model(model)))


def repair(case: Case) -> Case:  # noqa: ARG001 - a model is not moved from Keras 3 to Keras 2
    """The same layers in tf_keras."""
    from keras_side.legacy import import_keras, import_tfmot

    model = _model(import_keras())
    return Case(keras_model=model, log=refusal(lambda: import_tfmot().quantization.keras.quantize_model(model)))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log) - bool(repaired.log))


MISMATCH = Mismatch(
    id="M23",
    name="tf.keras is Keras 3",
    side="Keras/TF-MOT",
    severity="fault",
    versions="TensorFlow 2.16 and later with TF-MOT up to 0.8.1; ran TensorFlow 2.19.0, Keras 3.15.1",
    source="model-optimization#1181, #1119; reproduced",
    cause="Since TensorFlow 2.16 tf.keras is Keras 3. TF-MOT compares classes with those of tf_keras (Keras 2) and refuses "
    "what is none of them, in words that say nothing of versions.",
    way_out=REMEDY + " A .keras file that Keras 3 saved has to be built again.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("models that TF-MOT refuses", 1),
    automatic=False,
)
