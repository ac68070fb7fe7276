"""Keras networks through TensorFlow's own converter: every post-training mode here, the article's script anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from compare.routes.model import Here, Job, Route, Source, Variant
from compare.subjects.case import Case
from compare.subjects.mnist.calibration import CALIBRATIONS
from compare.subjects.mnist.networks import build_keras

MODES = ("none", "dynamic-range", "float16", "full-integer", "integer-only")
"""The post-training modes of the article's first part; bridge/via_tflite_converter.py says what each sets."""
ENTRIES = ("concrete", "keras")
"""`from_concrete_functions` with a fixed shape, as the article does it, and `from_keras_model`."""
_CALIBRATED = ("full-integer", "integer-only")
"""The modes that take calibration data."""

_models: dict[str, Any] = {}
"""Networks this worker process has built already: all conversions of one follow each other."""


def _model(source: Source) -> Any:
    if source.spec.id not in _models:
        _models[source.spec.id] = build_keras(source.spec, source.settings, source.arrays)
    return _models[source.spec.id]


def _case(source: Source, variant: Variant, calibration: np.ndarray) -> Case:
    calibrated = variant.settings["mode"] in _CALIBRATED
    return Case(keras_model=_model(source), calibration=calibration if calibrated else None)


def _native(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:
    from bridge import via_tflite_converter

    mode = variant.settings["mode"]
    representative = calibration if mode in _CALIBRATED else None
    return via_tflite_converter.convert(_model(source), mode, variant.settings["entry"], representative=representative)


_VARIANTS = tuple(
    Variant(f"keras/{network}", "keras", {"mode": mode, "entry": entry})
    for network in ("baseline", "qat", "qat-dense")
    for mode in MODES
    for entry in ENTRIES
) + tuple(
    Variant("keras/baseline", "keras", {"mode": "integer-only", "entry": "concrete", "calibration": calibration})
    for calibration in CALIBRATIONS[1:]
)


def _script(name: str, about: str, form: str, mode: str, *, legacy: bool = False) -> Route:
    ability, layout = "keras-legacy" if legacy else "keras", "onnx" if mode == "integer-only" else "none"
    arguments: dict[str, str | bool] = {"quantized": form == "keras-qat", "legacy": legacy, "mode": mode}
    return Route(name, about, form, Job(ability, "keras", arguments, layout))


ROUTES = (
    Route(
        name="keras-native",
        about="TensorFlow's own converter, every post-training mode",
        form="keras",
        here=Here(
            lane="keras",
            extra="keras",
            modules=("tensorflow", "tf_keras", "tensorflow_model_optimization"),
            variants=_VARIANTS,
            convert=_native,
            case=_case,
        ),
    ),
    _script(
        "keras-qat", "The article's script as printed: tf.keras, TF-MOT, concrete function", "keras-qat", "default"
    ),
    _script("keras-qat-legacy", "The same with TF_USE_LEGACY_KERAS=1", "keras-qat", "default", legacy=True),
    _script("keras-ptq", "Float Keras network, quantized after training", "keras", "integer-only"),
    _script("keras-ptq-legacy", "The same with TF_USE_LEGACY_KERAS=1", "keras", "integer-only", legacy=True),
    _script("keras-dynamic-range", "Float Keras network, weights quantized, activations not", "keras", "dynamic-range"),
    _script("keras-dynamic-range-legacy", "The same with TF_USE_LEGACY_KERAS=1", "keras", "dynamic-range", legacy=True),
)
