"""Float ONNX, quantized after training by ONNX Runtime's static quantizer, then our own bridge."""

from __future__ import annotations

from compare.routes.model import Job, Route

_JOB = Job("ort-quantize", "ort-quantize", layout="onnx", bridged=True)

ROUTES = (
    Route("torch-ort-exact", "Float ONNX, quantized by ONNX Runtime, by the exact bridge", "float", _JOB),
    Route(
        name="torch-dynamo-ort-exact",
        about="Float ONNX of PyTorch's default exporter, quantized by ONNX Runtime, by the exact bridge",
        form="dynamo",
        job=_JOB,
    ),
)
