"""The layers of an ONNX model, read from the model itself: nothing of the bridge's passes and lowerings is used."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from bridge.exact.graph import Graph, Node
from bridge.exact.reader import read
from compare.explaining.side_by_side.layers import (
    Affine,
    Grid,
    Layer,
    Merge,
    Network,
    Reach,
    Source,
    Weights,
    reached,
    slopes,
)
from compare.explaining.side_by_side.onnx_constants import MOVING, Constants, quantization_of

HANDS_ON = frozenset(("Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear"))
MOVES = HANDS_ON | {
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Pad", "Expand",
    "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
"""Operators that only move elements: every other one without weights computes something."""
_SAME_GRID = MOVING | {"MaxPool"}
"""Those behind which a tensor still has the grid of the tensor before."""
ORDERED = {"Concat": "concatenation", "Sub": "subtraction", "Div": "division", "MatMul": "product", "Pow": "power"}
"""Operators where the places of the operands matter, by the word both sides use."""
MERGES = {"Add": "sum", "Sub": "difference", "Mul": "product of elements", "Concat": "concatenation"}
_LIMITS = {"Relu", "Clip"}
UNREAD = {
    "LSTM", "GRU", "RNN", "ConvInteger", "MatMulInteger", "Einsum", "QLinearMatMul", "DeformConv", "LayerNormalization",
    "InstanceNormalization", "GroupNormalization",
}  # fmt: skip
"""Operators with trained constants that are not compared."""


def open_onnx(model: ModelProto, shapes_like: Mapping[str, Sequence[int]]) -> tuple[Graph, int]:
    """The model's graph as the bridge's reader gives it, nothing folded, and its opset.

    `shapes_like` fixes dimensions that the model leaves open, by input name. Raises `BridgeError` for a model that the
    reader refuses.
    """
    opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
    constant = {tensor.name for tensor in model.graph.initializer}
    given = {
        value.name: tuple(shapes_like[value.name])
        for value in model.graph.input
        if value.name not in constant
        and value.name in shapes_like
        and any(dim.dim_value <= 0 for dim in value.type.tensor_type.shape.dim)
        and len(value.type.tensor_type.shape.dim) == len(shapes_like[value.name])
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return read(path, given), opset


class OnnxSide:
    """The reader of one model's layers; `network` is the answer."""

    def __init__(self, graph: Graph, opset: int) -> None:
        self.graph = graph
        self.constants = Constants(graph, opset)
        self.producers = graph.producers()
        self.readers = graph.consumers()
        self._unread: list[str] = []

    def network(self) -> Network:
        """Every layer with its constants computed, and what is made of what."""
        graph = self.graph
        layers: list[Layer] = []
        inside: set[str] = set()
        """Outputs of operators that became steps of a layer."""
        made: dict[str, int] = {}
        for node in graph.nodes:
            if node.outputs[0] in self.constants or node.outputs[0] in inside:
                continue
            layer = self._layer(node)
            if layer is None:
                if node.op in UNREAD:
                    self._unread.append(f"{node.op} '{node.name}'")
                continue
            behind, passed = self._with_steps(layer)
            inside.update(passed)
            made[behind.output] = made[layer.output] = len(layers)
            made.update(dict.fromkeys(passed, len(layers)))
            layers.append(behind)
        reach = self._reach(made)
        return Network(
            layers=tuple(layers),
            reach=reach,
            inputs=graph.inputs,
            outputs=graph.outputs,
            input_grids=tuple(self._grid_after(name) for name in graph.inputs),
            output_grids=tuple(self.grid_before(name) for name in graph.outputs),
            output_sizes=tuple(int(np.prod(graph.tensors[name].shape)) for name in graph.outputs),
            merges=tuple(self._merges(reach, inside)),
            unread=tuple(self._unread),
            others=Counter(
                node.op
                for node in graph.nodes
                if node.op not in MOVES
                and node.outputs[0] not in self.constants
                and node.outputs[0] not in made
                and node.op not in UNREAD
            ),
        )

    # ------------------------------------------------------------------------------------------ layers

    def _layer(self, node: Node) -> Layer | None:
        rule = _LAYERS.get(node.op)
        return None if rule is None else rule(self, node)

    def _operand(self, node: Node, place: int) -> np.ndarray | None:
        if place >= len(node.inputs) or not node.inputs[place]:
            return None
        return self.constants.value(node.inputs[place])

    def _weights(self, node: Node, place: int, arranged: Callable[[np.ndarray], np.ndarray]) -> Weights | None:
        """The weight at this place, arranged; None where it is computed at run time."""
        value = self._operand(node, place)
        if value is None or value.dtype.kind != "f" or not value.size:
            return None
        step = self.constants.step(node.inputs[place])
        return Weights(
            arranged(np.asarray(value, np.float64)), None if step is None else arranged(np.asarray(step, np.float64))
        )

    def _bias(self, node: Node, place: int, channels: int, factor: float = 1.0) -> np.ndarray | None:
        """The bias as a vector; zeros where there is none, None where it is not constant or not a vector."""
        if place >= len(node.inputs) or not node.inputs[place] or factor == 0.0:
            return np.zeros(channels)
        value = self._operand(node, place)
        if value is None or value.ndim > 2 or value.size not in (1, channels) or value.shape[:-1] not in ((), (1,)):
            return None
        return np.broadcast_to(np.asarray(value, np.float64).reshape(-1) * factor, (channels,))

    def convolution(self, node: Node) -> Layer | None:
        """Conv: OI and window axes -> O, window axes, I."""
        weights = self._weights(node, 1, lambda array: np.moveaxis(array, 1, -1))
        if weights is None:
            return self._not_constant(node)
        return self._windowed(node, weights, self._bias(node, 2, weights.real.shape[0]))

    def transposed_convolution(self, node: Node) -> Layer | None:
        """ConvTranspose: I, O in the group, window axes -> O, window axes, I in the group."""
        groups = int(node.attrs.get("group", 1))

        def arranged(array: np.ndarray) -> np.ndarray:
            parts = np.stack(np.split(array, groups))  # groups, I in the group, O in the group, window axes
            return np.moveaxis(parts.swapaxes(1, 2).reshape(-1, *parts.shape[1:2], *array.shape[2:]), 1, -1)

        shape = self.graph.tensors[node.inputs[1]].shape
        weights = self._weights(node, 1, arranged) if shape and shape[0] % groups == 0 else None
        if weights is None:
            return self._not_constant(node)
        return self._windowed(node, weights, self._bias(node, 2, weights.real.shape[0]), transposed=True)

    def _windowed(self, node: Node, weights: Weights, bias: np.ndarray | None, *, transposed: bool = False) -> Layer:
        axes = weights.real.ndim - 2
        pads = node.attrs.get("pads")
        automatic = node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "")
        return Layer(
            name=node.name,
            op=node.op,
            weights=weights,
            bias=bias,
            bias_step=None,
            groups=int(node.attrs.get("group", 1)),
            source=node.inputs[0],
            output=node.outputs[0],
            tensors=(node.inputs[1], node.outputs[0]),
            transposed=transposed,
            strides=tuple(node.attrs.get("strides") or [1] * axes),
            dilations=tuple(node.attrs.get("dilations") or [1] * axes),
            pads=None if automatic or transposed else tuple(pads or [0] * 2 * axes),
            source_grid=self.grid_before(node.inputs[0]),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
            extent=self.graph.tensors[node.outputs[0]].shape[2:],
        )

    def gemm(self, node: Node) -> Layer | None:
        """Gemm: alpha and beta taken into weight and bias."""
        alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
        turned = not node.attrs.get("transB")
        weights = self._weights(node, 1, lambda array: array.T if turned else array)
        if weights is None or node.attrs.get("transA") or alpha == 0.0:
            return self._not_constant(node)
        step = None if weights.step is None else weights.step * abs(alpha)
        scaled = Weights(weights.real * alpha, step)
        return self._dense(node, scaled, self._bias(node, 2, weights.real.shape[0], beta), 0)

    def matmul(self, node: Node) -> Layer | None:
        """MatMul by a constant matrix; by a stack of them, it is not read."""
        places = [place for place in (0, 1) if node.inputs[place] in self.constants]
        if len(places) != 1:
            return None
        (place,) = places
        value = self._operand(node, place)
        if value is None or value.ndim != 2:
            return self._not_constant(node)
        weights = self._weights(node, place, lambda array: array.T if place == 1 else array)
        if weights is None:
            return self._not_constant(node)
        return self._dense(node, weights, np.zeros(weights.real.shape[0]), 1 - place)

    def _dense(self, node: Node, weights: Weights, bias: np.ndarray | None, data: int) -> Layer:
        return Layer(
            name=node.name,
            op=node.op,
            weights=weights,
            bias=bias,
            bias_step=None,
            groups=1,
            source=node.inputs[data],
            output=node.outputs[0],
            tensors=(node.inputs[1 - data], node.outputs[0]),
            source_grid=self.grid_before(node.inputs[data]),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
        )

    def quantized_convolution(self, node: Node) -> Layer | None:
        """QLinearConv: Conv with scales and zero points as operands."""
        x_scale, x_zero, codes, scale, zero = (self._operand(node, place) for place in range(1, 6))
        if codes is None or scale is None or x_scale is None or x_scale.size != 1 or codes.dtype.kind not in "iu":
            return self._not_constant(node)
        where = [-1] + [1] * (codes.ndim - 1)
        zeros = np.zeros(1) if zero is None else np.asarray(zero, np.float64)
        step = np.broadcast_to(np.asarray(scale, np.float64).reshape(where), codes.shape)
        weights = Weights(
            np.moveaxis((codes.astype(np.float64) - zeros.reshape(where)) * step, 1, -1), np.moveaxis(step, 1, -1)
        )
        bias_codes = self._operand(node, 8)
        bias = np.zeros(len(codes))
        if bias_codes is not None:
            bias = bias_codes.astype(np.float64) * float(x_scale.reshape(-1)[0]) * step.reshape(len(codes), -1)[:, 0]
        layer = self._windowed(node, weights, bias)
        outside = [self._operand(node, place) for place in (6, 7)]
        grids = tuple(grid for grid in (_grid(outside[0], outside[1]),) if grid is not None)
        return replace(layer, source_grid=_grid(x_scale, x_zero), output_grids=grids)

    def normalization(self, node: Node) -> Layer | None:
        """BatchNormalization that stands alone: a factor and an offset for each channel."""
        step = self._batch_norm(node)
        if step is None:
            return self._not_constant(node)
        return Layer(
            name=node.name,
            op=node.op,
            weights=Weights(step.factor.reshape(-1, 1), None),
            bias=step.offset,
            bias_step=None,
            groups=step.factor.size,
            source=node.inputs[0],
            output=node.outputs[0],
            tensors=(node.outputs[0],),
            source_grid=self.grid_before(node.inputs[0]),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
        )

    def factors(self, node: Node) -> Layer | None:
        """Mul by a constant for each channel, where no layer stands before: half of a normalization."""
        moving = [name for name in node.inputs if name not in self.constants]
        value = self._operand(node, 1 - node.inputs.index(moving[0])) if len(moving) == 1 else None
        if value is None or value.dtype.kind != "f" or value.size < 2 or max(value.shape) != value.size:
            return None
        numbers = np.asarray(value, np.float64).reshape(-1)
        if (numbers == numbers[0]).all():
            return None  # one factor for all: no layer
        return Layer(
            name=node.name, op=node.op, weights=Weights(numbers.reshape(-1, 1), None), bias=np.zeros(numbers.size),
            bias_step=None, groups=numbers.size, source=moving[0], output=node.outputs[0], tensors=(node.outputs[0],),
            source_grid=self.grid_before(moving[0]),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
        )  # fmt: skip

    def slopes(self, node: Node) -> Layer | None:
        """PRelu by constant slopes, LeakyRelu by its one."""
        if node.op == "LeakyRelu":
            weights = slopes(np.array([float(node.attrs.get("alpha", 0.01))]))
        else:
            found = self._weights(node, 1, np.asarray)
            weights = None if found is None else slopes(found.real, found.step)
        if weights is None:
            return self._not_constant(node)
        channels = len(weights.real)
        return Layer(
            name=node.name, op=node.op, weights=weights, bias=np.zeros(channels), bias_step=None, groups=channels,
            source=node.inputs[0], output=node.outputs[0], tensors=(node.outputs[0],), slopes=True,
            source_grid=self.grid_before(node.inputs[0]),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
        )  # fmt: skip

    def hard_sigmoid(self, node: Node) -> Layer | None:
        """HardSigmoid that stands alone, as the one factor and offset for all channels that it may be written as."""
        shape = self.graph.tensors[node.outputs[0]].shape
        channels = 1 if len(shape) < 2 else shape[-1] if len(shape) == 3 else shape[1]
        alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
        return Layer(
            name=node.name, op=node.op, weights=Weights(np.full((channels, 1), alpha), None),
            bias=np.full(channels, beta), bias_step=None, groups=channels, source=node.inputs[0],
            output=node.outputs[0], tensors=(node.outputs[0],), source_grid=self.grid_before(node.inputs[0]),
            output_size=int(np.prod(shape)),
        )  # fmt: skip

    def _not_constant(self, node: Node) -> Layer | None:
        """Note that the operator is not read; it is no layer then."""
        self._unread.append(f"{node.op} '{node.name}' (its weights are no constant that can be read)")
        return None

    # ------------------------------------------------------------------------------------------ what stands behind

    def _with_steps(self, layer: Layer) -> tuple[Layer, list[str]]:
        """The layer with every factor and offset per channel behind it, its limits, and the tensors passed on the way."""
        axis = -1 if layer.op in ("Gemm", "MatMul") else 1
        steps, name, passed = self._steps(layer.output, layer.channels, axis)
        limit, after = self._limited(name)
        grids = layer.output_grids or tuple(grid for grid in (self._grid_after(after),) if grid is not None)
        beyond = self._beyond(after, layer.channels, axis)
        made = replace(layer, steps=_that_matter(steps), beyond=beyond, output=name, output_grids=grids, limit=limit)
        return made, passed

    def _steps(self, name: str, channels: int, axis: int) -> tuple[list[Affine], str, list[str]]:
        """Factors and offsets per channel behind a tensor, the tensor behind them, and those passed."""
        steps: list[Affine] = []
        passed: list[str] = []
        while (node := self._only_reader(name)) is not None:
            step = None
            if node.op == "BatchNormalization" and axis % len(self.graph.tensors[name].shape) == 1:
                step = self._batch_norm(node)
            elif node.op in ("Add", "Sub", "Mul", "Div"):
                step = self._arithmetic(node, name, channels, axis)
            elif node.op == "HardSigmoid":  # and its limits, which a converter writes as it likes
                ones = np.ones(channels)
                alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
                step = Affine(node.name, ones * alpha, ones * beta, ones * 0)
            elif node.op in ("Identity", "Dropout"):
                step = Affine(node.name, np.ones(channels), np.zeros(channels), np.zeros(channels))
            if step is None or step.factor.size != channels:
                break
            steps.append(step)
            name = node.outputs[0]
            passed.append(name)
        return steps, name, passed

    def _beyond(self, name: str, channels: int, axis: int) -> tuple[Affine, ...]:
        """The steps that follow through limits and trained roundings, as long as one operator follows the other."""
        found: list[Affine] = []
        while True:
            steps, name, _ = self._steps(name, channels, axis)
            found += steps
            node = self._only_reader(name)
            if node is None or node.op not in (*_LIMITS, *HANDS_ON):
                return _that_matter(found)
            name = node.outputs[0]

    def _only_reader(self, name: str) -> Node | None:
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.graph.outputs else None

    def _batch_norm(self, node: Node) -> Affine | None:
        arrays = [self._operand(node, place) for place in range(1, 5)]
        if any(array is None for array in arrays) or node.attrs.get("training_mode"):
            return None
        gamma, beta, mean, variance = (np.asarray(array, np.float64).reshape(-1) for array in arrays)
        spread = variance + float(node.attrs.get("epsilon", 1e-5))
        if not (spread > 0).all():
            return None
        factor = gamma / np.sqrt(spread)
        return Affine(node.name, factor, beta - mean * factor, np.zeros(factor.size))

    def _arithmetic(self, node: Node, data: str, channels: int, axis: int) -> Affine | None:
        if node.inputs.count(data) != 1:
            return None
        place = node.inputs.index(data)
        value = self._operand(node, 1 - place)
        rank = len(self.graph.tensors[node.outputs[0]].shape)
        if value is None or value.dtype.kind != "f":
            return None
        numbers = per_channel(value, rank, axis, channels)
        return None if numbers is None else arithmetic(node.name, node.op.upper(), place, numbers)

    def _limited(self, name: str) -> tuple[tuple[float, float], str]:
        """The real limits of what follows, and the last tensor that only limits."""
        low, high = -np.inf, np.inf
        while (node := self._only_reader(name)) is not None and node.op in (*_LIMITS, "Identity", "Dropout"):
            if node.op == "Relu":
                low, high = max(low, 0.0), max(high, 0.0)
            elif node.op == "Clip":
                ends = [self._operand(node, place) for place in (1, 2)]
                if any(len(node.inputs) > place and node.inputs[place] and ends[place - 1] is None for place in (1, 2)):
                    break
                bottom, top = (None if end is None else float(end.reshape(-1)[0]) for end in ends)
                low = low if bottom is None else max(low, bottom)
                high = high if top is None else min(high, top)
            name = node.outputs[0]
        return (low, high), name

    # ------------------------------------------------------------------------------------------ grids

    def _grid_of(self, node: Node) -> Grid | None:
        """Of a QuantizeLinear or DequantizeLinear on an activation."""
        arrays = [None, *(self._operand(node, place) for place in (1, 2))]
        if quantization_of(node, arrays, ()) is None:
            return None
        return _grid(arrays[1], arrays[2], self._clipped_to_7_bits(node))

    def _clipped_to_7_bits(self, node: Node) -> bool:
        """Whether a Clip at 127 or below stands between quantize and dequantize (`reduce_range`)."""
        if node.op == "DequantizeLinear":
            inner = self.producers.get(node.inputs[0])
        else:
            inner = self._only_reader(node.outputs[0])
        if inner is None or inner.op != "Clip":
            return False
        top = self._operand(inner, 2)
        return top is not None and float(top.reshape(-1)[0]) <= 127

    def grid_before(self, name: str) -> Grid | None:
        """The grid on which a tensor lies because a DequantizeLinear made it, rearranged perhaps."""
        while (node := self.producers.get(name)) is not None:
            if node.op == "DequantizeLinear":
                return self._grid_of(node)
            if node.op not in _SAME_GRID or not node.inputs:
                return None
            name = node.inputs[0]
        return None

    def trained_grids(self) -> dict[str, Grid]:
        """Where training put each activation, by the name of its real numbers."""
        found = {
            node.outputs[0]: self._grid_of(node)
            for node in self.graph.nodes
            if node.op == "DequantizeLinear" and node.inputs[0] not in self.constants
        }
        return {name: grid for name, grid in found.items() if grid is not None}

    def _grid_after(self, name: str) -> Grid | None:
        """The one grid to which everything that reads a tensor quantizes it."""
        readers = self.readers.get(name, ())
        grids = [self._grid_of(node) for node in readers if node.op == "QuantizeLinear" and node.inputs[0] == name]
        if not grids or len(grids) < len(readers) or name in self.graph.outputs:
            return None
        first = grids[0]
        return first if all(grid is not None and first is not None and first.same(grid) for grid in grids) else None

    # ------------------------------------------------------------------------------------------ what is made of what

    def _reach(self, made: Mapping[str, int]) -> dict[str, Reach]:
        reach: dict[str, Reach] = {
            name: frozenset([(("input", place), ())]) for place, name in enumerate(self.graph.inputs)
        }
        for node in self.graph.nodes:
            moving = [name for name in node.inputs if name and name not in self.constants]
            parts = [reach.get(name, frozenset()) for name in moving]
            found = reached(parts, ORDERED.get(node.op))
            for name in node.outputs:
                reach[name] = frozenset([(("layer", made[name]), ())]) if name in made else found
        return reach

    def _merges(self, reach: Mapping[str, Reach], inside: set[str]) -> Iterator[Merge]:
        for node in self.graph.nodes:
            moving = [name for name in node.inputs if name and name not in self.constants]
            if node.op not in MERGES or len(moving) < 2 or node.outputs[0] in inside:
                continue
            _, after = self._limited(node.outputs[0])
            grid = self._grid_after(after)
            made_of: frozenset[Source] = frozenset(source for source, _ in reach[node.outputs[0]])
            yield Merge(MERGES[node.op], node.name, made_of, () if grid is None else (grid,))


_LAYERS: Mapping[str, Callable[[OnnxSide, Node], Layer | None]] = {
    "Conv": OnnxSide.convolution,
    "ConvTranspose": OnnxSide.transposed_convolution,
    "Gemm": OnnxSide.gemm,
    "MatMul": OnnxSide.matmul,
    "QLinearConv": OnnxSide.quantized_convolution,
    "BatchNormalization": OnnxSide.normalization,
    "Mul": OnnxSide.factors,
    "HardSigmoid": OnnxSide.hard_sigmoid,
    "PRelu": OnnxSide.slopes,
    "LeakyRelu": OnnxSide.slopes,
}


def _that_matter(steps: Sequence[Affine]) -> tuple[Affine, ...]:
    return tuple(step for step in steps if not (np.all(step.factor == 1) and not step.offset.any()))


def _grid(scale: np.ndarray | None, zero: np.ndarray | None, seven_bit: bool = False) -> Grid | None:
    if scale is None or scale.size != 1 or not float(scale.reshape(-1)[0]) > 0:
        return None
    point = 0 if zero is None else int(zero.reshape(-1)[0])
    if zero is None or zero.dtype == np.uint8:
        return Grid(float(scale.reshape(-1)[0]), point - 128, point if seven_bit else None)
    return Grid(float(scale.reshape(-1)[0]), point) if zero.dtype == np.int8 else None


def per_channel(value: np.ndarray, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """A constant that has one number for each channel on `axis` of a tensor of `rank`, or one for all: (channels,)."""
    if value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    where = axis % rank if rank else 0
    if any(size != 1 for place, size in enumerate(shape) if place != where) or value.size not in (1, channels):
        return None
    return np.broadcast_to(np.asarray(value, np.float64).reshape(-1), (channels,))


def arithmetic(name: str, op: str, place: int, numbers: np.ndarray, step: np.ndarray | None = None) -> Affine | None:
    """`data op numbers`, or the other way round where the data is the second operand (`place` 1)."""
    ones, zeros = np.ones(numbers.size), np.zeros(numbers.size)
    apart = zeros if step is None else step
    if op == "MUL":
        return Affine(name, numbers, zeros, apart)
    if op == "ADD":
        return Affine(name, ones, numbers, apart)
    if op == "SUB":
        return Affine(name, ones, -numbers, apart) if place == 0 else Affine(name, -ones, numbers, apart)
    if op == "DIV" and place == 0 and numbers.all():
        return Affine(name, 1.0 / numbers, zeros, apart)
    return None
