"""What a team has in its hands: models, a .tflite, samples, versions, what a tool said. Records only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from onnx import ModelProto, load_from_string

from compare.tflite.graph import OpenedTflite, open_tflite


@dataclass(frozen=True, eq=False)
class Case:
    """What a team has in its hands; None (or empty) where it does not have it.

    A detector looks at what is there and is silent about the rest.
    """

    torch_model: Any = None
    """An eager torch.nn.Module: prepared for QAT, or converted."""
    keras_model: Any = None
    """A tf_keras model, quantized by TF-MOT or not."""
    onnx: bytes | None = None
    tflite: bytes | None = None
    inputs: Mapping[str, np.ndarray] | None = None
    """float32 samples by ONNX input name, laid out as in the ONNX file, samples along axis 0; for a case without an
    ONNX file under the .tflite's own input names."""
    calibration: np.ndarray | None = None
    """float32 samples that a converter calibrated with, samples along axis 0."""
    packages: Mapping[str, str] | None = None
    """Installed versions by package name."""
    saturating_runtime: bool = False
    """Whether optimized ONNX Runtime saturates on the processor at hand (`bridge.verifying.onnx_runtime.saturates`)."""
    log: str = ""
    """What a tool said, its error included."""

    @cached_property
    def onnx_model(self) -> ModelProto | None:
        return None if self.onnx is None else load_from_string(self.onnx)

    @cached_property
    def file(self) -> OpenedTflite | None:
        """The .tflite, opened."""
        return None if self.tflite is None else open_tflite(self.tflite)
