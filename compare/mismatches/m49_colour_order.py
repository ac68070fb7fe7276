"""M49: the first layer takes the colours in another order than it was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten, share_that_differs
from compare.mismatches.parts.models import conv_relu, samples, through_exact
from compare.mismatches.parts.weighted_pairs import alike, weighted_pairs
from compare.subjects.case import Case

COLOURS = 3


def detect(case: Case) -> Iterator[Sighting]:
    """The colours of a first convolution must stand in the order that the ONNX model has."""
    for operator, weight in _swapped(case):
        yield Sighting(
            where=f"weight of '{operator}'",
            fact=f"'{weight.name}' reads the {COLOURS} input channels in reverse order: BGR where training had RGB, or the "
            "other way round",
            remedy="Feed the images in the order of the file, or convert again without the swap; only one side may do it.",
        )


def _swapped(case: Case) -> Iterator[tuple[str, Tensor]]:
    """(ONNX operator, weight of the .tflite) of convolutions that read an input of three channels in reverse."""
    for graph, ours, theirs in weighted_pairs(case):
        assert case.file is not None  # noqa: S101 - there are pairs
        trained, found = graph.operand(ours, 1), case.file.graph.operand(theirs, 1)
        if theirs.op != "CONV_2D" or trained is None or found is None or found.data is None:
            continue
        if not trained.is_constant or len(trained.shape) != 4 or trained.shape[1] != COLOURS:
            continue
        expected, real = trained.real.transpose(0, 2, 3, 1), found.real
        if expected.shape == real.shape and alike(expected[..., ::-1], real) and not alike(expected, real):
            yield ours.name, found


def _reversed(weight: Tensor) -> Tensor:
    return replace(weight, data=np.ascontiguousarray(weight.values[..., ::-1]))


def reproduce() -> Case:
    """A convolution of three colours, deployed with its channels reversed, as for a camera that gives BGR."""
    content = conv_relu(colours=COLOURS)
    right = Case(onnx=content, tflite=through_exact(content), inputs={"x": samples(colours=COLOURS)})
    assert right.file is not None  # noqa: S101 - it was just converted
    (convolution,) = [node for node in right.file.graph.nodes if node.op == "CONV_2D"]
    weight = right.file.graph.tensors[convolution.inputs[1]]
    return rewritten(right, {weight.name: _reversed(weight)})


def repair(case: Case) -> Case:
    """Put the colours into the order of the ONNX model."""
    return rewritten(case, {weight.name: _reversed(weight) for _, weight in _swapped(case)})


MISMATCH = Mismatch(
    id="M49",
    name="colours in another order than in training",
    side="ONNX",
    severity="fault",
    versions="any converter and runtime",
    source="OpenCV reads BGR, Pillow and torchvision RGB; converters offer a swap of the first layer's channels; reproduced",
    cause="Training read RGB, deployment reads BGR, and somebody swapped the channels of the first layer: once too often, or on "
    "one side only. Every shape and scale fits, and accuracy falls by a few points to a third.",
    way_out="Swap on one side only: in the preprocessing, or in the first layer's weights.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("output codes that differ (share)", 0.4),
)
