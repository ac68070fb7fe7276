"""What a verification found, as plain data for `--json` and as the few lines a person reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bridge.verifying.distance import AnyDistance, Distance, RealDistance
from bridge.verifying.operators import OperatorDistance
from bridge.verifying.seen import CLIPPED
from bridge.verifying.verification import Verification

_SHOWN = 5
"""Operators that a person gets to see; the record has all."""


def record(verification: Verification) -> dict[str, Any]:
    """Distances end to end, of the reference from itself, and of each operator; for `json.dumps`."""
    return {
        "reference": verification.reference,
        "samples": verification.samples,
        "outputs": {kernels: _distances(outputs) for kernels, outputs in verification.outputs.items()},
        "baseline": _distances(verification.baseline),
        "undecided": _distances(verification.undecided),
        "rounded": list(verification.rounded),
        "otherwise": list(verification.otherwise),
        "clipped": dict(verification.clipped),
        "constant": list(verification.constant),
        "guilty": [f"{item.op} '{item.name}'" for item in verification.guilty()],
        "operators": [_operator(item) for item in verification.operators],
    }


def _operator(item: OperatorDistance) -> dict[str, Any]:
    named = {
        "op": item.op,
        "name": item.name,
        "kernels": item.kernels,
        "tensor": item.tensor,
        "chain": list(item.chain),
    }
    return named | {"off": item.off, "farthest_lsb": item.departure.farthest} | _distance(item.distance)


def _distances(outputs: Mapping[str, AnyDistance]) -> dict[str, Any]:
    return {name: _distance(apart) for name, apart in outputs.items()}


def _distance(apart: AnyDistance) -> dict[str, Any]:
    """`null` stands for what is infinite: JSON has no number for it."""
    made: dict[str, Any] = {
        "count": apart.count,
        "equal": apart.equal,
        "worst_lsb": _finite(apart.worst),
        "worst_of_range": _finite(apart.fraction),
        "argmax_changed": apart.argmax_changed,
    }
    if isinstance(apart, Distance):
        made["histogram"] = {str(lsb): count for lsb, count in apart.histogram.items()}
        made |= {"argmax_margin_lsb": apart.margin, "not_finite": apart.not_finite}
    elif isinstance(apart, RealDistance):
        made |= {"difference": apart.difference, "range": [apart.spans.low, apart.spans.high]}
        made |= {"argmax_margin": apart.margin, "not_finite": apart.not_finite}
    else:
        made["differing"] = apart.differing
    return made


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def lines(verification: Verification) -> Iterator[str]:
    """The distances end to end beside what the network itself amplifies, then whom it comes from."""
    yield f"against {verification.reference}, {verification.samples} samples"
    for kernels, outputs in verification.outputs.items():
        for name, apart in outputs.items():
            yield f"{kernels:9} {name}: {apart}"
    differs = any(apart.equal < 1 for outputs in verification.outputs.values() for apart in outputs.values())
    for name, apart in verification.baseline.items() if differs else ():
        yield f"baseline  {name}: {apart} (the reference against itself, 0.1 % of its input codes one step off)"
    for name, apart in verification.undecided.items():
        if apart.equal < 1:
            count = len(verification.rounded)
            yield (
                f"undecided {name}: {apart} (the reference against itself, rounded where training decided no scale: "
                f"{verification.rounded[0]}{f' and {count - 1} more' if count > 1 else ''})"
            )
    yield from _blamed(verification)
    yield from _doubts(verification)


def _doubts(verification: Verification) -> Iterator[str]:
    """What makes the samples a poor proof."""
    for name, share in verification.clipped.items():
        if share > CLIPPED:
            yield f"samples   {share:.1%} of input {name} lie outside of the range it was trained with: prepared as in training?"
    for name in verification.constant:
        yield f"samples   the reference gives the same {name} for all {verification.samples}: they prove little"


def _blamed(verification: Verification) -> Iterator[str]:
    if not verification.operators:
        return
    for named in verification.otherwise:
        yield (
            f"operators {named}: the file gives other numbers than its operators in a row; "
            "the runtime computes the whole otherwise, or this is the file of another graph"
        )
    guilty = verification.guilty()
    if not guilty:
        count = len({(item.op, item.name) for item in verification.operators})
        far = any(apart.worst > 1 for outputs in verification.outputs.values() for apart in outputs.values())
        whole = "; what differs end to end is that rounding, carried on by what follows" if far else ""
        yield f"operators {count} of {count} are within their kernel's rounding when run alone" + (
            "" if verification.otherwise else whole
        )
        return
    for item in guilty[:_SHOWN]:
        first = "the first operator that departs: " if item is guilty[0] else ""
        together = f", together with {', '.join(item.chain)}" if item.chain else ""
        yield f"{item.kernels:9} {first}{item.op} '{item.name}' alone: {item.distance}{together}"
    if len(guilty) > _SHOWN:
        yield f"          and {len(guilty) - _SHOWN} more operators; --json lists them"
