"""M13: the scales that training decided are thrown away and estimated again from calibration data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import load_from_string

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.exact.graph import QParams
from bridge.exact.passes.fold import fold
from bridge.exact.passes.qdq import attach
from bridge.exact.reader import from_model
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten
from compare.mismatches.parts.models import conv_relu, largest_difference, samples, through_onnx2tf
from compare.mismatches.parts.trained_scales import with_trained_scales
from compare.subjects.case import Case


def trained_activations(case: Case) -> dict[str, QParams]:
    """Scale and zero point (as int8) of every activation that the ONNX model quantizes, by tensor name."""
    if case.onnx is None:
        return {}
    try:
        graph = attach(fold(from_model(load_from_string(case.onnx))))  # the reader may change the model
    except BridgeError:
        return {}  # not a model the bridge reads: other entries look at the nodes themselves
    return {
        name: tensor.qparams
        for name, tensor in graph.tensors.items()
        if tensor.qparams is not None and not tensor.is_constant
    }


def detect(case: Case) -> Iterator[Sighting]:
    """Every trained activation scale must stand somewhere in an int8 .tflite made from the model."""
    if case.file is None or case.onnx is None:
        return
    written = [
        (float(tensor.qparams.scale), int(tensor.qparams.zero_point) - (128 if tensor.dtype == np.uint8 else 0))
        for tensor in case.file.graph.tensors.values()
        if tensor.qparams is not None and tensor.qparams.axis is None and not tensor.is_constant
    ]
    if not written:
        return  # nothing is int8: that is another entry's business
    for name, qparams in trained_activations(case).items():
        scale = float(qparams.scale)
        if not any(abs(found / scale - 1) < 1e-6 for found, _ in written):
            nearest, zero_point = min(written, key=lambda pair: abs(np.log(pair[0] / scale)))
            yield Sighting(
                where=f"tensor '{name}'",
                fact=f"training decided {qparams}; nothing in the file has this scale, the nearest is "
                f"{nearest:.8g} with zero point {zero_point}",
                remedy="Convert with python -m bridge, which writes trained scales unchanged.",
            )


def reproduce() -> Case:
    """One trained convolution through onnx2tf: TensorFlow's converter calibrates it as if nobody had trained it."""
    content = conv_relu()
    return Case(onnx=content, tflite=through_onnx2tf(content), inputs={"x": samples()})


def repair(case: Case) -> Case:
    """Put the trained scales back into the file; the numbers that weights and biases stand for stay."""
    assert case.onnx_model is not None  # noqa: S101 - the catalogue repairs what detect has seen
    assert case.file is not None  # noqa: S101
    graph = case.file.graph
    scaled = with_trained_scales(graph, convert(case.onnx_model).graph)
    return rewritten(case, {name: new for name, new in scaled.tensors.items() if new is not graph.tensors[name]})


def measure(broken: Case, repaired: Case) -> float:
    """How many LSB further from ONNX Runtime the broken file is than the repaired one."""
    assert broken.onnx is not None  # noqa: S101 - a measure knows its own reproduction
    assert broken.tflite is not None  # noqa: S101
    assert repaired.tflite is not None  # noqa: S101
    return largest_difference(broken.tflite, broken.onnx) - largest_difference(repaired.tflite, broken.onnx)


MISMATCH = Mismatch(
    id="M13",
    name="trained scales thrown away and estimated again",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 1.29.24 with TensorFlow 2.19.0",
    source="onnx2tf#680, #582, #697 (ops/QuantizeLinear.py, bypass of fake-quant pairs); onnx-tensorflow#1082",
    cause="onnx2tf 1.x drops every QuantizeLinear/DequantizeLinear pair, and with it scale and clipping. "
    "TensorFlow's converter then estimates ranges from calibration data.",
    way_out="Write the trained scales into the file: python -m bridge, or the control bridge through FakeQuant.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from ONNX Runtime (LSB)", 0.5),
    requantizes=True,
)
