"""What LiteRT says of a .tflite that it does not load, on each of its kernel sets."""

from __future__ import annotations

from bridge.verifying import litert
from bridge.verifying.litert import KERNELS


def refusals(tflite: bytes | None) -> str:
    """One line for each kernel set that refuses the file, the delegate's reason included; empty when all load it."""
    assert tflite is not None  # noqa: S101 - a reproduction knows its own files
    said = ""
    for kernels in KERNELS:
        try:
            litert.as_users_make_it(tflite, kernels)
        except (RuntimeError, ValueError) as error:
            said += f"{kernels}: {' '.join(str(error).split())}\n"
    return said
