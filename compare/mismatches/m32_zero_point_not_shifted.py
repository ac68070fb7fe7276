"""M32: a uint8 zero point written into an int8 file without taking 128 off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Tensor, per_tensor
from compare.mismatches.m13_scales_estimated_again import measure, trained_activations
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten
from compare.mismatches.parts.models import conv_relu, samples, through_exact
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """An int8 tensor with a trained scale must have the trained zero point, 128 below the uint8 one."""
    if case.file is None or case.onnx is None:
        return
    tensors = case.file.graph.tensors.values()
    held = [
        tensor
        for tensor in tensors
        if tensor.qparams is not None and tensor.dtype == np.int8 and not tensor.is_constant
    ]
    for name, trained in trained_activations(case).items():
        if trained.qmax - trained.qmin < 255:
            continue  # 7-bit codes fit int8 as they are
        alike = [t for t in held if t.q.scale.ndim == 0 and abs(float(t.q.scale) / float(trained.scale) - 1) < 1e-6]
        right = [t for t in alike if int(t.q.zero_point) == int(trained.zero_point)]
        shifted = [t for t in alike if int(t.q.zero_point) == int(trained.zero_point) + 128]
        if shifted and not right:
            yield Sighting(
                where=f"tensor '{shifted[0].name}'",
                fact=f"zero point {int(shifted[0].q.zero_point)} where '{name}' was trained with "
                f"{int(trained.zero_point)} (as int8): 128 too high",
                remedy="Take 128 off the zero point and off every code; the scale stays.",
            )


def reproduce() -> Case:
    """A right conversion whose int8 tensors were given the uint8 zero points."""
    content = conv_relu()
    right = Case(onnx=content, tflite=through_exact(content), inputs={"x": samples()})
    assert right.file is not None  # noqa: S101 - it was just written
    return rewritten(right, dict(_moved(right, 128)))


def _moved(case: Case, by: int) -> Iterator[tuple[str, Tensor]]:
    assert case.file is not None  # noqa: S101 - the callers have looked
    for name, tensor in case.file.graph.tensors.items():
        if tensor.dtype == np.int8 and not tensor.is_constant:
            yield name, replace(tensor, qparams=per_tensor(tensor.q.scale, int(tensor.q.zero_point) + by))


def repair(case: Case) -> Case:
    """Take 128 off the zero points again."""
    return rewritten(case, dict(_moved(case, -128)))


MISMATCH = Mismatch(
    id="M32",
    name="uint8 zero point in an int8 file",
    side="ONNX",
    severity="fault",
    versions="any converter of uint8 activations",
    source="TFLite 8-bit quantization specification; TinyNN FAQ (subtract 128)",
    cause="PyTorch and ONNX quantize activations to uint8, TFLite to int8: code and zero point are 128 lower there. "
    "A zero point that is copied without the shift moves every value by 128 steps.",
    way_out="Shift code and zero point together; leave the scale.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from ONNX Runtime (LSB)", 20.0),
    brings=("M50",),  # the input itself is shifted, too
)
