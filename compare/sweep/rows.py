"""One row of a sweep's data set: what its figures are called, and what becomes of an artifact that cannot be made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bridge.errors import BridgeError

Figures = Mapping[str, Any]


def row_of(artifact: str, measure: Callable[[], Figures]) -> dict[str, Any]:
    """The artifact's row: its figures, or the reason why there are none. One artifact's defect is one row."""
    started = time.perf_counter()
    problem, figures = None, dict[str, Any]()
    try:
        figures = dict(measure())
    except BridgeError as error:
        problem = str(error)
    except Exception as defect:  # noqa: BLE001 - a package's own error, whatever its type
        problem = f"{type(defect).__name__}: {defect}"
    return {
        "artifact": artifact,
        "status": "failed" if problem else "measured",
        "reason": problem,
        "seconds": time.perf_counter() - started,
        **figures,
    }
