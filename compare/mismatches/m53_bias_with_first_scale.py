"""M53: a bias of one number in all channels was quantized with the scale of the first channel in all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Node, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.fake_quant_conv import convolution
from compare.mismatches.parts.files import rewritten, run_codes
from compare.subjects.case import Case

WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
FEWEST = 16
"""Below this many steps different scales may well round one number to one code."""


def detect(case: Case) -> Iterator[Sighting]:
    """Equal int32 codes in all channels while the scales differ: then the real biases differ, by the ratio of scales."""
    if case.file is None:
        return
    for node, bias in _suspects(case):
        scales = bias.q.scale
        yield Sighting(
            where=f"{node.op}, bias '{bias.name}'",
            fact=f"code {int(bias.values.flat[0])} in all {bias.values.size} channels, at scales from {scales.min():.4g} to "
            f"{scales.max():.4g}: real biases from {bias.real.min():.4g} to {bias.real.max():.4g}",
            remedy="Quantize each channel with its own scale; or make one bias differ by one float32 step before converting.",
        )


def _suspects(case: Case) -> Iterator[tuple[Node, Tensor]]:
    """(operator, bias) where one code stands for different numbers in the channels."""
    assert case.file is not None  # noqa: S101 - the callers have looked
    for node in case.file.graph.nodes:
        bias = case.file.graph.operand(node, 2) if node.op in WITH_BIAS else None
        if bias is None or bias.data is None or bias.dtype != np.int32 or bias.qparams is None or bias.q.axis is None:
            continue
        first = int(bias.data.flat[0])
        same = bias.data.size > 1 and abs(first) >= FEWEST and bool((bias.data == first).all())
        if same and bias.q.scale.max() > (1 + 2 / abs(first)) * bias.q.scale.min():
            yield node, bias


def reproduce() -> Case:
    """A bias of 0.5 in four channels whose weights reach 1, 2, 3 and 0.25."""
    return Case(tflite=convolution((1.0, 2.0, 3.0, 0.25), (0.5,) * 4))


def repair(case: Case) -> Case:
    """The real bias of the first channel, quantized in each channel with that channel's scale."""
    changed = {}
    for _, bias in _suspects(case):
        real = float(bias.values.flat[0]) * float(bias.q.scale[0])
        data = np.rint(real / bias.q.scale.astype(np.float64)).astype(np.int32)
        changed[bias.name] = replace(bias, data=data.reshape(bias.shape))
    return rewritten(case, changed)


def measure(broken: Case, repaired: Case) -> float:
    """Largest distance of the outputs in LSB."""
    assert broken.tflite is not None  # noqa: S101 - a measure knows its own reproduction
    assert repaired.tflite is not None  # noqa: S101
    one, other = (run_codes(content).astype(np.int32) for content in (broken.tflite, repaired.tflite))
    return float(np.abs(one - other).max())


MISMATCH = Mismatch(
    id="M53",
    name="equal biases quantized with the first channel's scale",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0",
    source="reproduced; bridge/fake_quant_rules.py works around it",
    cause="Where the bias is one number in every channel, the converter folds it into a single value, computes its code with "
    "the scale of the first channel, and writes that code for all channels. Each bias is then wrong by the ratio of two "
    "weight scales. The accuracy drops and every scale in the file is right.",
    way_out="Recompute the codes as round(bias / (input scale * weight scale)), or change the last bias by one float32 step "
    "before converting, which changes no code and prevents it.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference (LSB)", 12),
)
