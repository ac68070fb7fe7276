"""M55: an int32 bias that is not at input scale * weight scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import bias_scale, quantize_bias
from bridge.exact.graph import Graph, Node, QParams, Tensor
from compare.mismatches.m04_weights_at_minus_128 import weights
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, codes, rewritten, share_that_differs, tflite_of
from compare.subjects.case import Case

_TOLERANCE = 1e-5
"""Relative: one scale is a float32 product, the other may have been rounded on the way."""


def _biased(graph: Graph) -> Iterator[tuple[Node, Tensor, np.ndarray]]:
    """Every int32 bias that says its scale, and the scale it should have."""
    for node, weight in weights(graph):
        place = 3 if node.op == "TRANSPOSE_CONV" else 2
        source = graph.tensors[node.inputs[2 if node.op == "TRANSPOSE_CONV" else 0]]
        if (
            len(node.inputs) > place
            and node.inputs[place]
            and source.qparams is not None
            and weight.qparams is not None
        ):
            bias = graph.tensors[node.inputs[place]]
            if bias.is_constant and bias.dtype == np.int32 and bias.qparams is not None:
                yield node, bias, bias_scale(source.qparams.scale, weight.qparams.scale)


def _ratio(bias: Tensor, wanted: np.ndarray) -> float:
    """The worst factor between the bias's own scale and the wanted one."""
    ratios = np.broadcast_to(bias.q.scale, bias.shape) / np.broadcast_to(wanted, bias.shape)
    return float(ratios.flat[np.abs(np.log(ratios)).argmax()])


def detect(case: Case) -> Iterator[Sighting]:
    """A bias scale must be input scale * weight scale (TFLite 8-bit quantization specification)."""
    if case.file is None:
        return
    for node, bias, wanted in _biased(case.file.graph):
        ratio = _ratio(bias, wanted)
        if abs(ratio - 1) > _TOLERANCE:
            yield Sighting(
                where=f"{node.op}, bias '{bias.name}'",
                fact=f"its scale is {ratio:.6g} times input scale x weight scale; kernels add its codes as they are",
                remedy="Quantize the bias again at input scale x weight scale; python -m bridge does.",
            )


def reproduce() -> Case:
    """A dense layer whose bias was quantized at twice the scale: the kernel adds half of it."""
    x, y = activation("x", (1, 8), 0.05), activation("y", (1, 4), 0.15)
    values = np.random.default_rng(0).integers(-100, 101, (4, 8)).astype(np.int8)
    bias = codes("b", [4000, -4000, 2000, -3000], 2 * 0.05 * 0.01, dtype=np.int32)
    dense = Node("FULLY_CONNECTED", "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([dense], [x, codes("w", values, 0.01), bias, y], ["x"], ["y"]))


def repair(case: Case) -> Case:
    """Keep the real value that the file says the bias has, in codes of the right scale."""
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    mended = {}
    for _, bias, wanted in _biased(case.file.graph):
        if abs(_ratio(bias, wanted) - 1) > _TOLERANCE:
            if not (wanted > 0).all():
                raise BridgeError(
                    where=f"bias '{bias.name}'",
                    problem="cannot be quantized again: input scale x weight scale is 0 in float32",
                    remedy="Train or calibrate again with an observer that saw data.",
                )
            axis = 0 if wanted.ndim else None
            data = quantize_bias(bias.real, wanted).astype(np.int32)
            mended[bias.name] = replace(
                bias, data=data, qparams=QParams(wanted, np.zeros(wanted.shape, np.int32), axis)
            )
    return rewritten(case, mended)


MISMATCH = Mismatch(
    id="M55",
    name="bias not at input scale x weight scale",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0",
    source="TFLite 8-bit quantization specification; measured: the runtime checks nothing",
    cause="Kernels add the int32 bias to the accumulator as it is. A file whose bias has another scale is loaded "
    "without a word, and its biases are wrong by that factor.",
    way_out="Quantize biases at input scale x weight scale.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("output codes that differ (share)", 0.8),
)
