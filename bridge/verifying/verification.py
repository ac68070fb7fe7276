"""A .tflite held against its reference on some inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.exact.graph import Graph
from bridge.verifying import operators as each
from bridge.verifying.batches import Arrays, batches, codes, joined
from bridge.verifying.distance import Distance, distance
from bridge.verifying.litert import KERNELS, Kernels, Runner
from bridge.verifying.operators import OperatorDistance
from bridge.verifying.reference import reference_codes


@dataclass(frozen=True)
class Verification:
    """A .tflite held against one reference on some inputs."""

    reference: str
    samples: int
    outputs: Mapping[Kernels, Mapping[str, Distance]]
    operators: tuple[OperatorDistance, ...]

    def guilty(self) -> tuple[OperatorDistance, ...]:
        """Operators that differ, the worst first."""
        differing = [item for item in self.operators if item.distance.worst > 0]
        return tuple(sorted(differing, key=lambda item: (-item.distance.worst, item.distance.equal)))


def verify(onnx_file: Path, graph: Graph, tflite: bytes, inputs: Arrays, *, operators: bool = True) -> Verification:
    """Hold a conversion against ONNX Runtime on the QDQ graph it came from.

    `graph` is `Conversion.graph` of a file with int8 inputs and outputs; `inputs` maps input names to float32 arrays
    laid out as in the ONNX file, any number of samples along axis 0.

    Raises `BridgeError` when a package is missing, the inputs do not fit, or a runtime refuses a file.
    """
    pieces = list(batches(graph, inputs))
    references = [reference_codes(onnx_file, graph, batch) for batch in pieces]
    outputs: dict[Kernels, dict[str, Distance]] = {}
    for kernels in KERNELS:
        runner = Runner(tflite, kernels)
        got = [runner({name: reference[name] for name in graph.inputs}) for reference in references]
        outputs[kernels] = {
            name: distance(joined([one[name] for one in got]), joined([one[name] for one in references]))
            for name in graph.outputs
        }
    found = tuple(each.operators(graph, references)) if operators else ()
    samples = sum(len(next(iter(batch.values()))) for batch in pieces)
    return Verification("ONNX Runtime on the QDQ graph", samples, outputs, found)


def compare_outputs(graph: Graph, tflite: bytes, inputs: Arrays, expected: Sequence[np.ndarray]) -> dict[Kernels, Any]:
    """Distances of the outputs from `expected` (float32, ONNX layout, one for each output), on each kernel set."""
    pieces = list(batches(graph, inputs))
    result: dict[Kernels, Any] = {}
    for kernels in KERNELS:
        runner = Runner(tflite, kernels)
        got = [runner({name: codes(graph.tensors[name], batch[name]) for name in graph.inputs}) for batch in pieces]
        result[kernels] = {
            name: distance(
                joined([one[name] for one in got]),
                joined([codes(graph.tensors[name], part) for part in np.split(real, len(pieces))]),
            )
            for name, real in zip(graph.outputs, expected, strict=True)
        }
    return result
