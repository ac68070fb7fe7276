"""M30: two kernel sets round the same operator differently, on one file and one machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bridge.exact.graph import Node
from bridge.verifying.litert import Kernels
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, tflite_of
from compare.subjects.case import Case

OFTEN = 0.02
"""Share of output codes. Convolutions differ in about one code of a thousand, and nobody notices."""
SAMPLES = 16
SUSPECTS = ("LEAKY_RELU", "RESIZE_BILINEAR", "MEAN", "HARD_SWISH")
"""Operators that multiply once more inside; alone, on random inputs, 2 to 20 % of their codes differ by one LSB.

Of MUL 0.6 %, of DEPTHWISE_CONV_2D 0.3 % and of CONV_2D 0.1 % do, of the others none (measured, ai-edge-litert 2.1.0).
"""


def detect(case: Case) -> Iterator[Sighting]:
    """With inputs: XNNPACK and the reference kernels must give the same output codes, up to a rare tie."""
    if case.file is None or not case.inputs or any(node.op == "QUANTIZE" for node in case.file.graph.nodes):
        return  # what XNNPACK does to QUANTIZE is M57
    suspects = [node for op in SUSPECTS for node in case.file.graph.nodes if node.op == op]
    if not suspects or not _runs(case):
        return
    apart = _apart(case)
    share, most = float((apart > 0).mean()), int(apart.max(initial=0))
    if share > OFTEN:
        first = suspects[0]
        yield Sighting(
            where=f"{first.op} '{first.outputs[0]}'",
            fact=f"{share:.1%} of the output codes differ between XNNPACK and the reference kernels, by up to {most} LSB; "
            "both are correct to the specification",
            remedy="Validate with the kernels that will run: XNNPACK for Linux and Android, BUILTIN_REF for microcontrollers.",
            sure=most > 1,
        )


def _runs(case: Case) -> bool:
    """Whether the file runs on both kernel sets: where it does not, that is what is said of it."""
    from compare.running.trying import tried

    assert case.tflite is not None  # noqa: S101 - the caller has looked
    trial = tried(case.tflite)
    return not trial.problems and not trial.unknown_to_reference


def _apart(case: Case) -> np.ndarray:
    """Difference of the output codes between the two kernel sets on the first inputs, in LSB."""
    assert case.tflite is not None  # noqa: S101 - the callers have looked
    one, other = (_outputs(case, kernels) for kernels in ("xnnpack", "reference"))
    apart: np.ndarray = np.abs(one - other)
    return apart


def _outputs(case: Case, kernels: Kernels) -> np.ndarray:
    from compare.measuring.drift import batched
    from compare.measuring.feeding import arranged
    from compare.running.trying import run

    assert case.file is not None  # noqa: S101 - the callers have looked
    assert case.tflite is not None  # noqa: S101
    samples = [array[:SAMPLES] for array in batched(case.file.graph, arranged(case))]
    return np.concatenate([output.reshape(-1).astype(np.int64) for output in run(case.tflite, samples, None, kernels)])


def _activation_only(op: str) -> Case:
    """One activation function, input scale 0.05, output scale 0.037."""
    x, y = activation("x", (1, 8, 8, 4), 0.05), activation("y", (1, 8, 8, 4), 0.037)
    node = Node(op, "activation", ("x",), ("y",), {"alpha": 0.2} if op == "LEAKY_RELU" else {})
    samples = np.random.default_rng(0).uniform(-6, 6, (SAMPLES, 8, 8, 4)).astype(np.float32)
    return Case(tflite=tflite_of([node], [x, y], ["x"], ["y"]), inputs={"x": samples})


def reproduce() -> Case:
    """LEAKY_RELU, where the negative side is multiplied in 8-bit fixed point by one and in 31 bits by the other."""
    return _activation_only("LEAKY_RELU")


def repair(case: Case) -> Case:  # noqa: ARG001 - kernels cannot be changed in a file
    """An activation that all kernels compute alike."""
    return _activation_only("RELU")


def measure(broken: Case, repaired: Case) -> float:
    """Share of output codes that differ between the kernel sets, over the same share after the repair."""
    return float((_apart(broken) > 0).mean() - (_apart(repaired) > 0).mean())


MISMATCH = Mismatch(
    id="M30",
    name="kernel sets that round differently",
    side="runtime",
    severity="note",
    versions="ai-edge-litert 2.1.0 on x86-64, XNNPACK against BUILTIN_REF",
    source="LiteRT#7441, tensorflow#99072, tflite-micro#3130, tvm PR#15929; measured",
    cause="The specification allows one LSB. Reference kernels round twice in fixed point, XNNPACK once, PyTorch's fbgemm "
    "in float. Operators that rescale inside (LEAKY_RELU, MEAN, RESIZE_BILINEAR, HARD_SWISH) differ in a few codes of a "
    "hundred, and layers behind them add up.",
    way_out="Do not demand equal bits across kernels. Validate with the kernel set that will run, or use activations without "
    "a second rounding (RELU, RELU6).",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("output codes that differ between kernels (share)", 0.12),
    automatic=False,
)
