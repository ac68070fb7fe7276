"""M76: onnx2tf takes per-channel weight scales for an NCHW shape and moves the second one to the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import INT32, bias_scale, quantize_bias
from bridge.exact.graph import Node, QParams, Tensor
from compare.mismatches.m13_scales_estimated_again import measure
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten
from compare.mismatches.parts.models import conv_relu, samples, through_onnx2tf
from compare.mismatches.parts.weighted_pairs import weighted_pairs
from compare.subjects.case import Case

TOLERANCE = 0.01
"""Relative; what a weight loses by being quantized twice to 8 bits moves a whole channel's scale by less."""


@dataclass(frozen=True, eq=False)
class _Weight:
    """A weight of the .tflite, and by how much each of its channels is too large."""

    operator: str
    """Name of the ONNX operator."""
    node: Node
    tensor: Tensor
    factors: np.ndarray


def detect(case: Case) -> Iterator[Sighting]:
    """A channel's weights must be its codes times its own scale."""
    for weight in _reordered(case):
        low, high = weight.factors.min(), weight.factors.max()
        yield Sighting(
            where=f"weight of '{weight.operator}'",
            fact=f"the {weight.factors.size} channels of '{weight.tensor.name}' carry the scales in the order 0, 2, 3, "
            f"..., n-1, 1: their weights are {low:.3g} to {high:.3g} times what training made them",
            remedy="Do not feed a converted int8 model to onnx2tf 1.x; convert it with python -m bridge.",
        )


def _reordered(case: Case) -> Iterator[_Weight]:
    for graph, ours, theirs in weighted_pairs(case):
        assert case.file is not None  # noqa: S101 - there are pairs
        trained, found = graph.operand(ours, 1), case.file.graph.operand(theirs, 1)
        if trained is None or found is None or trained.data is None or found.data is None:
            continue
        if trained.qparams is None or trained.q.axis is None or found.qparams is None:
            continue
        channels = 3 if theirs.op == "DEPTHWISE_CONV_2D" else 0
        scales, carried = trained.q.scale, _carried(trained, np.moveaxis(found.real, channels, 0))
        as_a_shape = np.concatenate([scales[:1], scales[2:], scales[1:2]])
        if carried is not None and not _near(carried, scales) and _near(carried, as_a_shape):
            yield _Weight(ours.name, theirs, found, as_a_shape / scales)


def _carried(trained: Tensor, found: np.ndarray) -> np.ndarray | None:
    """The scale that each channel's numbers have in the file, by least squares against its codes; None if it fits none.

    Sorted first: a flatten may have moved the columns.
    """
    codes = np.moveaxis(trained.values, trained.q.axis or 0, 0).reshape(trained.q.scale.size, -1).astype(np.float64)
    real = found.reshape(len(found), -1).astype(np.float64)
    if codes.shape != real.shape or not codes.any(axis=1).all():
        return None
    codes, real = np.sort(codes, axis=1), np.sort(real, axis=1)
    scales: np.ndarray = (codes * real).sum(axis=1) / (codes**2).sum(axis=1)
    return scales


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((np.abs(one / other - 1) < TOLERANCE).all())


def reproduce() -> Case:
    """One convolution with int8 weights and a scale for each channel, as a converted PyTorch model has it."""
    content = conv_relu(per_channel=True)
    return Case(onnx=content, tflite=through_onnx2tf(content), inputs={"x": samples()})


def repair(case: Case) -> Case:
    """Scale each channel back; the codes stay, a bias keeps the numbers it stands for."""
    changed = {}
    for weight in _reordered(case):
        if weight.tensor.q.axis is None:
            raise BridgeError(
                where=f"weight '{weight.tensor.name}'",
                problem="has one scale for all channels: they cannot be scaled back one by one",
                remedy="Convert the ONNX model with python -m bridge.",
            )
        scale = (weight.tensor.q.scale / weight.factors).astype(np.float32)
        changed[weight.tensor.name] = replace(
            weight.tensor, qparams=QParams(scale, weight.tensor.q.zero_point, weight.tensor.q.axis)
        )
        changed.update(_bias(case, weight.node, scale))
    return rewritten(case, changed)


def _bias(case: Case, node: Node, weight_scale: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    assert case.file is not None  # noqa: S101 - the weight is from there
    bias, source = case.file.graph.operand(node, 2), case.file.graph.tensors[node.inputs[0]]
    if bias is not None and bias.data is not None and bias.qparams is not None:
        scale = bias_scale(source.q.scale, weight_scale)
        codes = np.clip(quantize_bias(bias.real, scale), INT32.min, INT32.max).astype(np.int32)
        yield bias.name, replace(bias, data=codes, qparams=QParams(scale, np.zeros(scale.shape, np.int32), 0))


MISMATCH = Mismatch(
    id="M76",
    name="per-channel weight scales in another order",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 1.29.24",
    source="found here: what was left unexplained of PyTorch's converted int8 model with per-channel weights; no thread found",
    cause="onnx2tf 1.x takes the vector of scales of a DequantizeLinear on weights for a shape in NCHW order and moves "
    "its second entry to the end. Every channel but the first is multiplied by another channel's scale, silently.",
    way_out="Export the frozen fake-quant model for onnx2tf (its weights are float), or convert with python -m bridge.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from ONNX Runtime (LSB)", 10.0),
    brings=("M13",),
)
