"""M45: a Clip between QuantizeLinear and DequantizeLinear makes onnx2tf dequantize twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compare.mismatches.m13_scales_estimated_again import measure
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.clipped_pairs import clips, with_real_clips
from compare.mismatches.parts.models import calibration_of, conv_relu, samples, through_onnx2tf
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """A pair with a Clip in between must not come out as ROUND and multiplications on real numbers."""
    if case.onnx_model is None or case.file is None:
        return
    rounds = [node for node in case.file.graph.nodes if node.op == "ROUND"]
    pairs = len(list(clips(case.onnx_model))) if rounds else 0
    if pairs:
        yield Sighting(
            where=f"{len(rounds)} ROUND operators of the .tflite",
            fact=f"{pairs} Q/DQ pairs of the model have a Clip in between, and the file rounds in float",
            remedy="Train without reduce_range, or convert with python -m bridge, which keeps the clamp.",
        )


def reproduce() -> Case:
    """One convolution trained with `reduce_range` through onnx2tf."""
    content = conv_relu(seven_bit=True)
    return Case(onnx=content, tflite=through_onnx2tf(content), inputs={"x": samples()})


def repair(case: Case) -> Case:
    """Convert again, by onnx2tf and with the same calibration data, the same model with its clips behind the pairs."""
    assert case.onnx_model is not None  # noqa: S101 - the catalogue repairs what detect has seen
    content = with_real_clips(case.onnx_model).SerializeToString()
    return replace(case, tflite=through_onnx2tf(content, calibration_of(case)))


MISMATCH = Mismatch(
    id="M45",
    name="Q/DQ pairs with a Clip dequantized twice",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 1.29.24",
    source="found here; onnx2tf ops/QuantizeLinear.py ends with a multiplication by the scale",
    cause="onnx2tf 1.x drops a Q/DQ pair only when nothing but a Cast stands in between. Otherwise its QuantizeLinear "
    "returns real values already, the Clip limits those, and DequantizeLinear scales them once more.",
    way_out="Use a qconfig without reduce_range ('qnnpack', 'tflite'), or convert with python -m bridge.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from ONNX Runtime (LSB)", 10.0),
    brings=("M01", "M13", "M50"),  # the samples reach twice as far as seven bits
)
