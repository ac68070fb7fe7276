"""Run a folder of .tflite files and keep what they give: a program of its own, for LiteRT on whatever processor it is run.

    python inside.py JOBS TAG

The file JOBS lists [name, kernel sets] as JSON; beside it NAME.tflite and NAME.npz (inputs by name, samples along the first axis) are
read, NAME.TAG.KERNELS.npz (outputs by place, the same way) is written. A line of JSON before and after each job says how
far it is, so that a kernel that ends the process costs one job. It imports nothing of the project, which is not there.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def outputs(model: Path, kernels: str) -> dict[str, np.ndarray]:
    """Every output of every sample, `0`, `1`, ... in the order of the file."""
    interpreter = Interpreter(str(model), experimental_op_resolver_type=RESOLVERS[kernels], num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()
    with np.load(model.with_suffix(".npz")) as inputs:
        samples = {detail["index"]: inputs[detail["name"]] for detail in given}
    count = len(next(iter(samples.values())))
    places = [detail["index"] for detail in interpreter.get_output_details()]
    got = [[] for _ in places]
    for sample in range(count):
        for index, array in samples.items():
            interpreter.set_tensor(index, array[sample])
        interpreter.invoke()
        for kept, index in zip(got, places, strict=True):
            kept.append(interpreter.get_tensor(index))
    return {str(place): np.stack(kept) for place, kept in enumerate(got)}


def main() -> None:
    jobs, tag = Path(sys.argv[1]), sys.argv[2]
    for name, kernel_sets in json.loads(jobs.read_text()):
        print(json.dumps({"start": name}), flush=True)
        refused = {}
        for kernels in kernel_sets:
            try:
                made = outputs(jobs.with_name(f"{name}.tflite"), kernels)
            except (RuntimeError, ValueError) as error:
                refused[kernels] = (str(error).strip().splitlines() or ["no reason given"])[0]
                continue
            beside = jobs.with_name(f"{name}.{tag}.{kernels}.{os.getpid()}.part.npz")
            np.savez(beside, **made)  # whole or not at all, as runs are stopped, gone on with and share a folder
            beside.replace(jobs.with_name(f"{name}.{tag}.{kernels}.npz"))
        print(json.dumps({"done": name, "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
