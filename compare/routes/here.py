"""The registry: every way from a trained network to a .tflite, with what it needs."""

from __future__ import annotations

import gc
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compare.subjects.case import Case
from compare.subjects.mnist.calibration import CALIBRATIONS
from compare.subjects.mnist.networks import Arrays, NetworkSpec, build_keras
from compare.subjects.mnist.settings import Settings

CONTROL_NOTE = "note: "
"""How a line of a converter's log begins that says what it could not keep."""

MODES = ("none", "dynamic-range", "float16", "full-integer", "integer-only")
"""The post-training modes of the article's first part; bridge/via_tflite_converter.py says what each sets."""
ENTRIES = ("concrete", "keras")
"""`from_concrete_functions` with a fixed shape, as the article does it, and `from_keras_model`."""


@dataclass(frozen=True)
class Source:
    """What a conversion starts from, picklable: an ONNX file, or a Keras network as arrays."""

    spec: NetworkSpec
    settings: Settings
    arrays: Arrays = field(repr=False)
    onnx: Path | None


@dataclass(frozen=True)
class Variant:
    """One artifact that a route makes: from which network, in which form, with which settings."""

    network: str
    form: str
    """Which export of the network it takes: `qdq`, `int8`, `float`; for Keras routes `keras`."""
    settings: Mapping[str, str] = field(default_factory=dict)

    def id(self, route: str) -> str:
        return "/".join([route, self.network.split("/")[1], *self.settings.values()])


@dataclass(frozen=True)
class Route:
    """A named way from a trained network to a .tflite.

    `lane` is the kind of worker process it runs in. `convert(source, variant, calibration)` returns the file's bytes
    there; calibration is float32 (N, 28, 28), scaled to 0..1 unless the variant says otherwise.
    """

    name: str
    about: str
    lane: str
    extra: str
    """The extra of this package that brings what it needs."""
    modules: tuple[str, ...]
    variants: tuple[Variant, ...]
    convert: Callable[[Source, Variant, np.ndarray], bytes]
    case: Callable[[Source, Variant, np.ndarray], Case]
    """What a team on this route has in its hands beside the .tflite and its inputs; called as `convert` is."""
    controls: str | None = None
    """The route whose files this one's are held against, network by network."""

    def missing(self) -> str | None:
        """A line that says what is not installed and how to get it; None when everything is there."""
        absent = [module for module in self.modules if importlib.util.find_spec(module) is None]
        if not absent:
            return None
        return f"route '{self.name}': needs {', '.join(absent)}, not installed; pip install '.[{self.extra}]'"


def warm_up(lane: str) -> None:
    """Import a lane's frameworks in its worker process, and take them out of the garbage collector's rounds.

    onnx2tf and TensorFlow's converter collect several times per conversion; without the frozen imports that takes a
    tenth of the time.
    """
    if lane == "onnx2tf":
        from bridge.via_onnx2tf import import_onnx2tf

        import_onnx2tf()
    else:
        from keras_side.legacy import import_tfmot

        import_tfmot()
    gc.collect()
    gc.freeze()


def _onnx_case(source: Source, variant: Variant, calibration: np.ndarray) -> Case:  # noqa: ARG001 - a Route's form
    return Case(onnx=None if source.onnx is None else source.onnx.read_bytes())


def _calibrated_onnx_case(source: Source, variant: Variant, calibration: np.ndarray) -> Case:
    return replace(_onnx_case(source, variant, calibration), calibration=calibration[..., np.newaxis])


def _keras_case(source: Source, variant: Variant, calibration: np.ndarray) -> Case:
    calibrated = variant.settings["mode"] in _CALIBRATED
    return Case(keras_model=_keras_model(source), calibration=calibration if calibrated else None)


def _exact(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:  # noqa: ARG001 - a Route's form
    from bridge.exact import record
    from bridge.exact.convert import Options, convert

    assert source.onnx is not None  # noqa: S101 - the planner only queues exports that exist
    as_convolution = variant.settings.get("dense") == "conv"
    conversion = convert(source.onnx, Options(per_channel_dense="CONV_2D" if as_convolution else "FULLY_CONNECTED"))
    print(*record.lines(conversion), *record.warnings(conversion), sep="\n")  # noqa: T201 - captured as the log
    return conversion.tflite


def _through_fake_quant(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:  # noqa: ARG001 - a Route's form
    from bridge import via_fake_quant

    assert source.onnx is not None  # noqa: S101 - the planner only queues exports that exist
    conversion = via_fake_quant.convert(source.onnx)
    for note in conversion.notes:
        print(f"{CONTROL_NOTE}{note}")  # noqa: T201 - captured as the log
    return conversion.tflite


def _through_onnx2tf(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:
    from bridge import via_onnx2tf

    assert source.onnx is not None  # noqa: S101 - the planner only queues exports that exist
    with tempfile.TemporaryDirectory() as work:
        quantized = variant.settings.get("mode") != "none"
        return via_onnx2tf.convert(source.onnx, "input", calibration[..., np.newaxis], Path(work), quantized=quantized)


_keras_models: dict[str, Any] = {}
"""Networks this worker process has built already: all conversions of one follow each other."""


def _keras_model(source: Source) -> Any:
    if source.spec.id not in _keras_models:
        _keras_models[source.spec.id] = build_keras(source.spec, source.settings, source.arrays)
    return _keras_models[source.spec.id]


_CALIBRATED = ("full-integer", "integer-only")
"""The modes that take calibration data."""


def _keras_native(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:
    from bridge import via_tflite_converter

    mode = variant.settings["mode"]
    representative = calibration if mode in _CALIBRATED else None
    return via_tflite_converter.convert(
        _keras_model(source), mode, variant.settings["entry"], representative=representative
    )


_QCONFIGS = ("fbgemm", "x86", "qnnpack", "symmetric", "symmetric-per-channel")

_ENGINE_QCONFIGS = ("fbgemm", "x86", "qnnpack")
_EXACT_QCONFIGS = (*_QCONFIGS, "tflite", "tflite_per_tensor")

_KERAS_VARIANTS = tuple(
    Variant(f"keras/{network}", "keras", {"mode": mode, "entry": entry})
    for network in ("baseline", "qat", "qat-dense")
    for mode in MODES
    for entry in ENTRIES
) + tuple(
    Variant("keras/baseline", "keras", {"mode": "integer-only", "entry": "concrete", "calibration": calibration})
    for calibration in CALIBRATIONS[1:]
)

ROUTES = (
    Route(
        name="torch-exact",
        about="QDQ ONNX straight to .tflite by our own bridge, every trained scale kept",
        lane="torch",
        extra="torch",
        modules=("torch",),
        variants=(
            *(Variant(f"torch/qat-{name}", "qdq") for name in _EXACT_QCONFIGS),
            Variant("torch/qat-tflite", "qdq", {"dense": "conv"}),
        ),
        convert=_exact,
        case=_onnx_case,
    ),
    Route(
        name="torch-int8-exact",
        about="PyTorch's converted int8 model as ONNX, straight to .tflite by our own bridge",
        lane="torch",
        extra="torch",
        modules=("torch",),
        variants=(
            *(Variant(f"torch/qat-{name}", "int8") for name in _ENGINE_QCONFIGS),
            Variant("torch/ptq-x86", "int8"),
        ),
        convert=_exact,
        case=_onnx_case,
    ),
    Route(
        name="torch-fake-quant",
        about="QDQ ONNX rebuilt with TensorFlow's fake-quant operators, written by its converter: the control",
        lane="keras",
        extra="torch,keras",
        modules=("torch", "tensorflow"),
        variants=tuple(Variant(f"torch/qat-{name}", "qdq") for name in _EXACT_QCONFIGS),
        convert=_through_fake_quant,
        case=_onnx_case,
        controls="torch-exact",
    ),
    Route(
        name="torch-onnx2tf",
        about="QDQ ONNX through onnx2tf and TensorFlow's converter",
        lane="onnx2tf",
        extra="torch,onnx2tf",
        modules=("torch", "onnx2tf"),
        variants=(
            Variant("torch/float", "float"),
            Variant("torch/float", "float", {"mode": "none"}),
            *(Variant(f"torch/qat-{name}", "qdq") for name in _QCONFIGS),
        ),
        convert=_through_onnx2tf,
        case=_calibrated_onnx_case,
    ),
    Route(
        name="torch-int8-onnx2tf",
        about="PyTorch's converted int8 model as ONNX, through onnx2tf and TensorFlow's converter",
        lane="onnx2tf",
        extra="torch,onnx2tf",
        modules=("torch", "onnx2tf"),
        variants=(*(Variant(f"torch/qat-{name}", "int8") for name in _QCONFIGS), Variant("torch/ptq-x86", "int8")),
        convert=_through_onnx2tf,
        case=_calibrated_onnx_case,
    ),
    Route(
        name="keras-native",
        about="TensorFlow's own converter, every post-training mode",
        lane="keras",
        extra="keras",
        modules=("tensorflow", "tf_keras", "tensorflow_model_optimization"),
        variants=_KERAS_VARIANTS,
        convert=_keras_native,
        case=_keras_case,
    ),
)
