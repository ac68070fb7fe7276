"""Where along the network two models begin to differ: layers matched by structure, each with its error."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import dequantize
from bridge.exact.convert import convert
from bridge.exact.graph import Graph, Tensor
from bridge.exact.verify import reference_values
from compare.structure import layers, matched
from compare.tflite_graph import open_tflite

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """One pair of layers that stand at the same place of the two networks."""

    op: str
    reference: str
    """Name of the tensor in the reference."""
    file: str
    """Name of the tensor in the .tflite that is judged."""
    max_lsb: float
    """Largest difference, in steps of the reference's scale (of a float tensor: 1/255 of its range)."""
    sqnr_db: float
    """Signal to quantization noise, 10 log10(sum(reference²) / sum(difference²)); infinite where nothing differs."""


@dataclass(frozen=True)
class Drift:
    """The layers in order, and what could not be matched."""

    layers: tuple[Layer, ...]
    unmatched: tuple[str, ...]
    """Operators of the judged file that have no counterpart in the reference."""

    def guilty(self, max_lsb: float = 1.0) -> Layer | None:
        """The first layer that is further away than `max_lsb`; a hundredth is left to float32."""
        return next((layer for layer in self.layers if layer.max_lsb > max_lsb + 0.01), None)


@dataclass(frozen=True, eq=False)
class Traced:
    """A network with what each of its tensors held, in real numbers, on the same inputs."""

    graph: Graph
    values: Arrays


def trace_onnx(content: bytes, inputs: Arrays) -> Traced:
    """ONNX Runtime's values of a QDQ model, arranged as the exact bridge would store them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        graph = convert(path).graph
        return Traced(graph, reference_values(path, graph, inputs))


def trace_tflite(content: bytes, inputs: Sequence[np.ndarray], where: str = ".tflite") -> Traced:
    """LiteRT's values of every tensor; `inputs` are real numbers in the order and layout of the file's inputs.

    Runs on the built-in kernels without a delegate: XNNPACK does not show what it computes inside.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = open_tflite(content, where).graph
    try:
        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
            num_threads=1,
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise BridgeError(
            where=where,
            problem=f"LiteRT refuses the model: {str(error).strip().splitlines()[0]}",
            remedy="Nothing can be traced; the file does not run.",
        ) from error
    places = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details() if detail["name"]}
    produced = [name for node in graph.nodes for name in node.outputs if name in places]
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*graph.inputs, *produced)}
    sources = interpreter.get_input_details()
    batch = int(graph.tensors[graph.inputs[0]].shape[0])
    for start in range(0, len(inputs[0]), batch):
        for detail, name, samples in zip(sources, graph.inputs, inputs, strict=True):
            tensor = graph.tensors[name]
            interpreter.set_tensor(detail["index"], _stored(tensor, samples[start : start + batch]))
        interpreter.invoke()
        for name in found:
            found[name].append(_real(graph.tensors[name], interpreter.get_tensor(places[name])))
    return Traced(graph, {name: np.concatenate(parts) for name, parts in found.items()})


def _stored(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    shaped = np.asarray(real, np.float32).reshape(tensor.shape)
    if tensor.qparams is None:
        return shaped.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    codes: np.ndarray = np.rint(shaped / tensor.q.scale) + tensor.q.zero_point
    clipped: np.ndarray = np.clip(codes, limits.min, limits.max).astype(tensor.dtype)
    return clipped


def _real(tensor: Tensor, stored: np.ndarray) -> np.ndarray:
    if tensor.qparams is None:
        return stored.astype(np.float32)
    return dequantize(stored, tensor.qparams)


def drift(reference: Traced, judged: Traced) -> Drift:
    """Match the layers of two traced networks by structure, and measure each pair."""
    pairs = [
        (ours, theirs)
        for ours, theirs in matched(reference.graph, judged.graph)
        if ours.outputs[0] in reference.values and theirs.outputs[0] in judged.values
    ]
    measured = (_measured(reference, judged, theirs.op, ours.outputs[0], theirs.outputs[0]) for ours, theirs in pairs)
    known = {theirs.outputs[0] for _, theirs in pairs}
    alone = (node for node in layers(judged.graph) if node.outputs[0] not in known)
    return Drift(tuple(measured), tuple(f"{node.op} '{node.outputs[0]}'" for node in alone))


def _measured(reference: Traced, judged: Traced, op: str, mine: str, other: str) -> Layer:
    expected = reference.values[mine].astype(np.float64)
    found = judged.values[other].astype(np.float64)
    if expected.size != found.size:
        return Layer(op, mine, other, float("inf"), float("-inf"))
    difference = found.reshape(expected.shape) - expected
    tensor = reference.graph.tensors[mine]
    lsb = float(tensor.q.scale) if tensor.qparams is not None else (float(np.ptp(expected)) / 255 or 1.0)
    noise, signal = float((difference**2).sum()), float((expected**2).sum())
    ratio = float("inf") if noise == 0 else 10 * np.log10(max(signal, 1e-300) / noise)
    return Layer(op, mine, other, float(np.abs(difference).max(initial=0.0)) / lsb, float(ratio))
