"""The layers of a .tflite: codes, scales and biases as its kernels use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Graph, Node, Tensor
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
from compare.explaining.side_by_side.onnx_side import arithmetic, per_channel

MOVES = frozenset((
    "QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "PAD", "PADV2", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "PACK", "UNPACK",
    "STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V", "GATHER", "CAST", "BROADCAST_TO", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH",
    "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "TILE", "MIRROR_PAD",
))  # fmt: skip
ORDERED = {
    "CONCATENATION": "concatenation", "SUB": "subtraction", "DIV": "division", "BATCH_MATMUL": "product", "POW": "power",
}  # fmt: skip
MERGES = {"ADD": "sum", "SUB": "difference", "MUL": "product of elements", "CONCATENATION": "concatenation"}
_FUSED = {"NONE": (-np.inf, np.inf), "RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
_LIMITS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
_UNREAD = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "RNN", "SVDF", "CONV_3D", "CONV_3D_TRANSPOSE",
    "EMBEDDING_LOOKUP",
}  # fmt: skip


class TfliteSide:
    """The reader of one file's layers; `network` is the answer."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.readers = graph.consumers()
        self._unread: list[str] = []
        self._known: dict[str, Weights | None] = {}

    def network(self) -> Network:
        """Every layer, and what is made of what."""
        layers: list[Layer] = []
        inside: set[str] = set()
        made: dict[str, int] = {}
        for node in self.graph.nodes:
            if not node.outputs or node.outputs[0] in inside or self.constant(node.outputs[0]) is not None:
                continue
            rule = _LAYERS.get(node.op)
            layer = rule(self, node) if rule is not None else None
            if layer is None:
                if node.op in _UNREAD:
                    self._unread.append(f"{node.op} '{node.outputs[0]}'")
                continue
            behind, passed = self._with_steps(layer, node)
            inside.update(passed)
            made.update(dict.fromkeys((layer.output, *passed), len(layers)))
            layers.append(behind)
        reach = self._reach(made)
        graph = self.graph
        return Network(
            layers=tuple(layers),
            reach=reach,
            inputs=graph.inputs,
            outputs=graph.outputs,
            input_grids=tuple(self._inner_grid(name, forward=True) for name in graph.inputs),
            output_grids=tuple(self._inner_grid(name, forward=False) for name in graph.outputs),
            output_sizes=tuple(int(np.prod(graph.tensors[name].shape)) for name in graph.outputs),
            merges=tuple(self._merges(reach, inside)),
            unread=tuple(self._unread),
            others=Counter(
                node.op
                for node in graph.nodes
                if node.op not in MOVES | _UNREAD and node.outputs and node.outputs[0] not in made
            ),
        )

    # ------------------------------------------------------------------------------------------ constants

    def constant(self, name: str) -> Weights | None:
        """The real numbers and the step of a constant, also behind QUANTIZE, DEQUANTIZE and what only moves it."""
        if name not in self._known:
            self._known[name] = None  # a file with a circle in it ends here
            self._known[name] = self._constant(name)
        return self._known[name]

    def _constant(self, name: str) -> Weights | None:
        tensor = self.graph.tensors.get(name)
        if tensor is None:
            return None
        if tensor.data is not None:
            return _real(tensor)
        node = self.producers.get(name)
        if node is None or node.op not in ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "TRANSPOSE"):
            return None
        source = self.constant(node.inputs[0])
        if source is None:
            return None
        if node.op == "DEQUANTIZE":
            return source
        if node.op == "QUANTIZE":
            if tensor.qparams is None:
                return None
            limits = np.iinfo(tensor.dtype)
            step, zero = (_along(tensor, array) for array in (tensor.q.scale, tensor.q.zero_point))
            codes = np.clip(np.rint(source.real / step) + zero, limits.min, limits.max)
            return Weights((codes - zero) * step, np.broadcast_to(step, tensor.shape))
        if node.op == "RESHAPE":
            if int(np.prod(tensor.shape)) != source.real.size:
                return None
            return _each(source, lambda array: array.reshape(tensor.shape))
        order = self.graph.tensors[node.inputs[1]].data if len(node.inputs) > 1 else None
        if order is None or sorted(order.reshape(-1).tolist()) != list(range(source.real.ndim)):
            return None
        return _each(source, lambda array: array.transpose(order.reshape(-1).tolist()))

    # ------------------------------------------------------------------------------------------ layers

    def convolution(self, node: Node) -> Layer | None:
        """CONV_2D: O, H, W, I as it is."""
        return self._windowed(node, lambda array: array)

    def depthwise(self, node: Node) -> Layer | None:
        """DEPTHWISE_CONV_2D: 1, H, W, O -> O, H, W, 1."""
        return self._windowed(node, lambda array: array.transpose(3, 1, 2, 0))

    def _windowed(self, node: Node, arranged: Callable[[np.ndarray], np.ndarray]) -> Layer | None:
        weights = self.constant(node.inputs[1])
        if weights is None or weights.real.ndim != 4:
            return self._not_constant(node)
        weights = _each(weights, arranged)
        x = self.graph.tensors[node.inputs[0]]
        groups = x.shape[-1] // max(weights.real.shape[-1], 1) if x.shape else 1
        return self._made(node, weights, 0, 2, groups=groups)

    def transposed_convolution(self, node: Node) -> Layer | None:
        """TRANSPOSE_CONV: O, H, W, I as it is; the data is its third operand."""
        weights = self.constant(node.inputs[1]) if len(node.inputs) > 2 else None
        if weights is None or weights.real.ndim != 4:
            return self._not_constant(node)
        return self._made(node, weights, 2, 3, transposed=True)

    def dense(self, node: Node) -> Layer | None:
        """FULLY_CONNECTED: O, I as it is."""
        weights = self.constant(node.inputs[1])
        if weights is None or weights.real.ndim != 2:
            return self._not_constant(node)
        return self._made(node, weights, 0, 2)

    def product(self, node: Node) -> Layer | None:
        """BATCH_MATMUL by a constant matrix; of two activations, it is no layer."""
        found = [place for place in (0, 1) if self.constant(node.inputs[place]) is not None]
        if len(found) != 1:
            return None
        weights = self.constant(node.inputs[found[0]])
        if weights is None or weights.real.ndim != 2 or found[0] == 0:
            return self._not_constant(node)
        return self._made(node, _each(weights, np.transpose), 0, None)

    def factors(self, node: Node) -> Layer | None:
        """MUL by a constant for each channel, where no layer stands before: a normalization that was not folded."""
        data = self._data(node)
        if data is None:
            return None
        shape = self.graph.tensors[node.outputs[0]].shape
        channels = shape[-1] if len(shape) > 1 else 0
        step = self._arithmetic(node, data, channels) if channels > 1 else None
        if step is None or bool((step.factor == step.factor[0]).all()):
            return None  # one factor for all: no layer
        return Layer(
            name=node.outputs[0], op=node.op,
            weights=Weights(step.factor.reshape(-1, 1), np.maximum(step.step, 0.0).reshape(-1, 1) if step.step.any() else None),
            bias=np.zeros(channels), bias_step=None, groups=channels, source=data, output=node.outputs[0],
            tensors=(*node.inputs, *node.outputs),
            source_grid=self.grid(data), output_grids=(), output_size=int(np.prod(shape)),
        )  # fmt: skip

    def slopes(self, node: Node) -> Layer | None:
        """PRELU by constant slopes, LEAKY_RELU by its one."""
        if node.op == "LEAKY_RELU":
            weights = slopes(np.array([float(node.attrs["alpha"])]))
        else:
            found = self.constant(node.inputs[1])
            weights = None if found is None else slopes(found.real, found.step)
        if weights is None:
            return self._not_constant(node)
        channels = len(weights.real)
        return Layer(
            name=node.outputs[0], op=node.op, weights=weights, bias=np.zeros(channels), bias_step=None, groups=channels,
            source=node.inputs[0], output=node.outputs[0], tensors=(*node.inputs, *node.outputs), slopes=True,
            source_grid=self.grid(node.inputs[0]), output_grids=(),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
        )  # fmt: skip

    def _data(self, node: Node) -> str | None:
        moving = [name for name in node.inputs if name and self.constant(name) is None]
        return moving[0] if len(moving) == 1 else None

    def _made(
        self,
        node: Node,
        weights: Weights,
        data: int,
        bias_place: int | None,
        *,
        groups: int = 1,
        transposed: bool = False,
    ) -> Layer:
        source = self.graph.tensors[node.inputs[data]]
        bias, bias_step, names = self._bias(node, weights, source, bias_place)
        attrs = node.attrs
        windowed = "stride_h" in attrs
        return Layer(
            name=node.outputs[0],
            op=node.op,
            weights=weights,
            bias=bias,
            bias_step=bias_step,
            groups=groups,
            source=node.inputs[data],
            output=node.outputs[0],
            tensors=(node.inputs[1], *names, node.inputs[data], node.outputs[0]),
            transposed=transposed,
            strides=(int(attrs["stride_h"]), int(attrs["stride_w"])) if windowed else (),
            dilations=(
                (int(attrs["dilation_h_factor"]), int(attrs["dilation_w_factor"]))
                if "dilation_h_factor" in attrs
                else ()
            ),
            pads=self._pads(node, weights) if windowed and not transposed else None,
            source_grid=self.grid(node.inputs[data]),
            output_size=int(np.prod(self.graph.tensors[node.outputs[0]].shape)),
            extent=self.graph.tensors[node.outputs[0]].shape[1:3] if windowed else (),
        )

    def _bias(
        self, node: Node, weights: Weights, source: Tensor, place: int | None
    ) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
        """The bias as the kernel adds it: int32 codes count input scale x weight scale, whatever scale they carry."""
        channels = weights.real.shape[0]
        step = None
        if weights.step is not None and source.qparams is not None and source.qparams.axis is None:
            rows = weights.step.reshape(channels, -1)
            step = rows[:, 0] * float(source.qparams.scale)
        if place is None or place >= len(node.inputs) or not node.inputs[place]:
            return np.zeros(channels), step, ()
        name = node.inputs[place]
        tensor = self.graph.tensors[name]
        if tensor.data is None or tensor.data.size != channels:
            found = self.constant(name)
            real = None if found is None or found.real.size != channels else found.real.reshape(-1)
            return real, None, (name,)
        codes = tensor.data.reshape(-1)
        if codes.dtype.kind == "i" and step is not None:
            return codes.astype(np.float64) * step, step, (name,)
        if codes.dtype.kind == "i":
            return None, None, (name,)
        return codes.astype(np.float64), None, (name,)

    def _pads(self, node: Node, weights: Weights) -> tuple[int, ...] | None:
        """Padding of the operator and of a PAD right before it, begins and then ends of height and width."""
        x, y = self.graph.tensors[node.inputs[0]].shape, self.graph.tensors[node.outputs[0]].shape
        if len(x) != 4 or len(y) != 4:
            return None
        begins, ends = [0, 0], [0, 0]
        for axis, (stride, dilation) in enumerate(
            zip(
                (node.attrs["stride_h"], node.attrs["stride_w"]),
                (node.attrs.get("dilation_h_factor", 1), node.attrs.get("dilation_w_factor", 1)),
                strict=True,
            )
        ):
            if node.attrs.get("padding") == "SAME":
                reach = (weights.real.shape[1 + axis] - 1) * dilation + 1
                total = max((y[1 + axis] - 1) * stride + reach - x[1 + axis], 0)
                begins[axis], ends[axis] = total // 2, total - total // 2
        before = self.producers.get(node.inputs[0])
        if before is not None and before.op in ("PAD", "PADV2"):
            amounts = self.graph.tensors[before.inputs[1]].data
            if amounts is None or amounts.shape != (4, 2) or amounts[[0, 3]].any():
                return None
            begins = [begins[i] + int(amounts[1 + i, 0]) for i in range(2)]
            ends = [ends[i] + int(amounts[1 + i, 1]) for i in range(2)]
        return (*begins, *ends)

    def _not_constant(self, node: Node) -> Layer | None:
        """Note that the operator is not read; it is no layer then."""
        self._unread.append(f"{node.op} '{node.outputs[0]}' (its weights are no constant that can be read)")
        return None

    # ------------------------------------------------------------------------------------------ what stands behind

    def _with_steps(self, layer: Layer, node: Node) -> tuple[Layer, list[str]]:
        steps: list[Affine] = []
        passed: list[str] = []
        name = layer.output
        low, high = _FUSED.get(str(node.attrs.get("fused_activation", "NONE")), (-np.inf, np.inf))
        grids = [self.grid(name)]
        while (low, high) == (-np.inf, np.inf) and (reader := self._only_reader(name)) is not None:
            step = self._arithmetic(reader, name, layer.channels) if reader.op in ("ADD", "SUB", "MUL", "DIV") else None
            if step is None:
                break
            steps.append(step)
            name = reader.outputs[0]
            passed.append(name)
            grids.append(self.grid(name))
            low, high = _FUSED.get(str(reader.attrs.get("fused_activation", "NONE")), (-np.inf, np.inf))
        output = name
        while (reader := self._only_reader(name)) is not None:
            if reader.op in _LIMITS:
                bottom, top = _LIMITS[reader.op]
            elif reader.op in ("MINIMUM", "MAXIMUM"):
                other = self.constant(next((each for each in reader.inputs if each != name), ""))
                if other is None or other.real.size != 1:
                    break
                end = float(other.real.reshape(-1)[0])
                bottom, top = (end, np.inf) if reader.op == "MAXIMUM" else (-np.inf, end)
            elif reader.op in ("QUANTIZE", "DEQUANTIZE"):
                bottom, top = -np.inf, np.inf
            else:
                break
            low, high = min(max(low, bottom), top), max(min(high, top), bottom)
            name = reader.outputs[0]
            grids.append(self.grid(name))
        kept = tuple(grid for grid in grids if grid is not None)
        steps = [step for step in steps if not (np.all(step.factor == 1) and not step.offset.any())]
        return replace(layer, steps=tuple(steps), output=output, output_grids=kept, limit=(low, high)), passed

    def _only_reader(self, name: str) -> Node | None:
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.graph.outputs else None

    def _arithmetic(self, node: Node, data: str, channels: int) -> Affine | None:
        if len(node.inputs) != 2 or node.inputs.count(data) != 1:
            return None
        place = node.inputs.index(data)
        value = self.constant(node.inputs[1 - place])
        rank = len(self.graph.tensors[node.outputs[0]].shape)
        if value is None or channels < 1:
            return None
        numbers = per_channel(value.real, rank, -1, channels)
        if numbers is None:
            return None
        step = None if value.step is None else per_channel(np.array(value.step), rank, -1, channels)
        return arithmetic(node.outputs[0], node.op, place, numbers, step)

    # ------------------------------------------------------------------------------------------ grids

    def grid(self, name: str) -> Grid | None:
        """Of an 8-bit tensor, its zero point as int8; None for any other."""
        tensor = self.graph.tensors.get(name)
        if tensor is None or tensor.qparams is None or tensor.qparams.axis is not None or tensor.dtype.itemsize != 1:
            return None
        shift = 128 if tensor.dtype == np.uint8 else 0
        return Grid(float(tensor.q.scale), int(tensor.q.zero_point) - shift)

    def _inner_grid(self, name: str, *, forward: bool) -> Grid | None:
        """Of an input or output; where that is float, of the one tensor behind its QUANTIZE or before its DEQUANTIZE."""
        grid = self.grid(name)
        if grid is not None:
            return grid
        if forward:
            readers = self.readers.get(name, ())
            inner = [node.outputs[0] for node in readers if node.op == "QUANTIZE"]
            return self.grid(inner[0]) if len(inner) == len(readers) == 1 else None
        node = self.producers.get(name)
        return self.grid(node.inputs[0]) if node is not None and node.op == "DEQUANTIZE" else None

    # ------------------------------------------------------------------------------------------ what is made of what

    def _reach(self, made: Mapping[str, int]) -> dict[str, Reach]:
        reach: dict[str, Reach] = {
            name: frozenset([(("input", place), ())]) for place, name in enumerate(self.graph.inputs)
        }
        for node in self.graph.nodes:
            moving = [name for name in node.inputs if name and self.constant(name) is None]
            parts = [reach.get(name, frozenset()) for name in moving]
            found = reached(parts, ORDERED.get(node.op))
            for name in node.outputs:
                reach[name] = frozenset([(("layer", made[name]), ())]) if name in made else found
        return reach

    def _merges(self, reach: Mapping[str, Reach], inside: set[str]) -> Iterator[Merge]:
        for node in self.graph.nodes:
            moving = [name for name in node.inputs if name and self.constant(name) is None]
            if node.op not in MERGES or len(moving) < 2 or node.outputs[0] in inside:
                continue
            made_of: frozenset[Source] = frozenset(source for source, _ in reach[node.outputs[0]])
            yield Merge(MERGES[node.op], node.outputs[0], made_of, tuple(self._grids_behind(node.outputs[0])))

    def _grids_behind(self, name: str) -> Iterator[Grid]:
        """Of a tensor and of what only limits or rescales it."""
        while True:
            grid = self.grid(name)
            if grid is not None:
                yield grid
            reader = self._only_reader(name)
            if reader is None or reader.op not in {*_LIMITS, "QUANTIZE", "DEQUANTIZE", "MINIMUM", "MAXIMUM"}:
                return
            name = reader.outputs[0]


_LAYERS: Mapping[str, Callable[[TfliteSide, Node], Layer | None]] = {
    "CONV_2D": TfliteSide.convolution,
    "DEPTHWISE_CONV_2D": TfliteSide.depthwise,
    "TRANSPOSE_CONV": TfliteSide.transposed_convolution,
    "FULLY_CONNECTED": TfliteSide.dense,
    "BATCH_MATMUL": TfliteSide.product,
    "MUL": TfliteSide.factors,
    "PRELU": TfliteSide.slopes,
    "LEAKY_RELU": TfliteSide.slopes,
}


def _along(tensor: Tensor, parameters: np.ndarray) -> np.ndarray:
    shape = [1] * len(tensor.shape)
    if tensor.q.axis is not None:
        shape[tensor.q.axis] = -1
    return np.asarray(parameters, np.float64).reshape(shape)


def _real(tensor: Tensor) -> Weights | None:
    if tensor.data is None or tensor.data.dtype.kind not in "fiu":
        return None
    if tensor.qparams is None:
        return Weights(tensor.data.astype(np.float64), None)
    step, zero = _along(tensor, tensor.q.scale), _along(tensor, tensor.q.zero_point)
    return Weights((tensor.data.astype(np.float64) - zero) * step, np.broadcast_to(step, tensor.shape))


def _each(weights: Weights, arranged: Callable[[np.ndarray], np.ndarray]) -> Weights:
    return Weights(arranged(weights.real), None if weights.step is None else arranged(weights.step))
