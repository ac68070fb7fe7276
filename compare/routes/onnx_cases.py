"""What a team that starts from an ONNX file has in its hands, for routes of any family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compare.routes.model import Source, Variant
from compare.subjects.case import Case

QCONFIGS = ("fbgemm", "x86", "qnnpack", "symmetric", "symmetric-per-channel")
ENGINE_QCONFIGS = ("fbgemm", "x86", "qnnpack")
"""Those that an int8 engine of PyTorch runs."""
EXACT_QCONFIGS = (*QCONFIGS, "tflite", "tflite_per_tensor")


def onnx_case(source: Source, variant: Variant, calibration: np.ndarray) -> Case:  # noqa: ARG001 - Here's form
    """The ONNX file alone."""
    return Case(onnx=None if source.onnx is None else source.onnx.read_bytes())


def calibrated_onnx_case(source: Source, variant: Variant, calibration: np.ndarray) -> Case:
    """The ONNX file and what a converter calibrated with."""
    return replace(onnx_case(source, variant, calibration), calibration=calibration[..., np.newaxis])
