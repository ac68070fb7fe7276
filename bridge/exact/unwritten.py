"""What is said of operators that the bridge does not write: all of them at once, so that nobody mends one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bridge.errors import BridgeError
from bridge.exact.graph import Node

MOST_NAMED = 12


def unwritten(nodes: Iterable[Node]) -> BridgeError:
    """The error for these operators, the first of them by name; there is at least one."""
    first, *others = nodes
    counts = Counter(node.op for node in (first, *others))
    problem = "the exact bridge cannot write this operator"
    if others:
        listed = [f"{op} {count}" for op, count in counts.most_common(MOST_NAMED)]
        more = "" if len(counts) <= MOST_NAMED else f" and {len(counts) - MOST_NAMED} kinds more"
        problem += f"; in all {len(others) + 1} of this model: {', '.join(listed)}{more}"
    return BridgeError(
        where=f"node '{first.name}' ({first.op})",
        problem=problem,
        remedy="What it writes: docs/operators.md. Train with another operator in its place, or end the model before it.",
    )
