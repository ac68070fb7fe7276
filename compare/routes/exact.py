"""Our own bridge: every trained scale kept, from ONNX or from an exported program."""

from __future__ import annotations

import numpy as np

from compare.routes.model import Here, Job, Route, Source, Variant
from compare.routes.onnx_cases import ENGINE_QCONFIGS, EXACT_QCONFIGS, onnx_case


def _exact(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:  # noqa: ARG001 - Here's form
    from bridge.exact import record
    from bridge.exact.convert import Options, convert

    assert source.onnx is not None  # noqa: S101 - the planner only queues exports that exist
    as_convolution = variant.settings.get("dense") == "conv"
    conversion = convert(source.onnx, Options(per_channel_dense="CONV_2D" if as_convolution else "FULLY_CONNECTED"))
    print(*record.lines(conversion), *record.warnings(conversion), sep="\n")  # noqa: T201 - captured as the log
    return conversion.tflite


def _here(*variants: Variant) -> Here:
    return Here("torch", "torch", ("torch",), variants, _exact, onnx_case)


ROUTES = (
    Route(
        name="torch-exact",
        about="QDQ ONNX straight to .tflite by our own bridge, every trained scale kept",
        form="qdq",
        job=Job("exact", "exact"),
        here=_here(
            *(Variant(f"torch/qat-{name}", "qdq") for name in EXACT_QCONFIGS),
            Variant("torch/qat-tflite", "qdq", {"dense": "conv"}),
        ),
    ),
    Route(
        name="torch-int8-exact",
        about="PyTorch's converted int8 model as ONNX, straight to .tflite by our own bridge",
        form="int8",
        job=Job("exact", "exact"),
        here=_here(
            *(Variant(f"torch/qat-{name}", "int8") for name in ENGINE_QCONFIGS), Variant("torch/ptq-x86", "int8")
        ),
    ),
    Route(
        name="torch-program-exact",
        about="Exported program of PT2E straight to .tflite by our own bridge",
        form="program",
        job=Job("exact", "exact-program"),
    ),
)
