"""M57: XNNPACK rescales int8 to int8 with a multiplier of 8 fractional bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bridge.exact.graph import Node
from bridge.exact.requantize import requantized_by
from bridge.exact.writer import write
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, share_that_differs, tflite_of
from compare.subjects.case import Case

_FRACTION = 256
_LARGEST_CODE = 255
_NOTICEABLE = 0.02
"""LSB: the error at the largest code, from which on more than about one code in a hundred moves."""


def detect(case: Case) -> Iterator[Sighting]:
    """A QUANTIZE from int8 to int8 must have a factor that 8 fractional bits can hold."""
    if case.file is None:
        return
    tensors = case.file.graph.tensors
    for node in case.file.graph.nodes:
        if node.op != "QUANTIZE":
            continue
        x, y = tensors[node.inputs[0]], tensors[node.outputs[0]]
        if x.qparams is None or y.qparams is None or x.dtype.itemsize != 1 or x.dtype != y.dtype:
            continue
        factor = float(x.q.scale) / float(y.q.scale)
        error = abs(round(factor * _FRACTION) / _FRACTION - factor) * _LARGEST_CODE
        if error > _NOTICEABLE:
            yield Sighting(
                where=f"QUANTIZE to '{y.name}'",
                fact=f"factor {factor:.6g} becomes {round(factor * _FRACTION)}/256: up to {error:.2f} LSB away",
                remedy="Rescale with an ADD of zero (python -m bridge does by default), which is exact up to ties.",
            )


def reproduce() -> Case:
    """A QUANTIZE from scale 0.02 to 0.031, as a concatenation needs it."""
    x, y = activation("x", (1, 8, 8, 4), 0.02, -128), activation("y", (1, 8, 8, 4), 0.031, -128)
    return Case(tflite=tflite_of([Node("QUANTIZE", "rescale", ("x",), ("y",))], [x, y], ["x"], ["y"]))


def repair(case: Case) -> Case:
    """ADD of a zero instead of each QUANTIZE between two int8 tensors."""
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    return replace(case, tflite=write(requantized_by("ADD", case.file.graph)))


MISMATCH = Mismatch(
    id="M57",
    name="XNNPACK's QUANTIZE rescales coarsely",
    side="runtime",
    severity="risk",
    versions="ai-edge-litert 2.1.0 on x86-64",
    source="measured; XNNPACK qs8-vcvt (multiplier in 8.8 fixed point); the reference kernel is exact",
    cause="Between two int8 tensors XNNPACK multiplies by the ratio of the scales rounded to 1/256. "
    "A few codes in a hundred come out one off, at every concatenation of differently scaled branches.",
    way_out="Use ADD of zero to rescale on CPUs; NPUs and the reference kernels compute QUANTIZE exactly.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("output codes that differ (share)", 0.05),
)
