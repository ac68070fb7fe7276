"""M71: a package whose native code was built for NumPy 1 runs with NumPy 2."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache

from bridge.exact.graph import Node
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, tflite_of
from compare.mismatches.parts.installed import numbers, version_of
from compare.subjects.case import Case

MESSAGE = re.compile(
    r"_ARRAY_API not found|has no attribute '_ARRAY_API'|A module that was compiled using NumPy 1\.x cannot be run in"
)
"""Of code built with NumPy 1's headers, of code built with NumPy 2's, and of NumPy 2 itself."""
FIRST_FOR_NUMPY_2: Mapping[str, tuple[int, int]] = {"tflite-runtime": (2, 15), "tensorflow": (2, 18)}
"""tflite-runtime ends with 2.14; TensorFlow 2.18 is the first that was built for NumPy 2 (release notes)."""
REMEDY = (
    "Replace tflite-runtime by ai-edge-litert (same Interpreter); or hold NumPy below 2 (numpy<2) for that package."
)


def detect(case: Case) -> Iterator[Sighting]:
    """The messages themselves; or a package that is known to be built for NumPy 1 beside NumPy 2."""
    found = MESSAGE.search(case.log)
    said = found[0].replace("'", "") if found else ""
    numpy = version_of(case, "numpy")
    old = [
        f"{package} {version}"
        for package, first in FIRST_FOR_NUMPY_2.items()
        if (version := version_of(case, package)) and numbers(version) < first
    ]
    if numbers(numpy) >= (2, 0) and old:
        yield Sighting(
            where="packages numpy and " + " and ".join(each.split()[0] for each in old),
            fact=f"numpy {numpy} with {', '.join(old)}" + (f": '{said}'" if said else ""),
            remedy=REMEDY,
        )
    elif said:
        yield Sighting(
            where="package numpy", fact=f"'{said}'" + (f", numpy is {numpy}" if numpy else ""), remedy=REMEDY
        )


_WITHOUT = (
    "from numpy.core import multiarray, _multiarray_umath\n"
    "for module in (multiarray, _multiarray_umath): del module._ARRAY_API\n"
)
"""NumPy 2 has its table of C functions in another module; taken away by hand, NumPy 1 looks the same to native code."""
_ERROR = re.compile(r"\w+Error: .*")
_ADDRESS = re.compile(r"0x[0-9a-f]+")


@cache
def _opened(before: str) -> str:
    """The errors on the way to an Interpreter in a new Python process; empty when it opens the file."""
    x, y = activation("x", (1, 4), 0.5), activation("y", (1, 4), 0.5)
    content = tflite_of([Node("RELU", "relu", ("x",), ("y",))], [x, y], ["x"], ["y"])
    code = f"{before}from ai_edge_litert.interpreter import Interpreter\nInterpreter(model_content={content!r})"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    lines = [line for line in done.stderr.splitlines() if _ERROR.match(line)]
    return "".join(f"{_ADDRESS.sub('0x0', line)}\n" for line in lines) if done.returncode else ""


def reproduce() -> Case:
    """An Interpreter whose native code does not find NumPy's C functions: what tflite-runtime 2.14.0 meets with NumPy 2."""
    return Case(packages={"tflite-runtime": "2.14.0", "numpy": "2.4.6"}, log=_opened(_WITHOUT))


def repair(case: Case) -> Case:  # noqa: ARG001 - packages are not installed from here
    """LiteRT's own package, with NumPy as it is."""
    return Case(packages={"ai-edge-litert": "2.1.0", "numpy": "2.4.6"}, log=_opened(""))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log) - bool(repaired.log))


MISMATCH = Mismatch(
    id="M71",
    name="native code for NumPy 1 with NumPy 2",
    side="environment",
    severity="fault",
    versions="tflite-runtime 2.14.0 with numpy 2.4.6; the message of the reproduction is ai-edge-litert 2.1.0's",
    source="pharmpy#3268, tensorflow#90245, wyoming-addons#4; seen with those two wheels, reproduced with the table taken away by hand",
    cause="tflite-runtime ends with 2.14.0, built for NumPy 1, and does not tell pip so: it asks for numpy>=1.23.2. The import "
    "passes; the first Interpreter says AttributeError: _ARRAY_API not found, then SystemError: CreateWrapperFromFile "
    "returned a result with an exception set. TensorFlow before 2.18 fails at its import when its pin is overruled.",
    way_out="ai-edge-litert in place of tflite-runtime, or numpy<2 in the same pip command.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("interpreters that do not open", 1),
    automatic=False,
)
