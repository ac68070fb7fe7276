"""M72: flatbuffers code that was generated for another flatbuffers package than the one installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bridge.exact.graph import Node
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, tflite_of
from compare.mismatches.parts.installed import numbers, said_by_python, version_of
from compare.subjects.case import Case

REMEDIES: Mapping[str, str] = {
    "EndVector() missing 1 required positional argument: 'vectorNumElems'": (
        "Install flatbuffers 2.0.7 or later; what holds it at 1.12 (TensorFlow before 2.10) goes into another environment."
    ),
    "EndVector() takes 1 positional argument but 2 were given": (
        "Install flatbuffers 2.0.7 or later, which takes both ways; 2.0 takes the new one only."
    ),
}
"""Message of the flatbuffers package: what to do."""
TAKES_ONE_WAY_ONLY = (2, 0)
"""1.12 wants the length, 2.0 forbids it, 2.0.7 and every release tried after it take both."""
NEW_CODE = ("ai-edge-litert",)
"""Packages of which every release came after the change; they ask for flatbuffers without a version."""


def detect(case: Case) -> Iterator[Sighting]:
    """Each of the messages; or flatbuffers 1.x beside a package that cannot write a file with it."""
    installed = version_of(case, "flatbuffers")
    said = [message for message in REMEDIES if message in case.log]
    for message in said:
        yield Sighting(
            where="package flatbuffers",
            fact=f"'{message}'" + (f", installed: {installed}" if installed else ""),
            remedy=REMEDIES[message],
        )
    new = [f"{package} {version}" for package in NEW_CODE if (version := version_of(case, package))]
    if not said and installed and numbers(installed) < TAKES_ONE_WAY_ONLY and new:
        yield Sighting(
            where="package flatbuffers",
            fact=f"flatbuffers {installed} with {', '.join(new)}: it reads .tflite files and cannot write one",
            remedy=next(iter(REMEDIES.values())),
        )


_WRITE = """
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
builder = flatbuffers.Builder(1024)
builder.Finish(schema.ModelT.InitFromPackedBuf({content!r}, 0).Pack(builder))
"""
"""A .tflite written with the code that flatc generated for LiteRT."""
_OF_1_12 = """
import flatbuffers
end = flatbuffers.Builder.EndVector
flatbuffers.Builder.EndVector = lambda self, vectorNumElems: end(self)
flatbuffers.Builder.EndVector.__qualname__ = "Builder.EndVector"
"""
_OF_2_0 = """
import flatbuffers
end = flatbuffers.Builder.EndVector
flatbuffers.Builder.EndVector = lambda self: end(self)
flatbuffers.Builder.EndVector.__qualname__ = "Builder.EndVector"
builder = flatbuffers.Builder(64)
builder.StartVector(4, 0, 4)
builder.EndVector(0)
"""
"""The one method that changed, with the parameters it had in these releases; and what code generated before 2.0 calls."""


def _write() -> str:
    x, y = activation("x", (1, 4), 0.5), activation("y", (1, 4), 0.5)
    return _WRITE.format(content=tflite_of([Node("RELU", "relu", ("x",), ("y",))], [x, y], ["x"], ["y"]))


def reproduce() -> Case:
    """New generated code on flatbuffers 1.12, and old code on 2.0; the method's parameters are set by hand."""
    return Case(log=said_by_python(_OF_1_12 + _write()) + said_by_python(_OF_2_0))


def repair(case: Case) -> Case:  # noqa: ARG001 - packages are not installed from here
    """Both on the flatbuffers that is installed here."""
    old = "import flatbuffers\nbuilder = flatbuffers.Builder(64)\nbuilder.StartVector(4, 0, 4)\nbuilder.EndVector(0)"
    return Case(log=said_by_python(_write()) + said_by_python(old))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(broken.log.splitlines()) - len(repaired.log.splitlines()))


MISMATCH = Mismatch(
    id="M72",
    name="flatbuffers code and flatbuffers package do not fit",
    side="environment",
    severity="fault",
    versions="the code of ai-edge-litert 2.1.0 on flatbuffers 1.12 (fails) and 2.0, 23.5.26, 24.3.25, 25.12.19 (work)",
    source="flatbuffers#6858, #6385; tensorflow#51590; tensorflow-onnx#2047; tflite-micro#670; acuitylite#7; reproduced with "
    "the parameters set by hand, and seen with flatbuffers 1.12 itself",
    cause="A .tflite is written with Python code that flatc generated. Such code of today does not say how long a vector is, "
    "flatbuffers 1.12 wants to know; code of before 2021 says it, flatbuffers 2.0 does not want to. Old TensorFlow holds the "
    "package at 1.12. Vela 3.10 holds it at 23.5.26 and onnx2tf 1.29 at 25.12.19: pip complains, and both work with the newer.",
    way_out="flatbuffers 2.0.7 or later, whatever an old pin says; or an environment of its own for the package with the pin.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("files that are not written", 2),
    automatic=False,
)
