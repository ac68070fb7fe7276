"""M81: weight codes of -128 that ARM's kernels add up in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bridge.exact.graph import Node
from bridge.exact.pair_sums import Pairs, pairs, safe
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts import arm_sums
from compare.mismatches.parts.files import activation, codes, rewritten, tflite_of
from compare.subjects.case import Case


def detect(case: Case) -> Iterator[Sighting]:
    """An output channel with two codes of -128 or more, on an input that can hold -128 (or is float): int8 weights.

    Where both operands are computed, as in BATCH_MATMUL, it depends on what they hold, and is said to.
    """
    if case.file is None:
        return
    for found in pairs(case.file.graph):
        if found.overflows:
            yield _sighting(found)


def _sighting(found: Pairs) -> Sighting:
    if not found.weight.is_constant:
        return Sighting(
            where=found.where,
            fact="is computed, and nothing keeps its codes above -128: two of them that meet two of the other operand are "
            "added wrongly on ARM; with codes above -128 it is right",
            remedy="Hold it at -127 and above with MAXIMUM (the exact bridge does), or train it with quant_min=-127.",
            sure=False,
        )
    listed = ", ".join(map(str, found.channels[:8])) + (" and more" if len(found.channels) > 8 else "")
    return Sighting(
        where=found.where,
        fact=f"{found.count} codes of -128 in output channels {listed} meet inputs that can be -128: on ARM two of them "
        "add up to 65536 less than they are; right on x86, on Cortex-M and on the reference kernels",
        remedy="Train the weights in -127..127 (qconfig 'tflite'), or make these codes -127: `python -m bridge` does.",
    )


def reproduce() -> Case:
    """A depthwise box filter times -1, as PyTorch's qnnpack quantizes it, behind a ReLU: nine codes of -128 a channel."""
    random = np.random.default_rng(0)
    values = random.integers(-127, 128, (1, 3, 3, 16))
    values[..., :6] = -128
    x, y = activation("x", (1, 8, 8, 16), 0.02, -128), activation("y", (1, 8, 8, 16), 0.15, 40)
    tensors = [x, codes("w", values, 1 / 127.5), codes("b", np.zeros(16), 0.02 / 127.5, dtype=np.int32), y]
    attrs = {
        "padding": "SAME", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1, "fused_activation": "NONE",
        "dilation_h_factor": 1, "dilation_w_factor": 1,
    }  # fmt: skip
    node = Node("DEPTHWISE_CONV_2D", "box", ("x", "w", "b"), ("y",), attrs)
    return Case(tflite=tflite_of([node], tensors, ["x"], ["y"]))


def repair(case: Case) -> Case:
    """Those codes become -127: right on every processor, and a step of the weight from what was trained."""
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    changed = dict(case.file.graph.tensors)
    for found in pairs(case.file.graph):
        if found.overflows and found.weight.is_constant:
            changed[found.weight.name] = safe(changed[found.weight.name], found)
    kept = case.file.graph.tensors
    return rewritten(case, {name: tensor for name, tensor in changed.items() if tensor is not kept[name]})


def measure(broken: Case, repaired: Case) -> float:
    """By how many LSB ARM's sums, made in numpy, are off at most, on inputs that are half zeros; less what is left repaired."""
    return _worst(broken) - _worst(repaired)


def _worst(case: Case) -> float:
    assert case.file is not None  # noqa: S101 - a measure knows its own reproduction
    random = np.random.default_rng(1)
    shape = (16, *case.file.graph.tensors["x"].shape[1:])
    inputs = np.where(random.random(shape) < 0.5, -128, random.integers(-128, 128, shape)).astype(np.int8)
    here, there = (arm_sums.outputs(case.file.graph, inputs, wraps=wraps) for wraps in (False, True))
    return float(np.abs(here.astype(int) - there).max())


MISMATCH = Mismatch(
    id="M81",
    name="weight codes of -128 added in 16 bits on ARM",
    side="runtime",
    severity="risk",
    versions="ai-edge-litert 2.1.0 on aarch64: XNNPACK's DEPTHWISE_CONV_2D on Cortex-A53, A55 and A72; its CONV_2D, "
    "TRANSPOSE_CONV, FULLY_CONNECTED and BATCH_MATMUL, and the hybrid ones, on A72; LiteRT's own CONV_2D, TRANSPOSE_CONV and "
    "FULLY_CONNECTED on A53 and A72 (docs/arm.md)",
    source="XNNPACK, src/qs8-qc8w-dwconv/gen/qs8-qc8w-dwconv-9p16c-minmax-fp32-neonv8-mla8-ld64.c and "
    "src/qs8-qc8w-gemm/gen/qs8-qc8w-gemm-*c8-minmax-fp32-asm-aarch64-neon-mlal*.S; TFLite 8-bit quantization specification "
    "(weights in -127..127); measured by emulation (docs/arm.md)",
    cause="NEON kernels multiply int8 into 16 bits and add a second product before they widen: (-128)(-128) twice is 32768, "
    "which becomes -32768. Two weights of -128 in an output channel that meet two inputs of -128, plain zeros behind a "
    "ReLU, make the sum 65536 too small. PyTorch's symmetric weight observers (qnnpack, fbgemm) write -128, TFLite's "
    "specification does not have it. x86, Cortex-M and the reference kernels are right: nothing is seen before the board.",
    way_out="Train with quant_min=-127 for weights (qconfig 'tflite'). The exact bridge makes such codes -127 and says which "
    "(--weights safe, the default; --weights keep for x86 and Cortex-M).",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference of a sum made as on ARM (LSB)", 100),
    brings=("M04",),
)
