"""The routes of a version matrix: what each starts from, and the job it is for a toolchain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compare.running.globs import chosen


@dataclass(frozen=True)
class Route:
    """One way to a .tflite, as a user of the packages would write it (worker.py)."""

    name: str
    about: str
    ability: str
    """Which toolchains go this way: those that list it."""
    form: str
    """Which form of the subject it starts from."""
    job: str
    """What worker.py calls it."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "onnx"
    """How calibration data is laid out: `onnx` as the form itself, `nhwc`, or `none` where it takes none."""
    bridged: bool = False
    """It ends in an ONNX file, which the exact bridge of the current toolchain takes on."""


def _onnx2tf(name: str, form: str, about: str) -> Route:
    return Route(name, f"{about} through onnx2tf", "onnx2tf", form, "onnx2tf", {"mode": "int8"}, "nhwc")


def _keras(name: str, about: str, form: str, mode: str, *, legacy: bool = False) -> Route:
    ability, layout = "keras-legacy" if legacy else "keras", "onnx" if mode == "integer-only" else "none"
    arguments = {"quantized": form == "keras-qat", "legacy": legacy, "mode": mode}
    return Route(name, about, ability, form, "keras", arguments, layout)


ROUTES = (
    Route("torch-exact", "QDQ ONNX of the QAT network by the exact bridge", "exact", "qdq", "exact", layout="none"),
    Route("torch-int8-exact", "ONNX of the converted int8 model by the exact bridge", "exact", "int8", "exact", layout="none"),
    Route("torch-program-exact", "Exported program of PT2E by the exact bridge", "exact", "program", "exact-program", layout="none"),
    _onnx2tf("torch-onnx2tf", "qdq", "QDQ ONNX of the QAT network"),
    _onnx2tf("torch-int8-onnx2tf", "int8", "ONNX of the converted int8 model"),
    _onnx2tf("torch-float-onnx2tf", "float", "Float ONNX, quantized after training,"),
    _onnx2tf("torch-dynamo-onnx2tf", "dynamo", "Float ONNX of PyTorch's default exporter, quantized after training,"),
    Route("torch-ort-exact", "Float ONNX, quantized by ONNX Runtime, by the exact bridge", "ort-quantize", "float", "ort-quantize", bridged=True),
    Route("torch-dynamo-ort-exact", "Float ONNX of PyTorch's default exporter, quantized by ONNX Runtime, by the exact bridge", "ort-quantize", "dynamo", "ort-quantize", bridged=True),
    Route("torch-litert", "PyTorch program, quantized after training by PT2E, through litert-torch", "litert-torch", "torch", "litert-torch", {"mode": "ptq"}),
    Route("torch-litert-qat", "PyTorch program, prepared for QAT by PT2E, through litert-torch", "litert-torch", "torch", "litert-torch", {"mode": "qat"}),
    _keras("keras-qat", "The article's script as printed: tf.keras, TF-MOT, concrete function", "keras-qat", "default"),
    _keras("keras-qat-legacy", "The same with TF_USE_LEGACY_KERAS=1", "keras-qat", "default", legacy=True),
    _keras("keras-ptq", "Float Keras network, quantized after training", "keras", "integer-only"),
    _keras("keras-ptq-legacy", "The same with TF_USE_LEGACY_KERAS=1", "keras", "integer-only", legacy=True),
    _keras("keras-dynamic-range", "Float Keras network, weights quantized, activations not", "keras", "dynamic-range"),
    _keras("keras-dynamic-range-legacy", "The same with TF_USE_LEGACY_KERAS=1", "keras", "dynamic-range", legacy=True),
)  # fmt: skip


def source(route: Route) -> str:
    """Where the model was trained, for a reader: `PyTorch` or `Keras`."""
    return "Keras" if route.form.startswith("keras") else "PyTorch"


def matching(patterns: Sequence[str], forms: Sequence[str], option: str = "--routes") -> tuple[Route, ...]:
    """The routes whose name matches any of the globs and whose form the subject has; all of them without globs.

    Raises `BridgeError`, in the words of the `option`, when a glob matches nothing.
    """
    possible = {route.name: route for route in ROUTES if route.form in forms}
    return chosen(possible, patterns, option, "matches no route for this model")
