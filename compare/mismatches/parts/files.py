"""Making and running the small files that reproductions are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bridge.exact.graph import Graph, Node, QParams, Tensor, constant
from bridge.exact.lowering.activation import shape_of
from bridge.exact.writer import write
from bridge.verifying.litert import Kernels, Runner
from compare.subjects.case import Case
from compare.tflite.edit import with_tensors


def activation(name: str, shape: Sequence[int], scale: float, zero_point: int = 0, dtype: Any = np.int8) -> Tensor:
    """A quantized tensor that is computed or fed."""
    qparams = QParams(np.array(scale, np.float32), np.array(zero_point, np.int32))
    return Tensor(name, tuple(shape), np.dtype(dtype), None, qparams)


def codes(
    name: str, values: Any, scale: Any, zero_point: Any = 0, axis: int | None = None, dtype: Any = np.int8
) -> Tensor:
    """A quantized constant; per channel where `scale` is a sequence."""
    data = np.asarray(values, dtype)
    scales = np.asarray(scale, np.float32)
    zero_points = np.broadcast_to(np.asarray(zero_point, np.int32), scales.shape).copy()
    return constant(name, data, QParams(scales, zero_points, axis if scales.ndim else None))


def tflite_of(nodes: Sequence[Node], tensors: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A .tflite of these TFLite operators."""
    return write(Graph(tuple(nodes), {tensor.name: tensor for tensor in tensors}, tuple(inputs), tuple(outputs)))


def rewritten(case: Case, tensors: Mapping[str, Tensor]) -> Case:
    """The case with some tensors of its .tflite replaced, by name."""
    assert case.tflite is not None  # noqa: S101 - only cases with a file are rewritten
    return replace(case, tflite=with_tensors(case.tflite, tensors))


def run_codes(tflite: bytes, kernels: Kernels = "xnnpack", seed: int = 0, samples: int = 64) -> np.ndarray:
    """The first output of a .tflite on random inputs over the whole range of their types, (samples, ...)."""
    from compare.tflite.graph import open_tflite

    graph = open_tflite(tflite).graph
    runner = Runner(tflite, kernels)
    random = np.random.default_rng(seed)
    outputs = []
    for _ in range(samples):
        inputs = {}
        for name in graph.inputs:
            tensor = graph.tensors[name]
            if tensor.dtype.kind == "f":
                inputs[name] = random.normal(size=tensor.shape).astype(np.float32)
            else:
                limits = np.iinfo(tensor.dtype)
                inputs[name] = random.integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)
        outputs.append(runner(inputs)[graph.outputs[0]])
    return np.stack(outputs)


def share_that_differs(broken: Case, repaired: Case, kernels: Kernels = "xnnpack") -> float:
    """Share of output codes, 0..1, that differ between the two files on the same random inputs."""
    assert broken.tflite is not None  # noqa: S101 - a measure knows its own reproduction
    assert repaired.tflite is not None  # noqa: S101
    return float((run_codes(broken.tflite, kernels) != run_codes(repaired.tflite, kernels)).mean())


__all__ = ["activation", "codes", "rewritten", "run_codes", "shape_of", "share_that_differs", "tflite_of"]
