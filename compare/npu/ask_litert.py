"""Run as a program, in a process of its own: what LiteRT makes of a .tflite, as one JSON line. LiteRT may crash on odd files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def answer(path: Path) -> dict[str, object]:
    """The execution nodes after delegation, or LiteRT's own reason for refusing."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        return {"refused": str(error).strip().splitlines()[0]}
    listed = interpreter._get_ops_details()  # noqa: SLF001 - nothing public lists what a delegate took
    return {
        "nodes": [
            {
                "op": node["op_name"],
                "inputs": list(map(int, node["inputs"])),
                "outputs": list(map(int, node["outputs"])),
            }
            for node in listed
        ]
    }


def reference_outputs(path: Path, inputs: Path) -> dict[str, object]:
    """The first output on the reference kernels, for every sample in the .npz."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with np.load(inputs) as loaded:
        samples = [loaded[name] for name in sorted(loaded.files, key=int)]
    interpreter = Interpreter(
        model_content=path.read_bytes(), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    outputs = []
    for sample in range(len(samples[0])):
        for detail, array in zip(interpreter.get_input_details(), samples, strict=True):
            interpreter.set_tensor(detail["index"], array[sample])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).reshape(-1).tolist())
    return {"outputs": outputs}


if __name__ == "__main__":
    model, *inputs = map(Path, sys.argv[1:])
    print(json.dumps(reference_outputs(model, inputs[0]) if inputs else answer(model)))  # noqa: T201 - its answer
