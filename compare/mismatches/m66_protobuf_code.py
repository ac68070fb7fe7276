"""M66: protobuf code that was generated for another protobuf package than the one installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import said_by_python, version_of
from compare.subjects.case import Case

REMEDIES: Mapping[str, str] = {
    "cannot import name 'runtime_version' from 'google.protobuf'": (
        "The package that fails needs protobuf 5 or later, another one holds it below: give them separate environments, "
        "or choose releases that agree (pip check names them)."
    ),
    "Descriptors cannot be created directly": (
        "The package that fails has code from protoc before 3.19: update it, or install protobuf 3.20.3 for it alone."
    ),
    "Descriptors cannot not be created directly": (
        "The package that fails has code from protoc before 3.19: update it, or install protobuf 3.20.3 for it alone."
    ),
    "Detected incompatible Protobuf Gencode/Runtime versions": (
        "Install the protobuf version the message asks for, or a release of that package that fits yours."
    ),
}
"""Message of the protobuf package: what to do. The second and third are one in two releases' wording."""


def detect(case: Case) -> Iterator[Sighting]:
    """Each of the messages, with the installed version where it is known."""
    installed = version_of(case, "protobuf")
    for message, remedy in REMEDIES.items():
        if message in case.log:
            yield Sighting(
                where="package protobuf",
                fact=f"'{message}'" + (f", installed: {installed}" if installed else ""),
                remedy=remedy,
            )


NEW = "from google.protobuf import runtime_version"
"""How code generated for protobuf 5 and later begins."""
OLD = (
    "from google.protobuf import descriptor; "
    "descriptor.EnumValueDescriptor(name='FLOAT', index=0, number=1, serialized_options=None, type=None)"
)
"""How code generated before 3.19 builds what it describes."""


def reproduce() -> Case:
    """Both kinds of generated code on protobuf 4."""
    last_lines = said_by_python(NEW) + said_by_python(_told(OLD))
    return Case(packages={"protobuf": version("protobuf")}, log=last_lines)


def _told(code: str) -> str:
    """The same code; its error of many lines is raised again with the first one only."""
    return f"try:\n    exec({code!r})\nexcept TypeError as error:\n    raise TypeError(str(error).splitlines()[0]) from None"


def repair(case: Case) -> Case:
    """Code of the time between, such as onnx 1.19.1 has, imported with the same protobuf."""
    return Case(packages=case.packages, log=said_by_python("from onnx import onnx_ml_pb2"))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(broken.log.splitlines()) - len(repaired.log.splitlines()))


MISMATCH = Mismatch(
    id="M66",
    name="protobuf code and protobuf package do not fit",
    side="environment",
    severity="fault",
    versions="protobuf 4.25.5, which TensorFlow 2.19 and onnx2tf 1.29.24 install",
    source="onnx#6660, tensorflow-onnx#2418, protobuf#10064; reproduced with the first statement of such code",
    cause="Packages ship code that protoc generated. Code for protobuf 5 and later asks the package for its version, which "
    "4.x cannot tell; code from before 3.19 builds descriptors in a way that 4.x forbids. TensorFlow, onnx and "
    "onnx2tf each hold protobuf to other versions.",
    way_out="Let one pip command resolve all packages, then pip check; else two environments, with the .onnx file between them.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("imports that fail", 2),
    automatic=False,
)
