"""M17: Q/DQ pairs are written out as float arithmetic, which the converter then quantizes once more."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from onnx import load_from_string, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node
from compare.mismatches.m13_scales_estimated_again import measure
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.clipped_pairs import clips
from compare.mismatches.parts.models import conv_relu, samples, through_exact
from compare.mismatches.parts.two_forms import constants
from compare.subjects.case import Case

REFUSAL = re.compile(
    r"StrictFullIntegerQuantizationError: Unsupported op for strict full integer quantization: "
    r"index=\d+ op_type=(?:ROUND|QUANTIZE)"
)
"""onnx2tf 2.6.9, tflite_builder/quantization.py, asked for a full-integer file of a QDQ model."""
REMEDY = (
    "Convert with python -m bridge, or with onnx2tf 1.29, which drops the pairs and estimates the scales again (M13)."
)

TOLERANCE = 0.01
"""Relative; a scale in a constant that was quantized to 8 bits is exact at the constant's own value."""
BETWEEN = ("QUANTIZE", "DEQUANTIZE", "ADD", "SUB", "MAXIMUM", "MINIMUM")
"""What may stand between ROUND and the multiplication by the scale: the zero point, the clamp, changes of type."""


@dataclass(frozen=True)
class _Rounding:
    """A ROUND and the scale that numbers are divided by before it, and multiplied by after it; one may be missing."""

    divided: float | None
    multiplied: float | None

    @property
    def is_pair(self) -> bool:
        """Whether both are there and the same: no other arithmetic looks like that."""
        if self.divided is None or self.multiplied is None:
            return False
        return _near(self.divided, self.multiplied)

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(scale for scale in (self.divided, self.multiplied) if scale is not None)


def detect(case: Case) -> Iterator[Sighting]:
    """No ROUND may stand behind a division by a scale, or before a multiplication by one; or onnx2tf 2.x's refusal.

    Looked at only where something is quantized. Pairs with a Clip in between are M45's. Sure where the same scale is on
    both sides, or one that the ONNX model has; otherwise the network may round on its own.
    """
    yield from _refused(case)
    if case.file is None or (case.onnx_model is not None and any(clips(case.onnx_model))):
        return
    graph = case.file.graph
    if not _is_quantized(case):
        return
    found = [rounding for rounding in map(_rounding(graph), graph.nodes) if rounding is not None and rounding.scales]
    if not found:
        return
    trained = _trained_scales(case)
    sure = any(
        rounding.is_pair or any(_near(scale, other) for scale in rounding.scales for other in trained)
        for rounding in found
    )
    shown = sorted({f"{scale:.4g}" for rounding in found for scale in rounding.scales[:1]})
    yield Sighting(
        where=f"{len(found)} ROUND operators of the .tflite",
        fact=f"float32 numbers are divided by {', '.join(shown)}, rounded and multiplied again: arithmetic of Q/DQ pairs"
        + ("" if sure else ", unless the network itself rounds"),
        remedy=REMEDY,
        sure=sure,
    )


def _refused(case: Case) -> Iterator[Sighting]:
    if said := REFUSAL.search(case.log):
        quantized = case.onnx_model is not None and any(
            node.op_type == "QuantizeLinear" for node in case.onnx_model.graph.node
        )
        yield Sighting(
            where="onnx2tf",
            fact=f"'{said[0]}'" + ("" if quantized else " (or the network itself rounds)"),
            remedy="onnx2tf 2.x writes float files of a QDQ model; convert with python -m bridge.",
            sure=quantized,
        )


def _is_quantized(case: Case) -> bool:
    assert case.file is not None  # noqa: S101 - the caller has looked
    inside = any(tensor.qparams is not None for tensor in case.file.graph.tensors.values())
    return inside or bool(_trained_scales(case))


def _trained_scales(case: Case) -> set[float]:
    """Every scale that a Q/DQ pair of the ONNX model has for a whole tensor."""
    if case.onnx_model is None:
        return set()
    known = constants(case.onnx_model)
    names = {node.input[1] for node in case.onnx_model.graph.node if node.op_type == "QuantizeLinear"}
    arrays = [numpy_helper.to_array(known[name]) for name in names if name in known]
    return {float(array.reshape(())) for array in arrays if array.size == 1}


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * abs(other)


def _rounding(graph: Graph) -> Callable[[Node], _Rounding | None]:
    producers, readers = graph.producers(), graph.consumers()

    def of(node: Node) -> _Rounding | None:
        if node.op != "ROUND":
            return None
        before = producers.get(node.inputs[0])
        while before is not None and before.op in ("QUANTIZE", "DEQUANTIZE"):
            before = producers.get(before.inputs[0])
        divided = None if before is None else _factor(graph, before)
        return _Rounding(None if not divided else 1 / divided, _multiplied(graph, node, readers))

    return of


def _multiplied(graph: Graph, rounding: Node, readers: Any) -> float | None:
    """The scale behind a ROUND: of a MUL by a constant, or of the codes that a CAST makes of the numbers."""
    name = rounding.outputs[0]
    while len(readers[name]) == 1:
        (after,) = readers[name]
        target = graph.tensors[after.outputs[0]]
        if after.op == "CAST" and target.qparams is not None and target.qparams.axis is None:
            return float(target.qparams.scale)
        if after.op not in BETWEEN:
            return _factor(graph, after)
        name = after.outputs[0]
    return None


def _factor(graph: Graph, node: Node) -> float | None:
    """What an operator multiplies everything by: a MUL or a DIV with one constant number; else None."""
    if node.op not in ("MUL", "DIV"):
        return None
    constant = [graph.tensors[name] for name in node.inputs if graph.tensors[name].is_constant]
    if len(constant) != 1 or constant[0].shape not in ((), (1,)):
        return None
    if node.op == "DIV" and node.inputs[1] != constant[0].name:
        return None  # the constant is what is divided
    value = float(constant[0].real.reshape(()))
    if not np.isfinite(value) or value == 0:
        return None
    return value if node.op == "MUL" else 1 / value


@cache
def _as_arithmetic(content: bytes) -> bytes:
    """The int8 .tflite of `conv_relu`'s network with every pair as x / s, round, * s, as onnx2tf 1.25.14 writes them.

    There is no clamp to 0..255 in what it writes either: its saturate_cast goes to float32 (ops/QuantizeLinear.py).
    """
    from bridge.via_tflite_converter import Settings, _apply, _stand_in, _tensorflow

    tf = _tensorflow()
    known = {name: numpy_helper.to_array(tensor) for name, tensor in constants(load_from_string(content)).items()}
    kernel = tf.constant((known["w"] * known["sw"]).astype(np.float32).transpose(2, 3, 1, 0))

    def pair(x: Any, scale: np.ndarray) -> Any:
        return tf.round(x / scale) * scale

    def network(x: Any) -> Any:
        convolved = tf.nn.conv2d(pair(x, known["sx"]), kernel, strides=1, padding="VALID")
        return pair(tf.nn.relu(convolved + known["bias"]), known["sy"])

    fed = np.ascontiguousarray(samples().transpose(0, 2, 3, 1))
    signature = tf.TensorSpec((1, *fed.shape[1:]), tf.float32)
    traced = tf.function(network, autograph=False).get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], _stand_in(traced))
    _apply(converter, Settings(optimize=True, integer_operators=True, integer_io=True), fed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def reproduce() -> Case:
    """One trained convolution with its pairs as arithmetic, as onnx2tf 1.25 writes them, quantized by TensorFlow."""
    content = conv_relu()
    return Case(onnx=content, tflite=_as_arithmetic(content), inputs={"x": samples()})


def repair(case: Case) -> Case:
    """The exact bridge's file of the same ONNX model in its place: whatever else was wrong with the file goes as well."""
    if case.onnx is None:
        raise BridgeError(
            where="the .tflite",
            problem="has Q/DQ pairs as float arithmetic, and there is no ONNX model to convert again",
            remedy="Give the ONNX model it was made from.",
        )
    return replace(case, tflite=through_exact(case.onnx), log="")


MISMATCH = Mismatch(
    id="M17",
    name="Q/DQ pairs written out as float arithmetic",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 1.20.0 (TensorFlow 2.16.1), 1.25.14 (2.17.0) and 2.6.9; the reproduction writes what 1.25.14 does "
    "and quantizes it with TensorFlow 2.19.0",
    source="found here, on MNIST; onnx2tf ops/QuantizeLinear.py of 1.25.14 divides, rounds and adds",
    cause="onnx2tf 1.20 and 1.25 make MUL, ROUND, ADD, SUB and MUL of every Q/DQ pair. TensorFlow's converter takes that "
    "for a part of the network and quantizes it: codes of 0 to 255 get a scale of about 1 and lose a second time, with "
    "DEQUANTIZE, ROUND, QUANTIZE at every pair. A MNIST network fell from 95.95 to 90.6 %, silently; 1.29.24 drops the pairs "
    "instead. onnx2tf 2.6.9 writes the arithmetic into float files and refuses to make integer ones.",
    way_out="Convert with python -m bridge. onnx2tf 1.29 keeps the accuracy as well as calibration does (M13).",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from ONNX Runtime (LSB)", 3.0),
    brings=("M13",),
)
