"""M47: per-channel Q/DQ in an ONNX opset that does not have it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from bridge.errors import BridgeError
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.models import CHANNELS, conv_relu
from compare.subjects.case import Case

FIRST_OPSET = 13
"""QuantizeLinear-13 and DequantizeLinear-13 brought the attribute axis (ONNX operator changelog)."""


def _opset(model: onnx.ModelProto) -> int:
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)


def _per_channel(model: onnx.ModelProto) -> Iterator[str]:
    """Names of the scales of per-channel Q/DQ nodes."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and sizes.get(node.input[1], 1) > 1:
            yield node.input[1]


def detect(case: Case) -> Iterator[Sighting]:
    """Q/DQ with one scale per channel needs opset 13."""
    if case.onnx_model is None or _opset(case.onnx_model) >= FIRST_OPSET:
        return
    for name in dict.fromkeys(_per_channel(case.onnx_model)):
        yield Sighting(
            where=f"scale '{name}'",
            fact=f"has one entry per channel, and the model is of opset {_opset(case.onnx_model)}",
            remedy="Export again with opset_version=17.",
        )


def _per_channel_model() -> onnx.ModelProto:
    model = onnx.load_from_string(conv_relu())
    for tensor in model.graph.initializer:
        if tensor.name == "sw":
            tensor.CopyFrom(numpy_helper.from_array(np.linspace(0.002, 0.005, CHANNELS).astype(np.float32), "sw"))
        if tensor.name == "zw":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(CHANNELS, np.int8), "zw"))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", 0))
    return model


def reproduce() -> Case:
    """A convolution with per-channel weights whose file says opset 12."""
    model = _per_channel_model()
    model.opset_import[0].version = 12
    return Case(onnx=model.SerializeToString())


def repair(case: Case) -> Case:
    """Say the opset that these nodes are of; nothing else in them changed between 12 and 13."""
    assert case.onnx is not None  # noqa: S101 - the catalogue repairs what detect has seen
    model = onnx.load_from_string(case.onnx)
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = max(item.version, FIRST_OPSET)
    return replace(case, onnx=model.SerializeToString())


def measure(broken: Case, repaired: Case) -> float:
    """Conversions that are refused."""

    def refused(case: Case) -> int:
        from bridge.exact.convert import convert

        try:
            convert(onnx.load(io.BytesIO(case.onnx or b"")))
        except BridgeError:
            return 1
        return 0

    return float(refused(broken) - refused(repaired))


MISMATCH = Mismatch(
    id="M47",
    name="opset too old for per-channel Q/DQ",
    side="ONNX",
    severity="fault",
    versions="opsets 10 to 12",
    source="ONNX operator changelog, DequantizeLinear-13; pytorch PR#52430",
    cause="QuantizeLinear and DequantizeLinear have one scale per tensor until opset 12. A file that holds per-channel "
    "scales under an older opset is refused, or read as if they belonged to another axis.",
    way_out="Export with opset 13 or later.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("conversions that are refused", 1.0),
)
