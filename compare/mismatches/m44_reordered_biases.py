"""M44: onnx2tf takes an int32 bias for an NCHW shape and moves its second entry to the end."""

from __future__ import annotations

import io
from collections.abc import Iterator

from compare.causes import reordered_biases
from compare.mismatches.m13_scales_estimated_again import measure, repair
from compare.mismatches.model import Case, Effect, Mismatch, Sighting
from compare.mismatches.models import conv_relu, samples, through_onnx2tf


def detect(case: Case) -> Iterator[Sighting]:
    """A bias must stand in the .tflite in the order it has in the ONNX model."""
    if case.onnx is None or case.tflite is None:
        return
    for name in reordered_biases(io.BytesIO(case.onnx), case.tflite):
        yield Sighting(
            where=f"bias of '{name}'",
            fact="its entries stand in the order 0, 2, 3, ..., n-1, 1",
            remedy="Do not feed a converted int8 model to onnx2tf 1.x; convert it with python -m bridge.",
        )


def reproduce() -> Case:
    """One convolution with its bias behind DequantizeLinear, as a converted PyTorch model has it, through onnx2tf."""
    content = conv_relu(int32_bias=True)
    return Case(onnx=content, tflite=through_onnx2tf(content), inputs={"x": samples()})


MISMATCH = Mismatch(
    id="M44",
    name="int32 biases in another order",
    side="onnx2tf",
    versions="onnx2tf 1.29.24",
    source="found here: eleven points lost on MNIST with PyTorch's converted int8 model; no thread found",
    cause="onnx2tf 1.x takes the int32 vector behind a DequantizeLinear for a shape in NCHW order and moves its second "
    "entry, the channel of a shape, to the end. Every channel but the first gets another channel's bias, silently.",
    way_out="Export the frozen fake-quant model with a float bias for onnx2tf, or convert with python -m bridge.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from ONNX Runtime (LSB)", 10.0),
    brings=("M13",),
)
