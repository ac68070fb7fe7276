"""PyTorch programs through litert-torch, Google's own way."""

from __future__ import annotations

from compare.routes.model import Job, Route

ROUTES = (
    Route(
        name="torch-litert",
        about="PyTorch program, quantized after training by PT2E, through litert-torch",
        form="torch",
        job=Job("litert-torch", "litert-torch", {"mode": "ptq"}, "onnx"),
    ),
    Route(
        name="torch-litert-qat",
        about="PyTorch program, prepared for QAT by PT2E, through litert-torch",
        form="torch",
        job=Job("litert-torch", "litert-torch", {"mode": "qat"}, "onnx"),
    ),
)
