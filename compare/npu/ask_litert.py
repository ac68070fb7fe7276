"""Run as a program, in a process of its own: what LiteRT makes of a .tflite, as one JSON line. LiteRT may crash on odd files.

    ask_litert.py xnnpack|builtin|reference MODEL.tflite INPUTS.npz|- OUTPUTS.npz|-
"""  # fmt: skip

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import numpy as np

MOST_BYTES = 12 * 2**30
"""Of address space: a damaged file may ask for more than the machine has."""


def answer(kernels: str, model: str, inputs: str, outputs: str) -> dict[str, object]:
    """The execution nodes after delegation and the samples that ran, or LiteRT's reason; outputs go to a file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {
        "xnnpack": OpResolverType.AUTO,
        "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": OpResolverType.BUILTIN_REF,
    }[kernels]
    try:
        interpreter = Interpreter(model_path=model, num_threads=1, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError, MemoryError) as error:
        return {"refused": str(error) or type(error).__name__}
    nodes = [
        {"op": node["op_name"], "inputs": list(map(int, node["inputs"])), "outputs": list(map(int, node["outputs"]))}
        for node in interpreter._get_ops_details()  # noqa: SLF001 - nothing public lists what a delegate took
    ]
    if inputs == "-":
        return {"nodes": nodes, "ran": [], "stopped": ""}
    print("prepared", file=sys.stderr, flush=True)  # noqa: T201 - a crash from here on is one while running
    ran, found, stopped = _run(interpreter, inputs)
    if not ran:
        return {"refused": stopped}
    if outputs != "-":
        np.savez(outputs, **found)
    return {"nodes": nodes, "ran": ran, "stopped": stopped}


def _run(interpreter: Any, inputs: str) -> tuple[list[int], dict[str, np.ndarray], str]:
    """The samples that ran, their outputs as `sample.place`, and why another one did not run."""
    with np.load(inputs) as loaded:
        samples = [loaded[str(place)] for place in range(len(loaded.files))]
    ran, stopped = [], ""
    found: dict[str, np.ndarray] = {}
    for sample in range(len(samples[0]) if samples else 1):
        try:
            for detail, array in zip(interpreter.get_input_details(), samples, strict=True):
                interpreter.set_tensor(detail["index"], array[sample])
            interpreter.invoke()
            outputs = [np.array(interpreter.get_tensor(detail["index"])) for detail in interpreter.get_output_details()]
        except (RuntimeError, ValueError, MemoryError) as error:
            stopped = str(error) or type(error).__name__
            continue
        ran.append(sample)
        found |= {f"{sample}.{place}": output for place, output in enumerate(outputs)}
    return ran, found, stopped


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(answer(*sys.argv[1:])))  # noqa: T201 - its answer
