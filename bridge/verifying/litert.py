"""Interpreters of LiteRT, made here and nowhere else: which kernels run is always said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from bridge.errors import BridgeError
from bridge.verifying.batches import Arrays
from bridge.verifying.missing import missing

Kernels = Literal["xnnpack", "reference"]
KERNELS: tuple[Kernels, ...] = ("xnnpack", "reference")
"""LiteRT's default on CPUs, and the plain kernels that NPU vendors reproduce: what a file is verified on."""
KernelSet = Literal["xnnpack", "builtin", "reference"]
"""The same, and LiteRT's own optimized kernels without a delegate: they show every tensor."""
_RESOLVERS: dict[KernelSet, str] = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


def interpreter(
    model: Path | bytes,
    kernels: KernelSet = "xnnpack",
    *,
    threads: int = 1,
    keep_tensors: bool = False,
    where: str = ".tflite",
) -> Any:
    """LiteRT's `Interpreter` of a .tflite on one kernel set, its tensors allocated.

    `keep_tensors`: what operators hand each other can be read afterwards (not on XNNPACK, which hides it).

    Raises `BridgeError` where ai-edge-litert is missing or refuses the file; the cause is LiteRT's own exception.
    """
    if not (model.stat().st_size if isinstance(model, Path) else model):
        raise BridgeError(where=where, problem="is empty", remedy="Convert or copy the model again.")
    try:
        return as_users_make_it(model, kernels, threads=threads, keep_tensors=keep_tensors)
    except (RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BridgeError(
            where=where,
            problem=f"LiteRT refuses the model on its {kernels} kernels: {said}",
            remedy="This version of LiteRT will not run the file. Where the bridge wrote it, please report it.",
        ) from error


def as_users_make_it(
    model: Path | bytes, kernels: KernelSet = "xnnpack", *, threads: int = 1, keep_tensors: bool = False
) -> Any:
    """As `interpreter`, but LiteRT's own exceptions get out: for what is told by its words."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise missing("ai-edge-litert", "verify") from error
    source = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
    ready = Interpreter(
        **source,
        num_threads=threads,
        experimental_op_resolver_type=getattr(OpResolverType, _RESOLVERS[kernels]),
        experimental_preserve_all_tensors=keep_tensors,
    )
    ready.allocate_tensors()
    return ready


class Runner:
    """A .tflite ready to run on one kernel set: codes in, codes out, by tensor name."""

    def __init__(self, tflite: bytes, kernels: Kernels) -> None:
        self._interpreter = interpreter(tflite, kernels)
        self._inputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
        self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, inputs[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
