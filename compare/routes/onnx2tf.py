"""ONNX through onnx2tf and TensorFlow's converter, which estimates scales again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from compare.routes.model import Here, Job, Route, Source, Variant
from compare.routes.onnx_cases import QCONFIGS, calibrated_onnx_case


def _through_onnx2tf(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:
    from bridge import via_onnx2tf

    assert source.onnx is not None  # noqa: S101 - the planner only queues exports that exist
    with tempfile.TemporaryDirectory() as work:
        quantized = variant.settings.get("mode") != "none"
        return via_onnx2tf.convert(source.onnx, "input", calibration[..., np.newaxis], Path(work), quantized=quantized)


def _here(*variants: Variant) -> Here:
    return Here("onnx2tf", "torch,onnx2tf", ("torch", "onnx2tf"), variants, _through_onnx2tf, calibrated_onnx_case)


_JOB = Job("onnx2tf", "onnx2tf", {"mode": "int8"}, "nhwc")

ROUTES = (
    Route(
        name="torch-onnx2tf",
        about="QDQ ONNX through onnx2tf and TensorFlow's converter",
        form="qdq",
        job=_JOB,
        here=_here(
            Variant("torch/float", "float"),
            Variant("torch/float", "float", {"mode": "none"}),
            *(Variant(f"torch/qat-{name}", "qdq") for name in QCONFIGS),
        ),
    ),
    Route(
        name="torch-int8-onnx2tf",
        about="PyTorch's converted int8 model as ONNX, through onnx2tf and TensorFlow's converter",
        form="int8",
        job=_JOB,
        here=_here(*(Variant(f"torch/qat-{name}", "int8") for name in QCONFIGS), Variant("torch/ptq-x86", "int8")),
    ),
    Route("torch-float-onnx2tf", "Float ONNX, quantized after training, through onnx2tf", "float", _JOB),
    Route(
        name="torch-dynamo-onnx2tf",
        about="Float ONNX of PyTorch's default exporter, quantized after training, through onnx2tf",
        form="dynamo",
        job=_JOB,
    ),
)
