"""Random small QDQ models: a `Builder` that computes every tensor as it adds the node, and steps that draw operators.

Whatever is drawn comes from a `Source`, so that one generator serves hypothesis (small, shrinking) and a seeded random
generator (long runs). ONNX Runtime computes every tensor at once, one node at a time: shapes and ranges are known
where the next operator is drawn, and a node that ONNX Runtime refuses raises `Unusable`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bridge.verifying import onnx_runtime

T = TypeVar("T")
LARGEST = 2000
"""Elements of one tensor: small graphs, many of them."""


class Source(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int:
        """One of low..high, both included."""


class Seeded:
    """Choices of a numpy generator: `Seeded(7)` always draws the same model."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._random.integers(low, high + 1))


class Unusable(Exception):  # noqa: N818 - not an error, a draw to throw away
    """ONNX Runtime computes no such node."""


@dataclass(frozen=True, eq=False)
class Model:
    """A drawn model, its inputs (float32, ONNX layout, several samples), and which operators it was drawn from."""

    proto: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    kinds: tuple[str, ...]


@dataclass
class Builder:
    """A model under construction; `values` holds what ONNX Runtime computes for every tensor."""

    source: Source
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    qparams: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.source.integer(0, 2**32 - 1))

    # Choices

    def one_of(self, *options: T) -> T:
        return options[self.source.integer(0, len(options) - 1)]

    def odds(self, one_in: int) -> bool:
        return self.source.integer(1, one_in) == one_in

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (self.random.normal(size=shape) * scale).astype(np.float32)

    # Parts

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attrs: Any) -> Any:
        """A node, computed at once; its output's name, or a list of names."""
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{op}_{len(self.nodes)}", **attrs)
        used = [name for name in dict.fromkeys(inputs) if name]
        graph = helper.make_graph(
            [node],
            "node",
            [_info(name, self.values[name]) for name in used if name in self.values],
            [onnx.ValueInfoProto(name=name) for name in names],
            [numpy_helper.from_array(self.constants[name], name) for name in used if name in self.constants],
        )
        feeds = {name: self.values[name] for name in used if name in self.values}
        try:
            found = _session(helper.make_model(graph, **self._versions())).run(names, feeds)
        except Exception as error:
            raise Unusable(op, str(error)) from error
        if any(value.size == 0 or value.size > LARGEST for value in found):
            raise Unusable(op, [value.shape for value in found])
        self.nodes.append(node)
        self.values.update(zip(names, found, strict=True))
        return names[0] if outputs == 1 else names

    def _versions(self) -> dict[str, Any]:
        return {"opset_imports": [helper.make_opsetid("", self.opset)], "ir_version": 9}

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def input(self, *shape: int, magnitude: float) -> str:
        name = f"input{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = (self.random.normal(size=shape) * magnitude).astype(np.float32)
        return name

    # Quantization

    def quantize(self, name: str, at_least: float = 0.0) -> str:
        """Q and DQ at a drawn scale and zero point; `at_least`: no finer scale than this."""
        dtype = self.one_of(np.int8, np.uint8)
        lowest, highest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        low = min(0.0, float(self.values[name].min()))
        high = max(0.0, float(self.values[name].max()))
        if not np.isfinite(high - low):
            raise Unusable(name, (low, high))
        way = self.one_of("trained", "trained", "trained", "coarse", "fine", "lowest", "highest", "symmetric")
        scale = (high - low) / 255 * {"coarse": 3.7, "fine": 0.3}.get(way, 1.0)
        scale = max(scale, at_least, 1e-30) if high > low else max(at_least, 1.0)
        zero = {"lowest": lowest, "highest": highest, "symmetric": lowest + 128}.get(way, round(lowest - low / scale))
        pair = np.float32(scale), np.clip(np.array(zero), lowest, highest).astype(dtype)
        return self.requantize(name, pair)

    def requantize(self, name: str, pair: tuple[np.ndarray, np.ndarray]) -> str:
        """Q and DQ at this scale and zero point."""
        parameters = [self.constant(pair[0]), self.constant(pair[1], pair[1].dtype)]
        codes = self.add("QuantizeLinear", [name, *parameters])
        real = self.add("DequantizeLinear", [codes, *parameters])
        self.qparams[real] = pair
        return str(real)

    def scale(self, name: str) -> float:
        return float(self.qparams[name][0])

    def maybe_quantize(self, name: str, like: str) -> str:
        """After an operator that moves elements: the scale of its input, its own, or no Q/DQ at all."""
        how = self.one_of("none", "same", "own")
        if how == "none":
            self.qparams[name] = self.qparams[like]
            return name
        return self.requantize(name, self.qparams[like]) if how == "same" else self.quantize(name)

    def weight(self, real: np.ndarray, axis: int) -> tuple[str, np.ndarray]:
        """A quantized constant: codes with DQ, or values with Q and DQ; per channel or per tensor. Name and scales."""
        per_channel = self.one_of(True, True, False)
        others = tuple(i for i in range(real.ndim) if i != axis)
        largest = np.abs(real).max(axis=others) if per_channel else np.abs(real).max()
        scale = np.maximum(np.asarray(largest / self.one_of(127, 127.5, 128), np.float32), np.float32(1e-30))
        attrs = {"axis": axis} if per_channel else {}
        along = scale.reshape([-1 if per_channel and i == axis else 1 for i in range(real.ndim)])
        codes = np.clip(np.rint(real / along), -128, 127).astype(np.int8)
        if self.odds(6):
            codes.reshape(-1)[0] = -128
        unsigned = self.odds(6)
        zero = np.full(scale.shape, 128 if unsigned else 0, np.uint8 if unsigned else np.int8)
        if self.odds(3):
            value = self.constant(codes.astype(np.float32) * along)
            parameters = [self.constant(scale), self.constant(zero, zero.dtype)]
            stored = self.add("QuantizeLinear", [value, *parameters], **attrs)
        else:
            shifted = codes.astype(np.int16) + int(zero.flat[0])
            stored = self.constant(shifted, zero.dtype)
            parameters = [self.constant(scale), self.constant(zero, zero.dtype)]
        return str(self.add("DequantizeLinear", [stored, *parameters], **attrs)), scale

    def bias(self, channels: int, scale: np.ndarray, spread: float) -> list[str]:
        """No bias, a float one, or int32 codes with DQ at `scale`; as a list to append to a node's inputs."""
        how = self.one_of("none", "float", "float", "int32")
        real = self.normal(channels, scale=spread)
        if how == "none":
            return []
        if how == "float":
            return [self.constant(real)]
        along = np.maximum(np.asarray(scale, np.float32), np.float32(1e-30))
        codes = np.clip(np.rint(real.astype(np.float64) / along), -(2**30), 2**30).astype(np.int32)
        inputs = [self.constant(codes, np.int32), self.constant(along), self.constant(np.zeros(along.shape), np.int32)]
        return [str(self.add("DequantizeLinear", inputs, **({"axis": 0} if along.ndim else {})))]

    def finish(self, outputs: Sequence[str]) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [_info(name, self.values[name]) for name in self.inputs],
            [_info(name, self.values[name]) for name in dict.fromkeys(outputs)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        proto = helper.make_model(graph, **self._versions())
        try:
            # Its shape inference rejects some models whose nodes it computes one by one.
            _session(proto).run(None, {name: self.values[name] for name in self.inputs})
        except Exception as error:
            raise Unusable(str(error)) from error
        samples = {name: np.concatenate([self.values[name], self._edges(name)]) for name in self.inputs}
        return Model(proto, samples, tuple(self.kinds))

    def _edges(self, name: str) -> np.ndarray:
        """A second sample: far outside, zeros, and exact ties between two codes."""
        value = self.values[name]
        numbers = np.array([0.0, 100.0, -100.0, 0.5, 1.5, -2.5, 3.0, -7.0, 60.0, -60.0], np.float32)
        picked = self.random.choice(numbers, value.shape).astype(np.float32)
        return picked * np.float32(np.abs(value).max() / 127)


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _session(model: onnx.ModelProto) -> Any:
    return onnx_runtime.session(model)


Step = Callable[[Builder, str], str]
FLOAT = TensorProto.FLOAT


def draw_model(source: Source, steps: dict[str, Step], most: int = 5) -> Model:
    """One to `most` operators on one input, each on the result of the one before; sometimes with two outputs."""
    builder = Builder(source, 17)
    builder.opset = builder.one_of(13, 17, 18, 21)
    magnitude = float(builder.one_of(1e-7, 1e-3, 0.1, 1.0, 1.0, 4.0, 4.0, 100.0, 1e6))
    x = builder.quantize(builder.input(*_shape(builder), magnitude=magnitude))
    made = [x]
    wanted = builder.source.integer(1, most)
    for _ in range(8 * wanted):
        if len(made) > wanted:
            break
        kind = builder.one_of(*steps)
        before = len(builder.nodes), dict(builder.values), dict(builder.qparams), dict(builder.constants)
        try:
            made.append(steps[kind](builder, made[-1]))
            builder.kinds.append(kind)
        except Unusable:  # back to before the step
            del builder.nodes[before[0] :]
            builder.values, builder.qparams, builder.constants = before[1:]
    if len(made) == 1:
        raise Unusable("no step fits")
    extra = [builder.one_of(*made[1:])] if builder.odds(4) else []
    return builder.finish([made[-1], *extra])


def _shape(builder: Builder) -> tuple[int, ...]:
    batch = builder.one_of(1, 1, 2, 3)
    same = builder.source.integer(2, 6)
    sizes = [builder.source.integer(1, 8) for _ in range(3)]
    if builder.odds(4):
        sizes = [same] * 3  # C == H == W: no layout can be guessed (catalogue entry M15)
    rank = builder.one_of(4, 4, 4, 4, 3, 2)
    return (batch, *sizes[: rank - 1])
