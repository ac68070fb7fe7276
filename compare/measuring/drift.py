"""Where along the network two models begin to differ: layers matched by structure, each with its error."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx

from bridge.errors import BridgeError
from bridge.exact.arithmetic import along_axis, dequantize
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Graph, QParams, Tensor
from bridge.exact.passes.layout import Order
from bridge.verifying.reference import reference_values
from compare.running.trying import run
from compare.tflite.graph import open_tflite
from compare.tflite.order import paired
from compare.tflite.structure import layers, matched

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


def trace_onnx(content: bytes, inputs: Arrays, layout: Order = "nhwc") -> Traced:
    """ONNX Runtime's values of a model, arranged as the exact bridge would store them; what has no Q/DQ stays float."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        graph = convert(path, Options(allow_float=True, layout=layout)).graph
        return Traced(graph, reference_values(path, graph, inputs))


def trace_tflite(content: bytes, inputs: Sequence[np.ndarray], where: str = ".tflite") -> Traced:
    """LiteRT's values of every tensor; `inputs` are real numbers in the order and layout of the file's inputs.

    Runs on the built-in kernels without a delegate, in a process of its own: XNNPACK does not show what it computes
    inside. Raises `BridgeError` for a file that does not run as it is written, and for inputs that are no whole batches.
    """
    graph = open_tflite(content, where).graph
    places = {name: place for place, name in enumerate(graph.tensors)}
    names = list(dict.fromkeys([*graph.inputs, *(name for node in graph.nodes for name in node.outputs)]))
    found = run(content, batched(graph, inputs), [places[name] for name in names])
    return Traced(graph, {name: _real(graph.tensors[name], codes) for name, codes in zip(names, found, strict=True)})


def batched(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(runs, *shape) for each input, as the file stores it: as many samples in each run as its shape says.

    Raises `BridgeError` where that does not come out even.
    """
    found: list[np.ndarray] = []
    for name, array in zip(graph.inputs, inputs, strict=True):
        tensor = graph.tensors[name]
        size = int(np.prod(tensor.shape))
        runs = array.size // size if size else 0
        if not runs or array.size % size or (found and len(found[0]) != runs):
            raise BridgeError(
                where=f"input '{name}'",
                problem=f"has shape {array.shape}, which is no whole number of runs of the .tflite's {tensor.shape}"
                + (f", {len(found[0])} as for '{graph.inputs[0]}'" if found else ""),
                remedy="Save as many samples along the first axis of every input as the .tflite takes, or a multiple.",
            )
        found.append(stored(tensor, array.reshape(runs, *tensor.shape)))
    return found


def stored(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """(runs, *shape) of real numbers as a tensor holds them: rounded half to even and saturated where it is quantized."""
    shaped = np.asarray(real, np.float32)
    if tensor.qparams is None or tensor.dtype.kind not in "iu":
        return shaped.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    scale, zero_point = along_axis(_of_runs(tensor.q), shaped.ndim)
    codes: np.ndarray = np.rint(shaped / scale) + zero_point
    clipped: np.ndarray = np.clip(codes, limits.min, limits.max).astype(tensor.dtype)
    return clipped


def _real(tensor: Tensor, stored: np.ndarray) -> np.ndarray:
    if tensor.qparams is None or stored.dtype.kind not in "iu":
        return stored.astype(np.float32)
    if tensor.qparams.axis is None:
        return dequantize(stored, tensor.qparams)
    runs = stored.reshape(-1, *tensor.shape)  # no kernel gives an activation a scale for each channel; files do
    return dequantize(runs, _of_runs(tensor.qparams)).reshape(stored.shape)


def _of_runs(qparams: QParams) -> QParams:
    """The same with an axis in front."""
    return qparams if qparams.axis is None else replace(qparams, axis=qparams.axis + 1)


def drift_of_files(onnx_model: bytes | None, float_tflite: bytes | None, judged: bytes, samples: np.ndarray) -> Drift:
    """The drift of a .tflite from its ONNX model, or from the same network as a float .tflite.

    `samples` are real numbers (N, ...) for the one input; the ONNX model takes them with a channel axis.
    """
    if onnx_model is not None:
        reference = _onnx_once(onnx_model, samples[:, np.newaxis].tobytes(), (len(samples), 1, *samples.shape[1:]))
    else:
        assert float_tflite is not None  # noqa: S101 - the caller has one of them
        reference = trace_tflite(float_tflite, [samples])
    return drift(reference, trace_tflite(judged, [samples]))


@lru_cache(maxsize=2)
def _onnx_once(content: bytes, samples: bytes, shape: tuple[int, ...]) -> Traced:
    """Several routes start from one model, one after the other."""
    name = onnx.load_from_string(content).graph.input[0].name
    return trace_onnx(content, {name: np.frombuffer(samples, np.float32).reshape(shape)})


def drift(reference: Traced, judged: Traced) -> Drift:
    """Match the layers of two traced networks by structure, and measure each pair."""
    pairs = [
        (ours, theirs)
        for ours, theirs in matched(reference.graph, judged.graph)
        if ours.outputs[0] in reference.values and theirs.outputs[0] in judged.values
    ]
    apart = (measured(reference, judged, theirs.op, ours.outputs[0], theirs.outputs[0]) for ours, theirs in pairs)
    known = {theirs.outputs[0] for _, theirs in pairs}
    alone = (node for node in layers(judged.graph) if node.outputs[0] not in known)
    return Drift(tuple(apart), tuple(f"{node.op} '{node.outputs[0]}'" for node in alone))


def output_layers(reference: Traced, judged: Traced) -> Iterator[Layer]:
    """The outputs of the two, whatever made them."""
    ours, theirs = reference.graph.outputs, judged.graph.outputs
    producers = judged.graph.producers()
    for mine, other in zip(paired(ours, theirs), theirs, strict=False):
        if mine in reference.values and other in judged.values:
            node = producers.get(other)
            yield measured(reference, judged, "output" if node is None else node.op, mine, other)


def _settled(traced: Traced, name: str) -> np.ndarray:
    """What the next layers read of a layer's output: behind the QUANTIZE and DEQUANTIZE that only it feeds.

    A QAT file in float has its clipping there.
    """
    return traced.values[_last_of_its_pair(traced, name)].astype(np.float64)


def _last_of_its_pair(traced: Traced, name: str) -> str:
    readers = traced.graph.consumers()
    while len(readers[name]) == 1 and readers[name][0].op in ("QUANTIZE", "DEQUANTIZE"):
        (reader,) = readers[name]
        if reader.outputs[0] not in traced.values:
            break
        name = reader.outputs[0]
    return name


_SAME_SCALE = ("QUANTIZE", "DEQUANTIZE", "MAX_POOL_2D", "RESHAPE", "TRANSPOSE")


def _scale(traced: Traced, name: str) -> QParams | None:
    """The scale that a layer's output was given, or has from what it copies, even where it is stored as float."""
    name = _last_of_its_pair(traced, name)
    producers = traced.graph.producers()
    while traced.graph.tensors[name].qparams is None:
        producer = producers.get(name)
        if producer is None or producer.op not in _SAME_SCALE:
            return None
        name = producer.inputs[0]
    return traced.graph.tensors[name].qparams


_ORDERS = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2))
"""Of four axes: as they stand, and with the channels taken from the front to the back and the other way."""


def _difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far apart two arrays are that may lie in other layouts: by their sizes, and where these fit several, the nearest."""
    four = found.ndim == expected.ndim == 4
    turned = [found.transpose(order) for order in _ORDERS] if four else []
    fitting = [each for each in turned if each.shape == expected.shape] or [found.reshape(expected.shape)]
    return min((each - expected for each in fitting), key=lambda each: float(np.abs(each).max(initial=0.0)))


def measured(reference: Traced, judged: Traced, op: str, mine: str, other: str) -> Layer:
    """How far the tensor `other` of the judged file is from `mine` of the reference."""
    expected, found, qparams = _settled(reference, mine), _settled(judged, other), _scale(reference, mine)
    if expected.size != found.size:
        return Layer(op, mine, other, float("inf"), float("-inf"))
    difference = _difference(found, expected)
    width = float(expected.max(initial=0.0)) - float(expected.min(initial=0.0))
    lsb = float(qparams.scale) if qparams is not None else (width / 255 or 1.0)
    noise, signal = float((difference**2).sum()), float((expected**2).sum())
    ratio = float("inf") if noise == 0 else 10 * np.log10(max(signal, 1e-300) / noise)
    return Layer(op, mine, other, float(np.abs(difference).max(initial=0.0)) / lsb, float(ratio))
