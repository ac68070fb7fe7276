"""Run as a program: runs .tflite files in LiteRT, each in a bounded process of its own, for `compare.running.trying`.

A line of JSON in, a line of JSON out. Every request is carried out in a fork of this small process: LiteRT may end that
one, or never come back, and starting Python and LiteRT is paid for once.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

_RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}
_ASKING = os.getppid()
"""Whoever asks. When it is killed, nobody waits for an answer."""
_LOOK_UP = 0.5
"""Seconds after which it is looked whether that one is still there."""
_PATIENCE = 6
"""Seconds of the clock for each second of processor time: other programs run here too."""


def answered(request: dict[str, Any], tell: Any) -> dict[str, Any]:
    """What LiteRT makes of a file on one kernel set; what it computes goes to a file."""
    kernels = request["kernels"]
    try:
        interpreter = Interpreter(  # from bytes, which it verifies; a path it does not
            model_content=Path(request["model"]).read_bytes(), num_threads=1, experimental_op_resolver_type=_RESOLVERS[kernels],
            experimental_preserve_all_tensors=kernels == "builtin",
        )  # fmt: skip
        interpreter.allocate_tensors()
        sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
    except (RuntimeError, ValueError, MemoryError) as error:
        return {"refused": _words(error)}
    tell({"doing": "running it"})
    try:
        found = _run(interpreter, sources, targets, request) if request["invoke"] else []
    except (RuntimeError, ValueError, MemoryError) as error:
        return {"refused": _words(error)}
    if request["outputs"]:
        with Path(request["outputs"]).open("wb") as file:
            for array in found:
                np.save(file, array)
    return {"inputs": list(map(_interface, sources)), "outputs": list(map(_interface, targets))} | {
        "shapes": {str(each["index"]): list(map(int, each["shape"])) for each in interpreter.get_tensor_details()}
    }


def _run(
    interpreter: Any, sources: list[dict[str, Any]], targets: list[dict[str, Any]], request: dict[str, Any]
) -> list[np.ndarray]:
    """The wanted tensors, or the outputs, of all samples, one sample behind the other."""
    samples = _samples(request["inputs"], sources)
    wanted = [each["index"] for each in targets] if request["wanted"] is None else request["wanted"]
    found: list[list[np.ndarray]] = [[] for _ in wanted]
    for place in range(len(samples[0]) if samples else 1):
        for detail, array in zip(sources, samples, strict=True):
            interpreter.set_tensor(detail["index"], array[place])
        interpreter.invoke()
        for parts, index in zip(found, wanted, strict=True):
            parts.append(np.atleast_1d(interpreter.get_tensor(index)))
    return [np.concatenate(parts) for parts in found]


def _samples(path: str | None, sources: list[dict[str, Any]]) -> list[np.ndarray]:
    """(samples, *shape) for each input: those given, or one of ones, by which can be divided."""
    if path is None:
        return [np.ones((1, *each["shape"]), each["dtype"]) for each in sources]
    with Path(path).open("rb") as file:
        return [np.load(file) for _ in sources]


def _interface(detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": detail["name"],
        "shape": list(map(int, detail["shape"])),
        "dtype": np.dtype(detail["dtype"]).name,
    }


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _child(request: dict[str, Any], pipe: int) -> None:
    """Carries out one request and never returns."""
    try:
        seconds, most = request["seconds"], request["bytes"]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE * seconds + 5)  # should the server have gone

        def tell(record: dict[str, Any]) -> None:
            os.write(pipe, json.dumps(record).encode() + b"\n")

        tell(answered(request, tell))
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a child never returns into the loop
        os.write(pipe, json.dumps({"refused": f"{type(error).__name__}: {_words(error)}"}).encode() + b"\n")
        os._exit(1)


def bounded(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of a child, or how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(request, writing)
    os.close(writing)
    until, said, silent = time.monotonic() + _PATIENCE * request["seconds"], b"", False
    while not silent:
        if select.select([reading], [], [], _LOOK_UP)[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                break
            said += part
        elif time.monotonic() > until or os.getppid() != _ASKING:
            silent = True
            os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    lines = [json.loads(line) for line in said.split(b"\n")[:-1]]
    doing = "running it" if lines else "preparing it"
    if silent or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return {"silent": request["seconds"], "doing": doing}
    if os.WIFSIGNALED(status):
        return {"ended": signal.Signals(os.WTERMSIG(status)).name, "doing": doing}
    answer: dict[str, Any] = lines[-1] if lines else {"ended": f"exit code {status >> 8}", "doing": doing}
    return answer


def main() -> None:
    """Answer until nobody asks any more."""
    for line in sys.stdin:
        print(json.dumps(bounded(json.loads(line))), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
