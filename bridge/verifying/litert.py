"""LiteRT on one of its kernel sets: codes in, codes out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from bridge.errors import BridgeError
from bridge.verifying.batches import Arrays
from bridge.verifying.missing import missing

Kernels = Literal["xnnpack", "reference"]
KERNELS: tuple[Kernels, ...] = ("xnnpack", "reference")
"""LiteRT's default on CPUs, and the plain kernels that NPU vendors reproduce."""


class Runner:
    """A .tflite ready to run on one kernel set: codes in, codes out, by tensor name."""

    def __init__(self, tflite: bytes, kernels: Kernels) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise missing("ai-edge-litert", "npu") from error
        resolver = OpResolverType.AUTO if kernels == "xnnpack" else OpResolverType.BUILTIN_REF
        try:
            self._interpreter = Interpreter(model_content=tflite, experimental_op_resolver_type=resolver, num_threads=1)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise BridgeError(
                where=f".tflite on {kernels} kernels",
                problem=str(error).strip().splitlines()[0],
                remedy="The runtime refuses this file; please report it with the model.",
            ) from error
        self._inputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
        self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, inputs[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
