"""M02: the fake-quant model clamps at 127, the converted one at 255: two models from one training."""

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
from compare.mismatches.parts.two_forms import apart, constants, converted, frozen_export, same, trained
from compare.subjects.case import Case

TOP = 127
"""Of seven bits: torch.ao.quantization observers with reduce_range."""


def detect(case: Case) -> Iterator[Sighting]:
    """Where training clamped an activation at 127, the ONNX file made from the model must do so too."""
    if case.torch_model is None or case.onnx_model is None:
        return
    narrow = [each for each in trained(case.torch_model) if each.limits == (0, TOP)]
    free = list(_without_clip(case.onnx_model)) if narrow else []
    for each in narrow:
        for name, scale in free:
            if same(each.scale, scale):
                yield Sighting(
                    where=f"fake-quant '{each.path}', QuantizeLinear of '{name}'",
                    fact=f"trained on 0..{TOP} at scale {scale.item():.6g}, at most {TOP * scale.item():.4g}; the file goes on "
                    f"to 255, {255 * scale.item():.4g}",
                    remedy="Export the frozen fake-quant model instead of the converted one: it keeps the clamp.",
                )


def _without_clip(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    """(tensor, scale) of every QuantizeLinear that does not hand its codes to a Clip."""
    known = constants(model)
    clipped = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.output[0] not in clipped and node.input[1] in known:
            yield node.input[0], numpy_helper.to_array(known[node.input[1]])


@cache
def _model() -> Any:
    return qat_model("fbgemm")


def reproduce() -> Case:
    """One convolution trained on 0..1 with qconfig 'fbgemm', converted and exported; inputs go up to 1.5."""
    inputs = np.random.default_rng(0).uniform(0, 1.5, (32, 2, 6, 6)).astype(np.float32)
    return Case(torch_model=_model(), onnx=exported(converted(_model(), "fbgemm")), inputs={"input": inputs})


def repair(case: Case) -> Case:
    """Export the frozen fake-quant model: a Clip at 127 stands between quantize and dequantize."""
    return replace(case, onnx=frozen_export(case))


def measure(broken: Case, repaired: Case) -> float:
    """How many LSB further from the fake-quant model the converted one's file is, at most."""
    return float(apart(broken).max() - apart(repaired).max())


MISMATCH = Mismatch(
    id="M02",
    name="fake-quant clamps at 127, the converted model at 255",
    side="PyTorch",
    severity="fault",
    versions="torch 2.13, qconfigs 'fbgemm' and 'x86'",
    source="reproduced; related: executorch PR#13284",
    cause="With reduce_range, training cuts every activation at code 127. convert() writes uint8 operators that go on to "
    "255, at the same scale. Values beyond the trained range were cut in training and come through afterwards: the "
    "validated model and the converted one are two models, and so are their exports.",
    way_out="Train on 8 bits (M01). For a model that exists: export the frozen fake-quant form, which keeps the clamp.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from the fake-quant model (LSB)", 45.0),
    brings=("M01", "M43"),
)
