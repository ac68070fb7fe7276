"""M44: onnx2tf takes an int32 bias for an NCHW shape and moves its second entry to the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.arithmetic import INT32, quantize_bias
from bridge.exact.graph import Tensor
from compare.mismatches.m13_scales_estimated_again import measure
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten
from compare.mismatches.parts.models import conv_relu, samples, through_onnx2tf
from compare.mismatches.parts.weighted_pairs import weighted_pairs
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """A bias must stand in the .tflite in the order it has in the ONNX model."""
    for name, bias in _reordered(case):
        yield Sighting(
            where=f"bias of '{name}'",
            fact=f"the entries of '{bias.name}' stand in the order 0, 2, 3, ..., n-1, 1",
            remedy="Do not feed a converted int8 model to onnx2tf 1.x; convert it with python -m bridge.",
        )


def _reordered(case: Case) -> Iterator[tuple[str, Tensor]]:
    """(ONNX operator, bias of the .tflite) wherever the bias came out in the order of an NCHW shape made NHWC.

    A bias that is in order, or fits in no way, is not named.
    """
    for graph, ours, theirs in weighted_pairs(case):
        assert case.file is not None  # noqa: S101 - there are pairs
        trained, bias = graph.operand(ours, 2), case.file.graph.operand(theirs, 2)
        if trained is None or bias is None or not trained.is_constant or not bias.is_constant:
            continue
        real = bias.qparams is not None or bias.dtype == np.float32
        if real and bias.shape == trained.shape and _is_reordered(trained.real, bias.real):
            yield ours.name, bias


def _is_reordered(trained: np.ndarray, found: np.ndarray) -> bool:
    """Half a percent of the largest entry is more than an int32 bias loses by being quantized twice."""
    tolerance = 0.005 * float(np.abs(trained).max(initial=0.0))
    as_a_shape = np.concatenate([trained[:1], trained[2:], trained[1:2]])
    in_order = bool(np.abs(found - trained).max(initial=0.0) <= tolerance)
    return not in_order and bool(np.abs(found - as_a_shape).max(initial=0.0) <= tolerance)


def reproduce() -> Case:
    """One convolution with its bias behind DequantizeLinear, as a converted PyTorch model has it, through onnx2tf."""
    content = conv_relu(int32_bias=True)
    return Case(onnx=content, tflite=through_onnx2tf(content), inputs={"x": samples()})


def repair(case: Case) -> Case:
    """Move the last entry back to the second place; a bias with a scale for each channel is quantized there again."""
    return rewritten(case, {bias.name: _in_order(bias) for _, bias in _reordered(case)})


def _in_order(bias: Tensor) -> Tensor:
    real = np.concatenate([bias.real[:1], bias.real[-1:], bias.real[1:-1]])
    if bias.qparams is None:
        return replace(bias, data=real)
    codes = quantize_bias(real, bias.q.scale)
    return replace(bias, data=np.clip(codes, INT32.min, INT32.max).astype(bias.dtype))


MISMATCH = Mismatch(
    id="M44",
    name="int32 biases in another order",
    side="onnx2tf",
    severity="fault",
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
