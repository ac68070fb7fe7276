"""Run as a program by the environment that has tflite-micro: does the model run there, and with which outputs?

    ask_tflm.py MODEL.tflite INPUTS.npz|- OUTPUTS.npz COUNT FIRST

Prints one JSON line; COUNT is how many outputs the model has, FIRST the place of the smallest arena that is tried. The interpreter's own words, its reason for refusing and
the arena it used, go to the error output; it may abort the process on odd files.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from typing import Any

import numpy as np

MOST_BYTES = 12 * 2**30
"""Of address space: a damaged file may ask for more than the machine has."""

ARENAS = tuple(64 * 1024 * 16**step for step in range(4))
"""Bytes tried in turn, 64 KB to 256 MB: what is used of it is the same in each (measured: it is the smallest that does)."""


def answer(model: str, inputs: str, outputs: str, count: str, first: str = "0") -> dict[str, object]:
    """`ran` on which samples, or `refused` with the reason; the outputs of these samples go to a file."""
    from tflite_micro import runtime

    refused = ""
    for arena in ARENAS[int(first) :]:
        mark(f"arena {arena}")
        try:
            interpreter = runtime.Interpreter.from_file(model, arena_size=arena)
        except RuntimeError as error:  # too small, or refused: the largest one tells
            refused = str(error)
            continue
        except (
            struct.error,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
        ) as error:  # its Python part reads it, too
            return {"refused": f"its reader finds the file damaged ({error})"}
        if inputs == "-":
            return {"ran": [], "stopped": ""}
        mark("prepared")
        ran, found, stopped = _run(interpreter, inputs, int(count))
        if not ran:
            return {"refused": stopped}
        np.savez(outputs, **found)
        mark("allocations")
        interpreter.print_allocations()
        return {"ran": ran, "stopped": stopped}
    return {"refused": refused}


def mark(what: str) -> None:
    """A line in the error output, so that the interpreter's words before and after can be told apart."""
    print(what, file=sys.stderr, flush=True)  # noqa: T201


def _run(interpreter: Any, inputs: str, count: int) -> tuple[list[int], dict[str, np.ndarray], str]:
    """The samples that ran, their outputs as `sample.place`, and why another one did not run."""
    with np.load(inputs) as loaded:
        samples = [loaded[str(place)] for place in range(len(loaded.files))]
    ran, stopped = [], ""
    found: dict[str, np.ndarray] = {}
    for sample in range(len(samples[0]) if samples else 1):
        try:
            for place, array in enumerate(samples):
                interpreter.set_input(array[sample], place)
            interpreter.invoke()
            outputs = [np.array(interpreter.get_output(place)) for place in range(count)]
        except (RuntimeError, ValueError) as error:
            stopped = str(error)
            continue
        ran.append(sample)
        found |= {f"{sample}.{place}": output for place, output in enumerate(outputs)}
    return ran, found, stopped


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(answer(*sys.argv[1:])))  # noqa: T201 - its answer
