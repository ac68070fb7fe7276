"""A .tflite held against its reference on some inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import dequantize
from bridge.exact.graph import Graph, Tensor
from bridge.verifying.batches import Arrays, arranged, batches, codes, onnx_shape, stored_codes
from bridge.verifying.chaos import nudged
from bridge.verifying.completed import Completed
from bridge.verifying.distance import (
    AnyDistance,
    RealDistance,
    distance,
    distance_on_grid,
    exact_distance,
    joined,
    real_distance,
)
from bridge.verifying.limits import Limits
from bridge.verifying.litert import KERNELS, Kernels, Runner
from bridge.verifying.operators import OperatorDistance, Operators
from bridge.verifying.reference import Session, asked, loaded
from bridge.verifying.seen import Seen

SEED = 0
"""Of the choice which input codes are moved for the baseline."""


@dataclass(frozen=True)
class Verification:
    """A .tflite held against one reference on some inputs."""

    reference: str
    samples: int
    outputs: Mapping[Kernels, Mapping[str, AnyDistance]]
    operators: tuple[OperatorDistance, ...]
    """In the order of the file."""
    baseline: Mapping[str, AnyDistance] = field(default_factory=dict)
    """The reference against itself, 0.1 % of its input codes one step off: how much the network itself amplifies."""
    undecided: Mapping[str, AnyDistance] = field(default_factory=dict)
    """The reference against itself, with a rounding wherever the file has one that training did not decide."""
    rounded: tuple[str, ...] = ()
    """The tensors with such a rounding."""
    otherwise: tuple[str, ...] = ()
    """Outputs, each with its kernel set, for which the file gives other numbers than its operators in a row.

    Then the runtime computes the whole otherwise, or the file is not the one of the graph: no operator can be named.
    """
    clipped: Mapping[str, float] = field(default_factory=dict)
    """The share of each input's values that lie outside of the range that training gave it."""
    constant: tuple[str, ...] = ()
    """Outputs for which the reference gave the very same numbers for every sample: they prove little."""

    def guilty(self) -> tuple[OperatorDistance, ...]:
        """Operators that alone are further away than rounding explains, the first of the file first, each once."""
        found: dict[tuple[str, str], OperatorDistance] = {}
        for item in self.operators:
            if item.off:
                found.setdefault((item.op, item.name), item)
        return tuple(found.values())

    def missed(self, limits: Limits) -> tuple[str, ...]:
        """What is further away than the limits, a sentence each: every output, on each kernel set."""
        return tuple(
            f"{kernels} {name}: {sentence}"
            for kernels, outputs in self.outputs.items()
            for name, apart in outputs.items()
            for sentence in limits.missed(apart)
        )

    def ok(self, limits: Limits) -> bool:
        """Whether every output is within the limits, on each kernel set; with nothing compared, it is not."""
        compared = [apart for outputs in self.outputs.values() for apart in outputs.values()]
        return bool(compared) and all(apart.count for apart in compared) and not self.missed(limits)


def verify(
    onnx_file: Path,
    graph: Graph,
    tflite: bytes,
    inputs: Arrays,
    *,
    operators: bool = True,
    kernel_sets: Sequence[Kernels] = KERNELS,
    seed: int = SEED,
) -> Verification:
    """Hold a conversion against ONNX Runtime on the QDQ graph it came from, the file as it is written.

    `graph` and `tflite` are those of one `Conversion`; `inputs` maps input names to float32 arrays laid out as in the
    ONNX file, any number of samples along axis 0. One batch of the model is held in memory at a time.

    Raises `BridgeError` when a package is missing, the inputs do not fit, or a runtime refuses a file.
    """
    model = loaded(onnx_file)
    names = [each.name for each in model.graph.output]
    reference = Session(asked(onnx_file, model), names, onnx_file.name)  # its local functions as they are
    runners = {kernels: Runner(tflite, kernels) for kernels in kernel_sets}
    completed = Completed(model, graph, onnx_file.name) if operators else None
    alone = {kernels: Operators(graph, completed.anchors, kernels) for kernels in kernel_sets} if completed else {}
    random = np.random.default_rng(seed)
    ends: dict[Any, list[dict[str, AnyDistance]]] = {
        "baseline": [],
        "undecided": [],
        **{each: [] for each in kernel_sets},
    }
    samples, otherwise = 0, []
    seen = Seen(graph)
    for batch in batches(graph, inputs):
        samples += len(next(iter(batch.values())))
        said = _outputs(reference(batch, graph), names, graph)
        seen.add(batch, said)
        fed = _fed(graph, batch)
        for kernels, runner in runners.items():
            got = runner(fed)
            ends[kernels].append(_apart(graph, got, said))
            if kernels in alone and len(ends[kernels]) == 1:  # one batch shows whether it is the same program
                otherwise += [f"{kernels} {name}" for name in _other(graph, got, alone[kernels].in_a_row(fed))]
        moved = _outputs(reference(nudged(graph, batch, random), graph), names, graph)
        ends["baseline"].append(_apart(graph, _as_stored(graph, moved), said))
        if completed is not None:
            values = completed(batch)
            rounded = _outputs(values, names, graph)
            ends["undecided"].append(_apart(graph, _as_stored(graph, rounded), said))
            for each in alone.values():
                each.add(values)
    found = sorted((item for each in alone.values() for item in each.found()), key=lambda item: item[0])
    together = {end: _together(parts) for end, parts in ends.items() if parts}
    return Verification(
        "ONNX Runtime on the QDQ graph",
        samples,
        {kernels: together[kernels] for kernels in kernel_sets},
        tuple(item for _, item in found),
        together["baseline"],
        together.get("undecided", {}),
        tuple(completed.rounded) if completed else (),
        tuple(otherwise),
        seen.clipped,
        seen.constant if samples > 1 else (),
    )


def compare_outputs(
    graph: Graph, tflite: bytes, inputs: Arrays, expected: Sequence[np.ndarray]
) -> dict[Kernels, dict[str, Any]]:
    """Distances of the outputs from `expected` (ONNX layout, one array for each output), on each kernel set.

    Raises `BridgeError` where the inputs or the expected values do not fit the file.
    """
    count = sum(1 for _ in batches(graph, inputs))
    parts = _expected(graph, expected, count)
    return compare(
        graph, tflite, ((batch, [part[at] for part in parts]) for at, batch in enumerate(batches(graph, inputs)))
    )


Said = tuple[Arrays, Sequence[np.ndarray]]
"""One batch of inputs, and what a reference gave for it: one array for each output, in ONNX layout."""


def compare(graph: Graph, tflite: bytes, said: Iterable[Said]) -> dict[Kernels, dict[str, Any]]:
    """As `compare_outputs`, a batch at a time: neither all inputs nor all outputs need be in memory."""
    found: dict[Kernels, list[dict[str, AnyDistance]]] = {kernels: [] for kernels in KERNELS}
    runners = {kernels: Runner(tflite, kernels) for kernels in KERNELS}
    for batch, expected in said:
        parts = _expected(graph, expected, 1)
        held = {name: arranged(graph.tensors[name], part[0]) for name, part in zip(graph.outputs, parts, strict=True)}
        for kernels, runner in runners.items():
            found[kernels].append(_apart(graph, runner(_fed(graph, batch)), held))
    return {kernels: _together(each) for kernels, each in found.items()}


def _expected(graph: Graph, expected: Sequence[np.ndarray], count: int) -> list[list[np.ndarray]]:
    """What a reference gave, cut into `count` batches, each in the shape that the output has in the ONNX file."""
    if len(expected) != len(graph.outputs):
        raise BridgeError(
            where="verification",
            problem=f"compares {len(graph.outputs)} outputs with the {len(expected)} of the reference",
            remedy=f"Hold the file against the model it was converted from; its outputs: {', '.join(graph.outputs)}.",
        )
    parts = []
    for name, values in zip(graph.outputs, expected, strict=True):
        shape = onnx_shape(graph.tensors[name])
        if values.size != count * int(np.prod(shape)) or (values.ndim > 1 and values.shape[1:] != shape[1:]):
            raise BridgeError(
                where=f"output '{name}'",
                problem=f"has shape {values.shape} in the reference; the file gives {shape}, {count} times",
                remedy="Hold the file against the model it was converted from, on the same samples.",
            )
        parts.append([part.reshape(shape) for part in np.split(np.atleast_1d(values), count)])
    return parts


def _fed(graph: Graph, batch: Arrays) -> dict[str, np.ndarray]:
    return {name: codes(graph.tensors[name], values) for name, values in batch.items()}


def _outputs(values: Arrays, names: Sequence[str], graph: Graph) -> dict[str, np.ndarray]:
    """The outputs of the model under the names they have in the file, arranged as the file stores them."""
    return {
        name: arranged(graph.tensors[name], values[source]) for name, source in zip(graph.outputs, names, strict=True)
    }


def _together(parts: Sequence[Mapping[str, AnyDistance]]) -> dict[str, AnyDistance]:
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def _apart(graph: Graph, got: Arrays, said: Arrays) -> dict[str, AnyDistance]:
    """The distance of every output; `got` as the file gives it, `said` as the reference does, arranged as stored."""
    found: dict[str, AnyDistance] = {}
    for name in graph.outputs:
        tensor, grid = graph.tensors[name], _grid(graph, name)
        values, real = np.atleast_1d(got[name]), np.atleast_1d(said[name])
        if grid is None:
            found[name] = real_distance(values, real) if real.dtype.kind == "f" else exact_distance(values, real)
        elif tensor.qparams is None:
            found[name] = distance_on_grid(values, _on_grid(grid, real), float(grid.q.scale))
        else:
            unknown = int(np.count_nonzero(np.isnan(real))) if real.dtype.kind == "f" else 0
            apart = distance(values, _codes(grid, real), int(tensor.q.zero_point))
            found[name] = replace(apart, not_finite=unknown)
    return found


_FLOAT = 1e-3
"""The part of its range that a float output may be away: kernels that are fused add in another order."""


def _other(graph: Graph, got: Arrays, row: Arrays) -> list[str]:
    apart = _apart(graph, got, {name: _real(graph, name, np.atleast_1d(values)) for name, values in row.items()})
    return [name for name, each in apart.items() if each.fraction > (_FLOAT if isinstance(each, RealDistance) else 0)]


def _real(graph: Graph, name: str, values: np.ndarray) -> np.ndarray:
    tensor = graph.tensors[name]
    return values if tensor.qparams is None else dequantize(values, tensor.q)


def _as_stored(graph: Graph, said: Arrays) -> dict[str, np.ndarray]:
    """What the file would give if it said just that."""
    stored = {}
    for name, real in said.items():
        grid = _grid(graph, name)
        on_grid = real if grid is None else _on_grid(grid, real)
        stored[name] = on_grid if grid is None or graph.tensors[name].qparams is None else _codes(grid, real)
    return stored


def _grid(graph: Graph, name: str) -> Tensor | None:
    """The tensor that says on which grid an output lies, per tensor: itself, or what its DEQUANTIZE reads."""
    tensor = graph.tensors[name]
    producer = graph.producers().get(name)
    if tensor.qparams is None and producer is not None and producer.op == "DEQUANTIZE":
        tensor = graph.tensors[producer.inputs[0]]
    return tensor if tensor.qparams is not None and tensor.q.axis is None else None


def _codes(grid: Tensor, said: np.ndarray) -> np.ndarray:
    """Codes of the reference: rounded, or as they are where its output is codes itself (uint8 ones lie 128 higher)."""
    if said.dtype.kind == "f":
        return stored_codes(grid, said)
    shift = (128 if grid.dtype == np.uint8 else 0) - (128 if said.dtype == np.uint8 else 0)
    return (said.astype(np.int32) + shift).astype(grid.dtype)


def _on_grid(grid: Tensor, said: np.ndarray) -> np.ndarray:
    on_grid = dequantize(_codes(grid, said), grid.q)
    return np.where(np.isnan(said), said, on_grid) if said.dtype.kind == "f" else on_grid
