"""The control: the same network rebuilt with TensorFlow's fake-quant operators, written by TensorFlow's own converter."""

from __future__ import annotations

import numpy as np

from compare.routes.model import Here, Job, Route, Source, Variant
from compare.routes.onnx_cases import EXACT_QCONFIGS, onnx_case

CONTROL_NOTE = "note: "
"""How a line of a converter's log begins that says what it could not keep."""


def _through_fake_quant(source: Source, variant: Variant, calibration: np.ndarray) -> bytes:  # noqa: ARG001 - Here's form
    from bridge import via_fake_quant

    assert source.onnx is not None  # noqa: S101 - the planner only queues exports that exist
    conversion = via_fake_quant.convert(source.onnx)
    for note in conversion.notes:
        print(f"{CONTROL_NOTE}{note}")  # noqa: T201 - captured as the log
    return conversion.tflite


ROUTES = (
    Route(
        name="torch-fake-quant",
        about="QDQ ONNX rebuilt with TensorFlow's fake-quant operators, written by its converter: the control",
        form="qdq",
        job=Job("fake-quant", "fake-quant"),
        here=Here(
            lane="keras",
            extra="torch,keras",
            modules=("torch", "tensorflow"),
            variants=tuple(Variant(f"torch/qat-{name}", "qdq") for name in EXACT_QCONFIGS),
            convert=_through_fake_quant,
            case=onnx_case,
        ),
        controls="torch-exact",
    ),
)
