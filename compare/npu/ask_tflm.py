"""Run as a program by the environment that has tflite-micro: does the model run there, on which arena, with which outputs?

Prints one JSON line. Its allocator's own words go to the error output; it may abort the process on odd files.
"""

from __future__ import annotations

import json
import sys

import numpy as np

ARENAS = tuple(16 * 1024 * 4**step for step in range(7))
"""Bytes tried in turn, 16 KB to 64 MB."""


def answer(model: str, inputs: str) -> dict[str, object]:
    """Outputs for every sample in the .npz, by position, and the arena that was enough."""
    from tflite_micro import runtime

    with np.load(inputs) as loaded:
        samples = [loaded[name] for name in sorted(loaded.files, key=int)]
    for arena in ARENAS:
        try:
            interpreter = runtime.Interpreter.from_file(model, arena_size=arena)
        except RuntimeError:
            continue  # too small, or refused: what it said tells them apart
        outputs = []
        for sample in range(len(samples[0])):
            for place, array in enumerate(samples):
                interpreter.set_input(array[sample], place)
            interpreter.invoke()
            outputs.append(np.asarray(interpreter.get_output(0)).reshape(-1).tolist())
        interpreter.print_allocations()
        return {"outputs": outputs, "arena": arena}
    return {"refused": True}


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1], sys.argv[2])))  # noqa: T201 - its answer
