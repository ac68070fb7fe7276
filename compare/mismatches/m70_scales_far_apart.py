"""M70: one step of an operator's input is hundreds of steps of its output, more than kernels can compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bridge.exact.arithmetic import quantize
from bridge.exact.graph import Node
from bridge.exact.kernels import Limit
from bridge.exact.limits import LIMITS, factor
from bridge.verifying.litert import Runner
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, tflite_of
from compare.subjects.case import Case

MEASURED: Mapping[str, Limit] = {
    **LIMITS,
    "SUB": Limit(2.0**19, max, "both kernel sets end the process or give one wrong code for everything"),
}
"""What the bridge refuses to write, but for SUB, of which it is more careful than the kernels need."""


def detect(case: Case) -> Iterator[Sighting]:
    """Steps of the output for one step of the input (for products: of the accumulator): below the measured limits.

    docs/properties.md has them, bridge/exact/limits.py refuses to write such a file.
    """
    graph = None if case.file is None else case.file.graph
    for node in () if graph is None else graph.nodes:
        found = factor(node, graph) if graph is not None and node.op in MEASURED else None
        if graph is not None and found is not None and found >= MEASURED[node.op].below:
            y = graph.output(node)
            yield Sighting(
                where=f"{node.op}, output '{y.name}'",
                fact=f"scale {y.q.scale:.4g}: one step of its input is {found:.4g} of its steps; from "
                f"{MEASURED[node.op].below:.0f} on {MEASURED[node.op].happens}",
                remedy="The observer of that output saw next to nothing: fine-tune with data that reaches it.",
            )


_COARSE = 1.0
_DEAD = 2.0**-12


def _file(scale: float) -> bytes:
    """Two summands, one of them nearly always zero in training, and a sum with this scale."""
    a, b, y = activation("a", (1, 64), _COARSE), activation("b", (1, 64), _DEAD), activation("y", (1, 64), scale)
    return tflite_of(
        [Node("ADD", "sum", ("a", "b"), ("y",), {"fused_activation": "NONE"})], [a, b, y], ["a", "b"], ["y"]
    )


def reproduce() -> Case:
    """A sum whose observer saw only zeros and kept its smallest scale, although one summand is coarse."""
    return Case(tflite=_file(_DEAD))


def repair(case: Case) -> Case:  # noqa: ARG001 - what the sum reaches is not in the file
    """The same sum with a scale that its summands fit in."""
    return Case(tflite=_file(_COARSE))


def measure(broken: Case, repaired: Case) -> float:
    """Share of the sums that XNNPACK gets wrong by more than one step."""
    return _wrong(broken) - _wrong(repaired)


def _wrong(case: Case) -> float:
    assert case.file is not None  # noqa: S101 - a measure knows its own reproduction
    assert case.tflite is not None  # noqa: S101
    random = np.random.default_rng(0)
    a, b = (random.integers(-128, 128, (1, 64)).astype(np.int8) for _ in range(2))
    y = case.file.graph.tensors["y"]
    expected = quantize((_COARSE * a + _DEAD * b).astype(np.float32), y.q).astype(np.int32)
    found = Runner(case.tflite, "xnnpack")({"a": a, "b": b})["y"].astype(np.int32)
    return float((np.abs(found - expected) > 1).mean())


MISMATCH = Mismatch(
    id="M70",
    name="scales too far apart for the kernels",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0 on x86-64",
    source="measured: docs/properties.md and bridge/exact/limits.py; ADD, SUB and MUL again for this entry",
    cause="The observer of an operator's output saw next to nothing (a dead branch, no training step, one batch of zeros) and "
    "gave it a tiny scale. The format can say so, the kernels cannot compute it. XNNPACK's ADD and MUL wrap around "
    "from a factor of 2^8 on, without a word; at 2^19 the reference kernel of ADD ends the process. XNNPACK does not load "
    "such a convolution or dense layer. SUB is right up to 2^19.",
    way_out="Fine-tune or calibrate with data that reaches the operator, and look at scales below 1e-6 before converting. "
    "python -m bridge refuses such a file and names the tensor.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("sums that are wrong (share)", 0.4),
    automatic=False,
)
