"""The graph between ONNX and TFLite: plain frozen records, ONNX operators before lowering and TFLite's after."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bridge.errors import BridgeError


@dataclass(frozen=True, eq=False)
class QParams:
    """What training decided for one tensor: real = scale * (q - zero_point), q limited to qmin..qmax.

    Always true: scale is float32, finite, positive; zero_point is int32; both have shape () with axis None (per
    tensor) or (channels,) with axis set (per channel); qmin < qmax. A range narrower than int8 is a trained clamp
    (`reduce_range`, catalogue entries M01 and M02). Raises `AssertionError` when one of these fails.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None
    qmin: int = -128
    qmax: int = 127

    def __post_init__(self) -> None:
        if self.scale.dtype != np.float32 or self.zero_point.dtype != np.int32:
            raise AssertionError(f"QParams: scale {self.scale.dtype}, zero point {self.zero_point.dtype}")
        if self.scale.shape != self.zero_point.shape or self.scale.ndim != (self.axis is not None):
            raise AssertionError(f"QParams: shapes {self.scale.shape}, {self.zero_point.shape}, axis {self.axis}")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all() and self.qmin < self.qmax):
            raise AssertionError(f"QParams: scale {self.scale}, range {self.qmin}..{self.qmax}")

    def __eq__(self, other: object) -> bool:
        """Equal bits, the trained clamp included."""
        return (
            isinstance(other, QParams) and self.same_grid(other) and (self.qmin, self.qmax) == (other.qmin, other.qmax)
        )

    def __hash__(self) -> int:
        return hash((self.scale.tobytes(), self.zero_point.tobytes(), self.axis, self.qmin, self.qmax))

    def __str__(self) -> str:
        if self.axis is None:
            return f"scale {self.scale.item():.8g}, zero point {self.zero_point.item()}"
        return f"{self.scale.size} scales from {self.scale.min():.4g} to {self.scale.max():.4g} on axis {self.axis}"

    def same_grid(self, other: QParams) -> bool:
        """Whether a code means the same real number under both."""
        return (
            self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def on_axis(self, axis: int) -> QParams:
        """The same per-channel parameters for an array whose channels moved to `axis`; per-tensor ones unchanged."""
        if self.axis is None:
            return self
        return QParams(self.scale, self.zero_point, axis, self.qmin, self.qmax)


def per_tensor(scale: float | np.ndarray, zero_point: int, qmin: int = -128, qmax: int = 127) -> QParams:
    """`QParams` of one scale and one zero point."""
    return QParams(np.array(scale, np.float32).reshape(()), np.array(zero_point, np.int32), None, qmin, qmax)


@dataclass(frozen=True, eq=False)
class Origin:
    """Which tensor of the ONNX file this one holds, and how its elements are arranged here."""

    name: str
    perm: tuple[int, ...] | None = None
    """Stored axis i is the ONNX axis perm[i]; None: as in the file."""
    order: np.ndarray | None = None
    """Along the last axis, stored element j is the ONNX element order[j]; None: as in the file."""

    def arrange(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The ONNX tensor's values, shaped and ordered as they are stored here."""
        if self.perm is not None:
            array = array.transpose(self.perm)
        if self.order is not None:
            array = array[..., self.order]
        return np.ascontiguousarray(array).reshape(shape)


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor: its shape, and for a constant its data (codes where `qparams` is set, else plain values).

    Always true: data has exactly this shape and dtype; per-channel parameters fit their axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    data: np.ndarray | None = None
    qparams: QParams | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.data is not None and (self.data.shape != self.shape or self.data.dtype != self.dtype):
            raise AssertionError(f"Tensor '{self.name}': {self.data.shape} {self.data.dtype}, said {self.shape}")
        if self.qparams is not None and self.qparams.axis is not None:
            channels = self.shape[self.qparams.axis]
            if channels != self.qparams.scale.size:
                raise AssertionError(f"Tensor '{self.name}': {self.qparams.scale.size} scales for {channels} channels")

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def values(self) -> np.ndarray:
        """The constant's data as stored; raises `BridgeError` when the tensor is computed at run time."""
        if self.data is None:
            raise BridgeError(
                where=f"tensor '{self.name}'",
                problem="must be a constant, but is computed when the model runs",
                remedy="Export the model with this value fixed (fixed shapes, weights as initializers).",
            )
        return self.data

    @property
    def q(self) -> QParams:
        """The trained parameters; raises `BridgeError` when there are none."""
        if self.qparams is None:
            raise BridgeError(
                where=f"tensor '{self.name}'",
                problem="has no trained scale",
                remedy="Fine-tune with fake-quant on this tensor and export again, or pass --allow-float.",
            )
        return self.qparams

    @property
    def real(self) -> np.ndarray:
        """The constant's real values, float32, dequantized where it holds codes."""
        if self.qparams is None:
            return self.values
        shape = [1] * len(self.shape)
        if self.qparams.axis is not None:
            shape[self.qparams.axis] = -1
        zero_point, scale = self.qparams.zero_point.reshape(shape), self.qparams.scale.reshape(shape)
        narrow = self.dtype.itemsize <= 2  # float32 holds every difference of their codes
        codes = self.values.astype(np.float32 if narrow else np.int64)
        moved = codes - zero_point.astype(codes.dtype) if zero_point.any() else codes
        real: np.ndarray = moved.astype(np.float32, copy=False) * scale
        return real.reshape(self.shape)


def constant(name: str, data: np.ndarray, qparams: QParams | None = None) -> Tensor:
    """A constant tensor that holds `data`."""
    data = np.ascontiguousarray(data).reshape(data.shape)
    return Tensor(name, data.shape, data.dtype, data, qparams)


@dataclass(frozen=True)
class Limits:
    """Between which real numbers an operator keeps its output; infinite where it does not."""

    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False)
class Node:
    """One operator; tensors are referred to by name, a missing optional operand by the empty name.

    `attrs` are those of ONNX, and of TFLite after lowering; what passes add to them is in the record of the operator
    (operators/, `made`), and checked after each pass. The fields behind it are what one pass tells another.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits | None = None
    """Of a Limit, and of an operator that one was fused into (passes/fuse.py); None where nothing asked for any."""
    apart: str = ""
    """Why an average was not taken into the layer behind it (passes/merge.py); passes/inherit.py says it."""

    def __str__(self) -> str:
        return f"{self.op} '{self.name}'"

    @property
    def kept_within(self) -> Limits:
        """Its limits, which are open where there are none."""
        return self.limits or Limits()


@dataclass(frozen=True)
class Note:
    """Something the user should know of: what was done, to which tensor or operator, and how much it can cost."""

    kind: str
    """One of `NOTE_KINDS`."""
    where: str
    what: str
    at: str = ""
    """The tensor whose values are concerned, where it is one that the model computes."""
    off: float | None = None
    """By how much a value of that tensor can be off at most, in real numbers; None where that is not known."""
    lsb: float | None = None
    """The same in steps of `of`: the first tensor with a trained scale that is reached (complete/price.py)."""
    of: str = ""
    made: int = 0
    """Quantized tensors that this added to the file, whose scales are the bridge's own."""


NOTE_KINDS = {
    "fused": "fused into the operator before",
    "inherited": "averages without a trained scale, rounded where training did not round",
    "symmetric": "layers with weight channels of one sign, trained with a zero point that int8 kernels do not have",
    "fixed": "outputs without a trained scale, at the one that TFLite prescribes for their operator",
    "derived": "constants without a trained scale, quantized to 8 bits by their range",
    "twice": "outputs rounded twice, first at the scale that their kernel writes, then at the trained one",
    "requantized": "rescaled between two trained scales",
    "clamped": "tensors trained on fewer codes than int8 has",
    "fed": "inputs that training clamped: whoever quantizes for them must clamp, too",
    "unfused": "batch norms of their own",
    "parts": "layers whose weights have a zero point that int8 kernels do not, computed exactly in several parts",
    "merged": "averages computed inside the layer behind them, without a rounding of their own",
    "weights": "weights whose codes of -128 are not as trained, or are wrong on ARM",
    "harmless": "weights with codes of -128 that no kernel can add wrongly",
    "bias": "biases that do not fit int32",
    "grid": "biases, or constants that became one, rounded to coarser steps than the output has",
    "rounded": "padding values and limits between two codes of a scale that was not trained with them",
    "pytorch": "computed as PyTorch does where ONNX Runtime does otherwise, which --verify then shows",
    "accumulator": "sums that come near to the end of what a kernel counts",
    "transposed": "transposes that algebra could not remove",
    "float": "stayed float",
    "unquantized": "float between two operators that could have been int8",
}

REMEDIES = {
    "inherited": "{pair} and fine-tune: then training decides.",
    "symmetric": "Train with qconfig 'tflite' (torch_side/qconfigs.py), whose weights are symmetric.",
    "rounded": "{pair} and fine-tune, or choose numbers that are codes.",
    "grid": "The output's scale is finer than what its inputs can make: fine-tune with data that reaches it.",
    "fixed": "{pair} at that scale (PyTorch: FixedQParamsFakeQuantize), so that training sees it.",
    "twice": "Train that output at the scale that its kernel writes (FixedQParamsFakeQuantize).",
    "parts": "Quantize the weights symmetrically: half the multiplications.",
    "derived": "Hand the constant through a QuantStub, so that it is trained, too.",
    "clamped": "Train with qconfig 'tflite', which uses all codes.",
    "unfused": "torch.ao.quantization.fuse_modules_qat(model, [['conv', 'bn', 'relu']]) before prepare_qat.",
}
"""What to change in training so that there is nothing to say, by kind; kinds without an entry say it themselves.

`{pair}` is what gives tensors a scale of their own in the tool that the model comes from (tools.py).
"""


@dataclass(frozen=True, eq=False)
class Graph:
    """Operators in topological order over named tensors; edited with `dataclasses.replace` only."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[Note, ...] = ()
    tool: str = ""
    """The tool that quantized the model, by its name in `tools.TOOLS`."""

    def operands(self, node: Node) -> tuple[Tensor, ...]:
        """The tensors a node reads; a missing optional operand is left out at the end only."""
        return tuple(self.tensors[name] for name in node.inputs if name)

    def operand(self, node: Node, index: int) -> Tensor | None:
        """The tensor at one place, None when it is missing."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        return self.tensors[node.inputs[index]]

    def output(self, node: Node) -> Tensor:
        return self.tensors[node.outputs[0]]

    def producers(self) -> dict[str, Node]:
        """Which node writes a tensor."""
        return {output: node for node in self.nodes for output in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """Which nodes read a tensor, a node once for each place."""
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    readers[name].append(node)
        return readers


@dataclass(frozen=True)
class Lowered:
    """What one ONNX operator becomes: TFLite operators, and the constants and intermediate tensors they need."""

    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...] = ()
    notes: tuple[Note, ...] = ()


def without_unused(graph: Graph) -> Graph:
    """The graph without the operators and tensors that no output depends on."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(name for name in node.inputs if name)
    live = needed.union(graph.inputs, *(node.outputs for node in kept))
    return replace(
        graph,
        nodes=tuple(reversed(kept)),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in live},
    )


def add_made(tensors: dict[str, Tensor], *made: Tensor) -> None:
    """Put tensors that a pass or a lowering made among the others; one that meets another is our defect.

    Their names come from `names.free_name`. The very same tensor may come twice.
    """
    for tensor in made:
        if tensors.setdefault(tensor.name, tensor) is not tensor:
            raise AssertionError(f"made tensor '{tensor.name}' would overwrite another one")


def check(graph: Graph, after: str) -> None:
    """Single assignment, topological order, no dangling name; a failure is our defect and names the pass `after`."""
    known = {name for name, tensor in graph.tensors.items() if tensor.is_constant} | set(graph.inputs)
    for node in graph.nodes:
        _all_known(node.inputs, known, f"{node} after {after}")
        for output in node.outputs:
            if output in known or output not in graph.tensors:
                raise AssertionError(f"{after}: {node} writes '{output}' a second time, or it is not described")
            known.add(output)
    _all_known(graph.outputs, known, f"graph outputs after {after}")


def _all_known(names: Iterable[str], known: set[str], where: str) -> None:
    for name in names:
        if name and name not in known:
            raise AssertionError(f"{where}: '{name}' is read before anything wrote it")


def check_constants(before: Graph, now: Graph, after: str) -> None:
    """What was constant has the same data under the same name, or is gone: nothing that was made has overwritten it."""
    for name, tensor in before.tensors.items():
        kept = now.tensors.get(name)
        if tensor.data is None or kept is None or kept.data is tensor.data:
            continue
        if kept.data is None or not np.array_equal(kept.data, tensor.data):
            raise AssertionError(f"{after}: constant '{name}' was overwritten")


def check_node_names(graph: Graph) -> None:
    """No two operators have one name: distances and notes tell them apart by it."""
    twice = [name for name, count in Counter(node.name for node in graph.nodes).items() if count > 1]
    if twice:
        raise AssertionError(f"several operators are called {twice}")
