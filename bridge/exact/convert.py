"""One call from ONNX to .tflite, and what it did in numbers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from bridge.errors import BridgeError, printable
from bridge.exact import record
from bridge.exact.accumulators import refuse_wrapping
from bridge.exact.attributes import READ
from bridge.exact.borders import IODtype, with_io
from bridge.exact.budget import MAX_ELEMENTS, MAX_NODES, Budget, size_of
from bridge.exact.complete.price import priced
from bridge.exact.dense import PerChannelDense, dense_written_as
from bridge.exact.graph import Graph, Note, check, check_node_names, without_unused
from bridge.exact.limits import refuse_beyond_limits
from bridge.exact.lowering import lower
from bridge.exact.names import reserved
from bridge.exact.pair_sums import Weights, with_weights
from bridge.exact.passes import passes, run_passes
from bridge.exact.passes.layout import Order, borders
from bridge.exact.passes.merge import MeanForm
from bridge.exact.ranks import within_ranks
from bridge.exact.reader import from_model, read
from bridge.exact.requantize import Requantize, requantized_by
from bridge.exact.saving import save
from bridge.exact.shared_memory import kept_apart
from bridge.exact.sizes import refuse_other_sizes
from bridge.exact.unwritten import refuse_unread
from bridge.exact.writer import write

__all__ = ["Conversion", "Options", "convert", "save"]


@dataclass(frozen=True)
class Options:
    """What a caller can choose; the rest is decided by the model."""

    io: IODtype = "int8"
    layout: Order = "nhwc"
    """Of inputs and outputs with 4 axes; all others keep the axes of the model."""
    layouts: Mapping[str, Order] = field(default_factory=dict)
    """Of single inputs and outputs by name, before `layout`; 3 and more axes can be channels last."""
    allow_float: bool = False
    requantize: Requantize = "ADD"
    per_channel_dense: PerChannelDense = "FULLY_CONNECTED"
    weights: Weights = "safe"
    max_elements: int = MAX_ELEMENTS
    """Of one tensor, and of all constants that the conversion computes (bridge/exact/budget.py)."""
    max_nodes: int = MAX_NODES
    """Operators of the model, its local functions written out."""
    mean: MeanForm = "auto"
    """Of averages that training gave no scale."""


@dataclass(frozen=True, eq=False, repr=False)
class Conversion:
    """A .tflite, the graph it was written from, and what was done to get there.

    `notes` says everything that was done, as data: its kind, where, and by how many LSB it can move a value at most.
    `print(conversion)` is the summary that `python -m bridge` prints, `repr` is one line.
    """

    tflite: bytes
    graph: Graph
    """The lowered graph: every tensor knows which ONNX tensor it holds."""
    operators_in: Mapping[str, int]
    operators_out: Mapping[str, int]
    seconds: float
    way: str = record.ONNX_FILE
    """How the model came in: an ONNX file, or how a PyTorch model was read."""

    @property
    def notes(self) -> tuple[Note, ...]:
        return self.graph.notes

    def __repr__(self) -> str:
        return printable(record.short(self))

    def __str__(self) -> str:
        lines = [*record.lines(self), *(f"note  {line}" for line in record.warnings(self))]
        return "\n".join(printable(line.replace("\n", " ")) for line in lines)


def convert(
    source: str | Path | onnx.ModelProto,
    options: Options | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Conversion:
    """Convert an ONNX model with Q/DQ, or the file of one, to int8 TFLite; every trained scale is kept.

    Raises `BridgeError`, naming node and tensor, for everything that cannot be kept exactly.
    """
    options = options or Options()
    budget = Budget(options.max_elements, options.max_nodes)
    started = time.perf_counter()
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        graph = from_model(copy, "model", input_shapes, budget, READ)
    else:
        graph = read(Path(source), input_shapes, budget, READ)
    return _converted(graph, options, budget, started)


def convert_graph(graph: Graph, options: Options | None = None, way: str = "") -> Conversion:
    """As `convert`, for a graph in the spelling that the reader leaves: operators of ONNX, nothing folded.

    `way`: how the model became a graph, for the summary. Raises `BridgeError` as `convert` does.
    """
    options = options or Options()
    stored = sum(tensor.data.size for tensor in graph.tensors.values() if tensor.data is not None)
    budget = Budget(options.max_elements, options.max_nodes, stored)
    started = time.perf_counter()
    budget.refuse_nodes(len(graph.nodes), "model")
    for name, tensor in graph.tensors.items():
        budget.refuse_tensor(size_of(tensor.shape), f"tensor '{name}'")
    return replace(_converted(graph, options, budget, started), way=way)


def _converted(graph: Graph, options: Options, budget: Budget, started: float) -> Conversion:
    operators_in = Counter(node.op for node in graph.nodes)
    refuse_unread(graph)
    with reserved([*graph.tensors, *(node.name for node in graph.nodes)]):
        graph = _lowered(graph, options, budget)
    tflite = write(graph)
    operators_out = Counter(node.op for node in graph.nodes)
    return Conversion(tflite, graph, operators_in, operators_out, time.perf_counter() - started)


def _lowered(graph: Graph, options: Options, budget: Budget) -> Graph:
    """The graph that is written."""
    border = borders(graph, options.layout, options.layouts)
    steps = passes(
        border=border,
        allow_float=options.allow_float,
        mean=options.mean,
        keep_lowest=options.weights == "keep",
        budget=budget,
    )
    graph = run_passes(graph, steps)
    graph = requantized_by(options.requantize, lower(graph))
    graph = within_ranks(without_unused(dense_written_as(options.per_channel_dense, graph)))
    check(graph, after="lower")
    refuse_beyond_limits(graph)
    graph = with_weights(options.weights, graph)
    check(graph, after="with_weights")
    graph = refuse_wrapping(graph)
    refuse_other_sizes(graph)
    _refuse_no_operator(graph)
    graph = priced(graph)
    graph = kept_apart(with_io(graph, options.io))
    check(graph, after="with_io")
    check_node_names(graph)
    return graph


def _refuse_no_operator(graph: Graph) -> None:
    """Copies of inputs compute nothing (passes/qdq.py)."""
    shapes = {name: graph.tensors[name].shape for name in graph.inputs}
    if all(node.op == "RESHAPE" and shapes.get(node.inputs[0]) == graph.output(node).shape for node in graph.nodes):
        raise BridgeError(
            where="model",
            problem="hands its input on without computing anything",
            remedy="Export the model itself, not a wrapper that lost it.",
        )
