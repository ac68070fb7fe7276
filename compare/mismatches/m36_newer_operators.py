"""M36: an operator of the .tflite has a newer version than the runtime registers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import numbers, version_of
from compare.mismatches.parts.small_keras import converted, images, network
from compare.subjects.case import Case

MESSAGE = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'\. An older version of this builtin")
"""Not of a runtime that lacks the operator altogether: that message ends at the full stop."""

FIRST: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "ADD": {4: (2, 6), 5: (2, 13), 6: (2, 23)},
    "BATCH_MATMUL": {3: (2, 4), 4: (2, 5)},
    "CAST": {2: (2, 7), 3: (2, 8), 4: (2, 9), 5: (2, 12), 6: (2, 15), 7: (2, 17), 8: (2, 21)},
    "CONCATENATION": {3: (2, 3), 4: (2, 14), 5: (2, 21)},
    "CONV_2D": {4: (2, 3), 5: (2, 4), 6: (2, 9), 7: (2, 11), 8: (2, 15)},
    "DEPTHWISE_CONV_2D": {6: (2, 3), 7: (2, 11)},
    "DEQUANTIZE": {5: (2, 7), 6: (2, 18), 7: (2, 21), 8: (2, 22)},
    "FULLY_CONNECTED": {9: (2, 3), 10: (2, 11), 11: (2, 15), 12: (2, 17), 13: (2, 18), 14: (2, 21)},
    "GATHER": {4: (2, 4), 5: (2, 5), 6: (2, 13), 7: (2, 15)},
    "LOGISTIC": {3: (2, 3)},
    "MEAN": {3: (2, 4)},
    "MIRROR_PAD": {2: (2, 3), 3: (2, 12)},
    "MUL": {5: (2, 6), 6: (2, 11), 7: (2, 13), 8: (2, 23)},
    "PAD": {3: (2, 4), 4: (2, 6), 5: (2, 20)},
    "PADV2": {3: (2, 4), 4: (2, 6), 5: (2, 20)},
    "QUANTIZE": {3: (2, 7), 4: (2, 21)},
    "RELU": {3: (2, 5)},
    "RELU6": {3: (2, 5)},
    "RESIZE_BILINEAR": {4: (2, 5)},
    "RESIZE_NEAREST_NEIGHBOR": {4: (2, 4)},
    "SLICE": {4: (2, 4), 5: (2, 5), 6: (2, 14), 7: (2, 21)},
    "SPLIT": {4: (2, 3)},
    "SQUEEZE": {2: (2, 5)},
    "STRIDED_SLICE": {5: (2, 5), 6: (2, 6), 7: (2, 14), 8: (2, 14)},
    "SUB": {4: (2, 4), 5: (2, 4)},
    "TRANSPOSE": {5: (2, 4), 6: (2, 12), 7: (2, 15), 8: (2, 22)},
    "TRANSPOSE_CONV": {3: (2, 3), 4: (2, 13), 5: (2, 15)},
}
"""The first TensorFlow release whose runtime registers a version of an operator; versions before 2.3 are left out.

Facts of tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc. For 14 of these operators tflite-runtime
2.14.0 was asked for each version: it refuses what came after 2.14, and nothing else.
"""

REMEDY = (
    "Install ai-edge-litert, or a runtime as new as the converter. Where the board's runtime is fixed: convert with full-"
    "integer quantization (its versions are old), or with a TensorFlow of the runtime's time."
)


def detect(case: Case) -> Iterator[Sighting]:
    """The refusal itself; or an operator whose version came later than the installed runtime.

    ai-edge-litert has version numbers of its own and is not compared.
    """
    if said := MESSAGE.search(case.log):
        yield Sighting(
            where=f"operator {said[1]}",
            fact=f"has version {said[2]}, which the runtime does not register",
            remedy=REMEDY,
        )
        return
    for op, version, first, runtime in _newer(case):
        yield Sighting(
            where=f"operator {op}",
            fact=f"has version {version}, registered from TensorFlow {first[0]}.{first[1]} on; the runtime is {runtime}",
            remedy=REMEDY,
        )


def _newer(case: Case) -> Iterator[tuple[str, int, tuple[int, int], str]]:
    """(operator, its version, the release it came with, the installed runtime)."""
    package, runtime = _runtime(case)
    if case.file is None or not runtime:
        return
    for op, version in case.file.versions.items():
        first = FIRST.get(op, {}).get(version)
        if first is not None and numbers(runtime) < first:
            yield op, version, first, f"{package} {runtime}"


def _runtime(case: Case) -> tuple[str, str]:
    """What runs .tflite files here, with the version; none where it is ai-edge-litert, or unknown.

    tflite-runtime is installed to run files; TensorFlow often to convert them only.
    """
    for package in ("tflite-runtime", "ai-edge-litert", "tensorflow"):
        version = version_of(case, package)
        if version:
            return package, "" if package == "ai-edge-litert" else version
    return "", ""


@cache
def _converted(*, integer: bool) -> bytes:
    """64 inputs, a Dense layer of 32, one of 4: below 1024 entries the converter leaves a weight in float."""
    from keras_side.legacy import import_keras

    layers = import_keras().layers
    model = network(layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(4))
    return converted(model, integer_io=integer, representative=images() if integer else None)


def reproduce() -> Case:
    """A Dense network with dynamic-range weights, for a board that has the last tflite-runtime."""
    return Case(tflite=_converted(integer=False), packages={"tflite-runtime": "2.14.0"})


def repair(case: Case) -> Case:
    """The same network quantized to full integers: version 4 of FULLY_CONNECTED, which came with TensorFlow 1.14."""
    return Case(tflite=_converted(integer=True), packages=case.packages)


def measure(broken: Case, repaired: Case) -> float:
    return float(len(list(_newer(broken))) - len(list(_newer(repaired))))


MISMATCH = Mismatch(
    id="M36",
    name="operator version newer than the runtime",
    side="runtime",
    severity="fault",
    versions="TensorFlow 2.19 with tflite-runtime 2.14.0 (October 2023, the last one)",
    source="tensorflow#80736, #76743; tfjs#8461; tools/versioning/runtime_version.cc; the refusal of 2.14.0 was seen with this file",
    cause="The converter writes for each operator the version that knows all its options. Dynamic-range weights are a scale for "
    "each channel since TensorFlow 2.17, and FULLY_CONNECTED became version 12. An older runtime says: Didn't find op for "
    "builtin opcode 'FULLY_CONNECTED' version '12'. Full-integer files are not touched: they stay at version 4.",
    way_out="A runtime as new as the converter (ai-edge-litert), or full-integer quantization.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("operators the runtime does not know", 1),
    automatic=False,
    brings=("M37",),
)
