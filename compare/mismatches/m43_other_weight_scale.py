"""M43: convert() gives weights another scale than the one fused fake-quant trained with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import exported, qat_model
from compare.mismatches.parts.two_forms import SAME, apart, constants, converted, frozen_export, same, trained
from compare.subjects.case import Case

APART = 0.01
"""absmax / 127.5 and max(max / 127, -min / 128) are 0.4 % apart at most; beyond 1 % a scale belongs to another weight."""


def detect(case: Case) -> Iterator[Sighting]:
    """The weight scales in the ONNX file must be those that fake-quant trained with."""
    if case.torch_model is None or case.onnx_model is None:
        return
    weights = [each for each in trained(case.torch_model) if each.is_weight]
    written = list(_weight_scales(case.onnx_model)) if weights else []
    for each in weights:
        near = [scale for scale in written if scale.size == each.scale.size and _distance(scale, each.scale) < APART]
        if not near or any(same(scale, each.scale) for scale in near):
            continue
        change = min(near, key=lambda scale: _distance(scale, each.scale)) / each.scale - 1
        moved = np.flatnonzero((np.abs(change) > SAME) & (np.abs(change) < APART))
        if moved.size:
            first = int(moved[np.abs(change[moved]).argmax()])
            yield Sighting(
                where=f"'{each.path}'",
                fact=f"{moved.size} of {change.size} scales are not the trained ones; channel {first} trained with "
                f"{each.scale[first]:.7g}, the file has {change[first]:+.2%}",
                remedy="Export the frozen fake-quant model (bridge.convert does), or train with qconfig 'tflite'.",
            )


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Of two weights' scales, relative; the median, because channels of one sign are M42's."""
    return float(np.median(np.abs(one / other - 1)))


def _weight_scales(model: onnx.ModelProto) -> Iterator[np.ndarray]:
    """Scales of what is quantized and constant: int8 codes behind DequantizeLinear, or a float weight behind both."""
    known = constants(model)
    for node in model.graph.node:
        codes = (
            node.op_type == "DequantizeLinear"
            and node.input[0] in known
            and known[node.input[0]].data_type == onnx.TensorProto.INT8
        )
        floats = node.op_type == "QuantizeLinear" and node.input[0] in known
        if (codes or floats) and node.input[1] in known:
            yield numpy_helper.to_array(known[node.input[1]]).reshape(-1)


@cache
def _model() -> Any:
    return qat_model("qnnpack")


def reproduce() -> Case:
    """One convolution trained with qconfig 'qnnpack', converted and exported."""
    inputs = np.random.default_rng(0).uniform(0, 1, (128, 2, 6, 6)).astype(np.float32)
    return Case(torch_model=_model(), onnx=exported(converted(_model(), "qnnpack")), inputs={"input": inputs})


def repair(case: Case) -> Case:
    """Export the frozen fake-quant model: its weights keep the trained scale."""
    return replace(case, onnx=frozen_export(case))


def measure(broken: Case, repaired: Case) -> float:
    """Share of outputs that leave the fake-quant model's code, over the same share after the repair."""
    return float((apart(broken) > 0.5).mean() - (apart(repaired) > 0.5).mean())


MISMATCH = Mismatch(
    id="M43",
    name="another weight scale after convert()",
    side="PyTorch",
    severity="fault",
    versions="torch 2.13, every qconfig with fused fake-quant on weights",
    source="found here; aten/src/ATen/native/quantized/cpu/QuantUtils.h, ChooseQuantizationParams, against "
    "torch/ao/quantization/observer.py, _calculate_qparams",
    cause="The fused fake-quant trains with max(max / 127, -min / 128). convert() asks the observer instead, which says "
    "absmax / 127.5. The scales are up to 0.4 % apart, weight codes move by one, and the model that was validated is not "
    "the one that is converted.",
    way_out="Export the frozen fake-quant model, or train with plain FakeQuantize on weights (qconfig 'tflite'), where both agree.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("outputs that leave the fake-quant model's code (share)", 0.24),
)
