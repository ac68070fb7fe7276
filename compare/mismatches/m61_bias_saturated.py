"""M61: the converter saturated bias codes that do not fit int32, without a word."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compare.mismatches.m53_bias_with_first_scale import WITH_BIAS
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.fake_quant_conv import convolution
from compare.mismatches.parts.files import run_codes
from compare.subjects.case import Case

LIMITS = (np.iinfo(np.int32).min, np.iinfo(np.int32).max)


def detect(case: Case) -> Iterator[Sighting]:
    """A bias code at either end of int32: no number that fits ends up there."""
    if case.file is None:
        return
    graph = case.file.graph
    for node in graph.nodes:
        bias = graph.operand(node, 2) if node.op in WITH_BIAS else None
        if bias is None or bias.data is None or bias.dtype != np.int32 or bias.qparams is None:
            continue
        channels = np.flatnonzero(np.isin(bias.data.reshape(-1), LIMITS))
        if channels.size:
            channel = int(channels[0])
            scale = float(np.broadcast_to(bias.q.scale, bias.data.size)[channel])
            yield Sighting(
                where=f"{node.op}, bias '{bias.name}', channel {channel}",
                fact=f"code {int(bias.data.reshape(-1)[channel])} is the end of int32; at scale {scale:.4g} the bias is cut "
                f"to {bias.data.reshape(-1)[channel] * scale:.4g}",
                remedy="Give that channel a larger weight scale (its weights are almost all zero), or prune it, and convert "
                "again.",
            )


def reproduce() -> Case:
    """A channel whose weights reach 1e-9 only, with a bias of 3."""
    return Case(tflite=convolution((1.0, 1e-9, 3.0, 0.25), (0.5, 3.0, 0.1, 0.2)))


def repair(case: Case) -> Case:  # noqa: ARG001 - the bias that was cut is not in the file
    """The same channel with a weight range of 0.01: its codes become all zero, and the bias fits."""
    return Case(tflite=convolution((1.0, 0.01, 3.0, 0.25), (0.5, 3.0, 0.1, 0.2)))


def measure(broken: Case, repaired: Case) -> float:
    """Largest distance of the outputs in LSB."""
    assert broken.tflite is not None  # noqa: S101 - a measure knows its own reproduction
    assert repaired.tflite is not None  # noqa: S101
    one, other = (run_codes(content).astype(np.int32) for content in (broken.tflite, repaired.tflite))
    return float(np.abs(one - other).max())


MISMATCH = Mismatch(
    id="M61",
    name="bias codes saturated at the end of int32",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0",
    source="reproduced; the cause in training is M05",
    cause="The scale of a bias is the product of input and weight scale. Where a channel's weights are almost zero that "
    "product is tiny, the code would be beyond int32, and the converter writes the largest int32 number instead. "
    "The bias of that channel is all it has, and most of it is gone.",
    way_out="Keep weight scales above about |bias| / (input scale * 2^31), or prune the channel.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference (LSB)", 37),
    automatic=False,
)
