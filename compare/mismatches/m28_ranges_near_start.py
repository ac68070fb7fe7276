"""M28: activation ranges that still stand near TF-MOT's starting value [-6, 6]."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import (
    converted,
    float_network,
    images,
    layers_of,
    real_outputs,
    trained_network,
    trained_ranges,
)
from compare.subjects.case import Case

START, DECAY = 6.0, 0.999
"""MovingAverageQuantizer: quant_ops.py, MovingAvgQuantize (init_min, init_max, ema_decay) of TF-MOT 0.8.1."""
REMEDY = (
    "Measure the ranges on the float model and put them into the min and max variables before training "
    "(keras_side.qat.start_ranges), or train several thousand steps more."
)


def detect(case: Case) -> Iterator[Sighting]:
    """In the Keras model: min and max that are still half of the start or more. In the file: the same behind a ReLU.

    What is left of the start after n steps is 0.999^n. Only behind a ReLU is a negative minimum surely left over.
    """
    if case.keras_model is not None:
        yield from _in_keras(case.keras_model)
    elif case.file is not None and case.onnx is None:  # what comes from ONNX was not trained by TF-MOT
        yield from _in_file(case)


def _in_keras(model: Any) -> Iterator[Sighting]:
    for name, (low, high) in trained_ranges(model, ("kernel",)).items():
        if (low, high) == (-START, START):
            yield Sighting(
                where=f"range '{name}'",
                fact="[-6, 6]: no training step has set the range of these weights yet",
                remedy="Run at least one training step before converting.",
            )
    relu = {layer.name: layer.relu for layer in layers_of(model)}
    for name, (low, high) in trained_ranges(model).items():
        if not _near_start(low, high):
            continue
        layer = name.partition("/")[0].removeprefix("quant_")
        yield Sighting(
            where=f"range '{name}'",
            fact=f"[{low:.4g}, {high:.4g}] is what about {_steps(low)} steps leave of the start [-6, 6]"
            + ("" if relu.get(layer) else "; without a ReLU such values can be real"),
            remedy=REMEDY,
            sure=relu.get(layer, False) or _steps(low) < 100,
        )


def _in_file(case: Case) -> Iterator[Sighting]:
    assert case.file is not None  # noqa: S101 - the caller has looked
    for node in case.file.graph.nodes:
        tensor = case.file.graph.tensors[node.outputs[0]]
        if node.attrs.get("fused_activation") != "RELU" or tensor.dtype != np.int8 or tensor.qparams is None:
            continue
        scale, zero_point = float(tensor.qparams.scale.item()), int(tensor.qparams.zero_point.item())
        low, high = scale * (-128 - zero_point), scale * (127 - zero_point)
        if _near_start(low, high):
            yield Sighting(
                where=f"{node.op}, tensor '{tensor.name}'",
                fact=f"range [{low:.4g}, {high:.4g}] behind a ReLU: {zero_point + 128} of 256 codes are never used",
                remedy=REMEDY,
            )


def _near_start(low: float, high: float) -> bool:
    """Both ends at least half of what they started from, and no further out than rounding explains."""
    return -1.01 * START <= low <= -START / 2 and START / 2 <= high <= 1.01 * START


def _steps(low: float) -> int:
    """After how many steps of a minimum of zero the start has faded to `low`."""
    return max(0, round(math.log(min(1.0, -low / START)) / math.log(DECAY)))


@functools.cache
def _after_few_steps() -> Any:
    """The quantization-aware model after ten training batches; nothing but its ranges moves."""
    from keras_side import qat

    model = qat.quantize_whole(float_network())
    for _ in range(10):
        model(images(), training=True)
    return model


def reproduce() -> Case:
    """TF-MOT's own ranges after ten batches, converted."""
    return Case(keras_model=_after_few_steps(), tflite=converted(_after_few_steps()))


def repair(case: Case) -> Case:  # noqa: ARG001 - ranges are trained, not converted
    """The same weights with ranges that were measured first."""
    return Case(keras_model=trained_network(), tflite=converted(trained_network()))


def measure(broken: Case, repaired: Case) -> float:
    """Mean distance from the float model's output: how many times larger than with measured ranges."""
    exact = float_network()(images(), training=False).numpy()
    errors = [np.abs(real_outputs(case.tflite, images()) - exact).mean() for case in (broken, repaired)]
    return float(errors[0] / errors[1])


MISMATCH = Mismatch(
    id="M28",
    name="activation ranges still near their start of [-6, 6]",
    side="Keras/TF-MOT",
    severity="risk",
    versions="TF-MOT 0.8.1",
    source="model-optimization#368 (about 1000 steps to forget), tensorflow#49372, tensorflow/models#8726; reproduced",
    cause="TF-MOT starts every activation range at [-6, 6] and moves it by 0.1 % per step, without correcting for the "
    "start. After an epoch of a few hundred steps the ranges are mostly start: half of the codes behind a ReLU are "
    "never used, and values beyond 6 are clipped.",
    way_out="Set the min and max variables from a measurement before training, or train for several thousand steps.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("mean output error (times)", 3.0),
    automatic=False,
)
