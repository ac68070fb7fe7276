"""What a verification found, as plain data for `--json` and as the few lines a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge.verifying.distance import Distance
from bridge.verifying.verification import Verification


def record(verification: Verification) -> dict[str, Any]:
    """Distances end to end and of each operator; for `json.dumps`."""
    return {
        "reference": verification.reference,
        "samples": verification.samples,
        "outputs": {
            kernels: {name: _distance(distance) for name, distance in outputs.items()}
            for kernels, outputs in verification.outputs.items()
        },
        "operators": [
            {"op": item.op, "name": item.name, "kernels": item.kernels, "exact_input": item.exact_input}
            | _distance(item.distance)
            for item in verification.operators
        ],
    }


def _distance(distance: Distance) -> dict[str, Any]:
    return {
        "equal": distance.equal,
        "worst_lsb": distance.worst,
        "histogram": {str(lsb): count for lsb, count in distance.histogram.items()},
        "argmax_changed": distance.argmax_changed,
        "argmax_margin_lsb": distance.margin,
    }


def lines(verification: Verification) -> Iterator[str]:
    """The distances end to end, then the operators that differ most."""
    yield f"against {verification.reference}, {verification.samples} samples"
    for kernels, outputs in verification.outputs.items():
        for name, distance in outputs.items():
            yield f"{kernels:9} {name}: {distance}"
    for item in verification.guilty()[:5]:
        aside = "" if item.exact_input else " (the reference never quantized its input)"
        yield f"{item.kernels:9} {item.op} '{item.name}' alone: {item.distance}{aside}"
