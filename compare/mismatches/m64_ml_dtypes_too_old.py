"""M64: ml_dtypes is older than onnx needs, because TensorFlow pinned it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import numbers, said_by_python, version_of
from compare.subjects.case import Case

MESSAGE = re.compile(r"module 'ml_dtypes' has no attribute '(\w+)'")


def detect(case: Case) -> Iterator[Sighting]:
    """The error itself; or onnx 1.19 beside an ml_dtypes before 0.5 (onnx 1.19.1 requires 0.5.0 or later)."""
    remedy = "Install ml_dtypes 0.5 or later with a TensorFlow that allows it (2.19 does), or onnx 1.18 or earlier."
    onnx, ml_dtypes = version_of(case, "onnx"), version_of(case, "ml-dtypes")
    if said := MESSAGE.search(case.log):
        yield Sighting(where="import onnx", fact=f"'{said[0]}'", remedy=remedy)
    elif onnx and ml_dtypes and numbers(onnx) >= (1, 19) and numbers(ml_dtypes) < (0, 5):
        yield Sighting(
            where="packages onnx and ml_dtypes", fact=f"onnx {onnx} with ml_dtypes {ml_dtypes}", remedy=remedy
        )


def reproduce() -> Case:
    """onnx, imported where ml_dtypes has no float4_e2m1fn, as before 0.5; the attribute is taken away by hand."""
    log = said_by_python("import ml_dtypes; del ml_dtypes.float4_e2m1fn; import onnx")
    return Case(packages={"onnx": "1.19.1", "ml_dtypes": "0.4.1"}, log=log)


def repair(case: Case) -> Case:  # noqa: ARG001 - packages are not installed from here
    """With the ml_dtypes that is installed here."""
    return Case(packages={"onnx": "1.19.1", "ml_dtypes": "0.5.1"}, log=said_by_python("import ml_dtypes, onnx"))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log) - bool(repaired.log))


MISMATCH = Mismatch(
    id="M64",
    name="ml_dtypes older than onnx needs",
    side="environment",
    severity="fault",
    versions="onnx 1.19 with ml_dtypes before 0.5; the message is from onnx 1.19.1",
    source="onnx#7249; reproduced with the missing type taken away by hand",
    cause="Releases of TensorFlow before 2.19 hold ml_dtypes below 0.5, onnx 1.19 needs the 4-bit float that came with 0.5. Installed one "
    "after the other, the last pip command wins and the import of onnx fails.",
    way_out="TensorFlow 2.19 with ml_dtypes 0.5.1 and onnx 1.19.1 work together; install them in one command.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("imports that fail", 1),
    automatic=False,
)
