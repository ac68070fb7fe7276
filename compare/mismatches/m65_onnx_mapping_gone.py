"""M65: a tool imports onnx.mapping, which newer onnx packages no longer have."""

from __future__ import annotations

from collections.abc import Iterator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import numbers, version_of
from compare.mismatches.parts.small_keras import refusal
from compare.subjects.case import Case

MESSAGE = "cannot import name 'mapping' from 'onnx'"
LAST_OF_ITS_KIND = "onnx-tf"
"""onnx-tf 1.10.0 of 2022 is the last one and imports onnx.mapping."""


def detect(case: Case) -> Iterator[Sighting]:
    """The error itself; or onnx-tf beside onnx 1.19 or later, where it was seen."""
    remedy = (
        "Use a tool that is maintained (the exact bridge, onnx2tf) instead of onnx-tf, or an older onnx for it alone."
    )
    onnx, tool = version_of(case, "onnx"), version_of(case, LAST_OF_ITS_KIND)
    if MESSAGE in case.log:
        yield Sighting(where="import onnx.mapping", fact=f"'{MESSAGE}'", remedy=remedy)
    elif tool and numbers(onnx) >= (1, 19):
        yield Sighting(where="packages onnx-tf and onnx", fact=f"onnx-tf {tool} with onnx {onnx}", remedy=remedy)


def _import(line: str) -> str:
    return refusal(lambda: exec(line, {}))  # noqa: S102 - the import statement of a tool


def reproduce() -> Case:
    """The import statement that onnx-tf starts with."""
    return Case(log=_import("from onnx import mapping"))


def repair(case: Case) -> Case:  # noqa: ARG001 - another tool's source
    """What onnx offers in its place."""
    return Case(log=_import("from onnx.helper import tensor_dtype_to_np_dtype"))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log) - bool(repaired.log))


MISMATCH = Mismatch(
    id="M65",
    name="onnx.mapping is gone",
    side="environment",
    severity="fault",
    versions="onnx 1.19.1 with onnx-tf 1.10.0",
    source="reproduced; onnx-tf has had no release since 2022",
    cause="onnx.mapping was deprecated for functions in onnx.helper and then removed. Tools that are no longer maintained, "
    "onnx-tf first of all, still import it.",
    way_out="Another tool. In your own code: onnx.helper.tensor_dtype_to_np_dtype and its neighbours.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("imports that fail", 1),
    automatic=False,
)
