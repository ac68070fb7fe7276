"""How far a .tflite is from its reference, in LSBs: end to end, and operator by operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import dequantize, quantize
from bridge.exact.graph import Graph, Node, Tensor
from bridge.exact.writer import write

Kernels = Literal["xnnpack", "reference"]
KERNELS: tuple[Kernels, ...] = ("xnnpack", "reference")
"""LiteRT's default on CPUs, and the plain kernels that NPU vendors reproduce."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Distance:
    """How two sets of int8 codes differ; an LSB is one step of the output's scale."""

    count: int
    histogram: Mapping[int, int]
    """How many outputs lie how many LSBs away, signs ignored."""
    argmax_changed: int | None
    """Samples whose largest output is another one; None where outputs are not a vector per sample."""
    samples: int
    margin: int = 0
    """Where the argmax changed: by how many LSBs, at most, the reference preferred its own."""

    @property
    def equal(self) -> float:
        return self.histogram.get(0, 0) / max(self.count, 1)

    @property
    def worst(self) -> int:
        return max(self.histogram, default=0)

    def __str__(self) -> str:
        changed = "" if self.argmax_changed is None else f", {self.argmax_changed} of {self.samples} argmax changed"
        changed += f" (within {self.margin} LSB)" if self.argmax_changed else ""
        return f"{self.equal:.4%} equal, worst {self.worst} LSB{changed}"


@dataclass(frozen=True)
class OperatorDistance:
    """One operator fed with the reference's own quantized inputs: what it alone adds."""

    op: str
    name: str
    kernels: Kernels
    distance: Distance
    exact_input: bool
    """False where the reference computes this operator's input in float and never quantizes it."""


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


def distance(codes: np.ndarray, reference: np.ndarray) -> Distance:
    """The distance of int8 codes (samples, ...) from reference codes of the same shape."""
    apart = np.abs(codes.astype(np.int32) - reference.astype(np.int32))
    steps, counts = np.unique(apart, return_counts=True)
    changed, margin = None, 0
    if codes.ndim == 2 and codes.shape[1] > 1:
        changed = int(np.count_nonzero(codes.argmax(1) != reference.argmax(1)))
        preferred = np.take_along_axis(reference, codes.argmax(1)[:, None], 1)[:, 0].astype(np.int32)
        margin = int((reference.max(1) - preferred).max(initial=0))
    histogram = {int(step): int(count) for step, count in zip(steps, counts, strict=True)}
    return Distance(int(apart.size), histogram, changed, len(codes), margin)


def _joined(batches: Sequence[np.ndarray]) -> np.ndarray:
    """One array of all samples; a model that gives a single number counts as a vector of one."""
    joined: np.ndarray = np.concatenate([np.atleast_1d(batch) for batch in batches])
    return joined


def verify(onnx_file: Path, graph: Graph, tflite: bytes, inputs: Arrays, *, operators: bool = True) -> Verification:
    """Hold a conversion against ONNX Runtime on the QDQ graph it came from.

    `graph` is `Conversion.graph` of a file with int8 inputs and outputs; `inputs` maps input names to float32 arrays
    laid out as in the ONNX file, any number of samples along axis 0.

    Raises `BridgeError` when a package is missing, the inputs do not fit, or a runtime refuses a file.
    """
    batches = list(_batches(graph, inputs))
    references = [_reference_codes(onnx_file, graph, batch) for batch in batches]
    outputs: dict[Kernels, dict[str, Distance]] = {}
    for kernels in KERNELS:
        runner = Runner(tflite, kernels)
        got = [runner({name: reference[name] for name in graph.inputs}) for reference in references]
        outputs[kernels] = {
            name: distance(_joined([one[name] for one in got]), _joined([one[name] for one in references]))
            for name in graph.outputs
        }
    found = tuple(_operators(graph, references)) if operators else ()
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    return Verification("ONNX Runtime on the QDQ graph", samples, outputs, found)


def reference_values(onnx_file: Path, graph: Graph, inputs: Arrays) -> dict[str, np.ndarray]:
    """ONNX Runtime's real values of every tensor of a lowered graph, float32, samples along axis 0, arranged as stored.

    A quantized tensor's values lie on its grid. Raises `BridgeError` as `verify` does.
    """
    found: dict[str, list[np.ndarray]] = {}
    for batch in _batches(graph, inputs):
        for name, codes in _reference_codes(onnx_file, graph, batch).items():
            tensor = graph.tensors[name]
            found.setdefault(name, []).append(codes if tensor.qparams is None else dequantize(codes, tensor.qparams))
    return {name: _joined(parts) for name, parts in found.items()}


def compare_outputs(graph: Graph, tflite: bytes, inputs: Arrays, expected: Sequence[np.ndarray]) -> dict[Kernels, Any]:
    """Distances of the outputs from `expected` (float32, ONNX layout, one for each output), on each kernel set."""
    batches = list(_batches(graph, inputs))
    result: dict[Kernels, Any] = {}
    for kernels in KERNELS:
        runner = Runner(tflite, kernels)
        got = [runner({name: _codes(graph.tensors[name], batch[name]) for name in graph.inputs}) for batch in batches]
        result[kernels] = {
            name: distance(
                _joined([one[name] for one in got]),
                _joined([_codes(graph.tensors[name], part) for part in np.split(real, len(batches))]),
            )
            for name, real in zip(graph.outputs, expected, strict=True)
        }
    return result


def _batches(graph: Graph, inputs: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """Pieces of the inputs as large as the model's own batch."""
    missing = [name for name in graph.inputs if name not in inputs]
    if missing:
        raise BridgeError(
            where=f"input '{missing[0]}'",
            problem=f"is not among the arrays given ({', '.join(sorted(inputs)) or 'none'})",
            remedy=f"Save one float32 array for each of: {', '.join(graph.inputs)}.",
        )
    counts = set()
    for name in graph.inputs:
        tensor, array = graph.tensors[name], np.asarray(inputs[name])
        natural = onnx_shape(tensor)
        fits = array.ndim == len(natural) and array.shape[1:] == natural[1:] and len(array) % natural[0] == 0
        if not fits or not len(array) or array.dtype.kind not in "fiu":
            raise BridgeError(
                where=f"input '{name}'",
                problem=f"has shape {array.shape} and type {array.dtype}; the model takes {natural} at a time",
                remedy="Save the samples along the first axis, laid out as in the ONNX file.",
            )
        if not np.isfinite(array).all():
            raise BridgeError(
                where=f"input '{name}'", problem="holds NaN or infinity", remedy="Check how the inputs were prepared."
            )
        counts.add(len(array) // natural[0])
    if len(counts) != 1:
        raise BridgeError(
            where="verification inputs",
            problem="hold different numbers of samples",
            remedy="Give every input the same number of samples.",
        )
    for index in range(counts.pop()):
        batch = {}
        for name in graph.inputs:
            size = onnx_shape(graph.tensors[name])[0]
            batch[name] = np.asarray(inputs[name], np.float32)[index * size : (index + 1) * size]
        yield batch


def onnx_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape the tensor has in the ONNX file."""
    if tensor.origin is None or tensor.origin.perm is None:
        return tensor.shape
    shape = [0] * len(tensor.shape)
    for stored, axis in enumerate(tensor.origin.perm):
        shape[axis] = tensor.shape[stored]
    return tuple(shape)


def _codes(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """Real values in ONNX layout as they are stored: int8 codes, or float32 where the tensor stayed float."""
    arranged = real if tensor.origin is None else tensor.origin.arrange(real, tensor.shape)
    return arranged.astype(np.float32) if tensor.qparams is None else quantize(arranged, tensor.qparams)


class Runner:
    """A .tflite ready to run on one kernel set: codes in, codes out, by tensor name."""

    def __init__(self, tflite: bytes, kernels: Kernels) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise _missing("ai-edge-litert", "npu") from error
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


def _missing(package: str, extra: str) -> BridgeError:
    return BridgeError(
        where="verification",
        problem=f"needs {package}, which is not installed",
        remedy=f"Install it with: pip install '.[{extra}]'",
    )


def _reference_codes(onnx_file: Path, graph: Graph, batch: Arrays) -> dict[str, np.ndarray]:
    """What every tensor of the graph holds according to ONNX Runtime, as stored codes."""
    session, wanted = _session(onnx_file, graph)
    values = dict(zip(wanted, session.run(list(wanted), dict(batch)), strict=True)) if wanted else {}
    values.update(batch)
    found = {}
    for name, tensor in graph.tensors.items():
        if tensor.is_constant or (tensor.origin is None and name not in graph.inputs):
            continue
        source = tensor.origin.name if tensor.origin and tensor.origin.name in values else name
        if source in values and values[source].dtype.kind == "f":
            found[name] = _codes(tensor, values[source])
    return found


_sessions: dict[tuple[Path, int, int, tuple[str, ...]], Any] = {}
"""The last session, by file as it was, and by what it yields."""


def _session(onnx_file: Path, graph: Graph) -> tuple[Any, tuple[str, ...]]:
    """ONNX Runtime with every tensor of interest as an output; unoptimized, so that none is fused away."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", "torch") from error
    import onnx

    model = onnx.load(onnx_file)
    produced = {name for node in model.graph.node for name in node.output}
    wanted = tuple(
        dict.fromkeys(
            tensor.origin.name
            for tensor in graph.tensors.values()
            if tensor.origin is not None and tensor.origin.name in produced
        )
    )
    facts = onnx_file.stat()
    key = (onnx_file.resolve(), facts.st_mtime_ns, facts.st_size, wanted)
    if key not in _sessions:
        present = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:
            raise BridgeError(
                where=onnx_file.name,
                problem=f"ONNX Runtime refuses it: {str(error).strip().splitlines()[0]}",
                remedy="Compare with the fake-quant model or PyTorch's int8 engine instead.",
            ) from error
        _sessions.clear()
        _sessions[key] = session
    return _sessions[key], wanted


def _operators(graph: Graph, references: Sequence[Arrays]) -> Iterator[OperatorDistance]:
    """Each operator alone, on both kernel sets.

    Tensors that the reference does not know (padded copies, rescaled inputs) are what the operators before made of it.
    """
    known = set(references[0])
    floating = _never_quantized(graph)
    for kernels in KERNELS:
        made: list[dict[str, np.ndarray]] = [dict(reference) for reference in references]
        for node in graph.nodes:
            runner = Runner(write(single(graph, node)), kernels)
            moving = [name for name in node.inputs if name and not graph.tensors[name].is_constant]
            compared = [name for name in node.outputs if name in known]
            got: dict[str, list[np.ndarray]] = {name: [] for name in compared}
            for values in made:
                outputs = runner({name: values[name] for name in moving})
                for name in node.outputs:
                    if name in known:
                        got[name].append(outputs[name])
                    else:
                        values[name] = outputs[name]
            for name in compared:
                expected = _joined([reference[name].reshape(got[name][0].shape) for reference in references])
                yield OperatorDistance(
                    node.op,
                    node.name,
                    kernels,
                    distance(_joined(got[name]), expected),
                    not floating.intersection(moving),
                )


_HANDS_ON = {"RESHAPE", "TRANSPOSE", "MAXIMUM", "MINIMUM", "MAX_POOL_2D", "PAD", "PADV2", "STRIDED_SLICE", "SPLIT"}


def _never_quantized(graph: Graph) -> set[str]:
    """Tensors that the reference holds in float: averages that took their input's scale, and what is picked from them."""
    averages = {note.where for note in graph.notes if note.kind == "inherited"}
    found: set[str] = set()
    for node in graph.nodes:
        averaged = any(f"'{node.name}'" in where for where in averages)
        if averaged or (node.op in _HANDS_ON and found.intersection(node.inputs)):
            found.update(node.outputs)
    return found


def single(graph: Graph, node: Node) -> Graph:
    """The one-operator model of a node of a lowered graph."""
    names = {name for name in (*node.inputs, *node.outputs) if name}
    moving = tuple(dict.fromkeys(name for name in node.inputs if name and not graph.tensors[name].is_constant))
    return replace(
        graph,
        nodes=(node,),
        tensors={name: graph.tensors[name] for name in names},
        inputs=moving,
        outputs=node.outputs,
        notes=(),
    )
