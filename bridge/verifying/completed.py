"""The reference with a rounding wherever the file has one, and what each tensor of the file should hold by it.

Training leaves some tensors without a scale (an average before the classifier), and TFLite prescribes others; the file
rounds them, the reference does not. Each gets a Q/DQ pair in a copy of the model: there, every operator of the file
can be judged alone, on the very codes it reads, and what the added roundings cost is a figure of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bridge.exact.arithmetic import dequantize
from bridge.exact.graph import Graph, Node, QParams, Tensor
from bridge.verifying.batches import Arrays, arranged, stored_codes
from bridge.verifying.reference import Session, sources

View = Callable[[np.ndarray], np.ndarray]

REARRANGING = {
    *("RESHAPE", "TRANSPOSE", "CONCATENATION", "PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE", "GATHER"),
    *("SPLIT", "SPLIT_V", "QUANTIZE", "DEQUANTIZE"),
}
"""Operators that compute nothing: the same numbers elsewhere, or on another grid."""

_HANDS_ON = {"Identity", "Dropout", "Cast", "DequantizeLinear"}
_COMMUTES = {
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "MaxPool", "DepthToSpace"),
}
"""Operators that may stand behind a rounding, or before it, and mean the same."""
_LIMITS = {"Relu", "Clip"}


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where a tensor of the file is found in the completed model: before its rounding, and arranged how."""

    name: str
    """In the completed model; read `source` instead where a QuantizeLinear rounds it."""
    base: Tensor
    """Whose arrangement the values get first."""
    views: tuple[View, ...] = ()
    quantize: onnx.NodeProto | None = None
    """The QuantizeLinear that rounds it; None where the reference has the values on their grid, or in float."""
    behind: tuple[tuple[onnx.NodeProto, str], ...] = ()
    """Operators of the model behind the rounding, in order, each with the output that is meant."""
    partial: bool = False
    """Whether the reference does not say all of it: what a crop leaves out, what a PADV2 puts around."""

    @property
    def source(self) -> str:
        """The name before the rounding; others may have been put before it meanwhile."""
        return self.name if self.quantize is None else str(self.quantize.input[0])

    def real(self, values: Arrays) -> np.ndarray:
        """The unrounded values, arranged as stored; NaN where the reference does not say."""
        found = arranged(self.base, values[self.source]).astype(np.float32)
        for view in self.views:
            found = view(found)
        return found


class Completed:
    """A model with the file's roundings added; `rounded` names the tensors that got one."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, where: str) -> None:
        self._edit = _Edit(model)
        self._graph = graph
        self._producers = graph.producers()
        self.rounded: list[str] = []
        self.anchors: dict[str, Anchor] = {}
        self._own_anchors()
        for node in graph.nodes:
            self._forwards(node)  # first: what is made of a known tensor is not guessed from what follows
        for node in reversed(graph.nodes):
            self._backwards(node)
        for node in graph.nodes:
            self._forwards(node)
        for name, anchor in self.anchors.items():
            if anchor.behind:
                again = self._edit.repeated(anchor.source, anchor.behind)
                self.anchors[name] = replace(anchor, name=again, quantize=None, behind=())
        self._session = Session(self._edit.finished(), self._wanted(), where)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The model's own outputs, in order."""
        return tuple(each.name for each in self._edit.model.graph.output)

    def __call__(self, batch: Arrays) -> dict[str, np.ndarray]:
        """Values by their names in the completed model."""
        return self._session(batch, self._graph) | dict(batch)

    def _wanted(self) -> list[str]:
        produced = {name for node in self._edit.nodes for name in node.output}
        sources = [anchor.source for anchor in self.anchors.values() if anchor.source in produced]
        return [*(name for name in self.outputs if name in produced), *sources]

    def _own_anchors(self) -> None:
        graph = self._graph
        for name, source in sources(self._edit.model, graph).items():
            tensor = graph.tensors[name]
            if tensor.dtype.kind != "f" and tensor.qparams is None:
                continue
            if tensor.qparams is None:
                if not self._edit.is_codes(source):  # the model gives codes where the file gives real numbers
                    self.anchors[name] = Anchor(source, tensor)
                continue
            pair = self._edit.pair_of(source)
            if pair is None and tensor.q.axis is None and name not in graph.inputs:
                pair = self._edit.round_at(source, tensor)
                if pair is not None:
                    self.rounded.append(name)
            if pair is None:
                self.anchors[name] = Anchor(source, tensor)
            elif _same_step(pair.grid, tensor.q):
                self.anchors[name] = Anchor(source, tensor, (), pair.quantize, pair.behind)
            elif (own := self._edit.round_at(source, tensor)) is not None:
                self.anchors[name] = Anchor(source, tensor, (), own.quantize)

    def _backwards(self, node: Node) -> None:
        """From the output of an operator that computes nothing to its input, where only that one is made for it."""
        graph, y = self._graph, self.anchors.get(node.outputs[0])
        data = [name for name in node.inputs if name and not graph.tensors[name].is_constant]
        if y is None or len(data) != 1 or data[0] in self.anchors or data[0] in graph.inputs:
            return
        x, target = graph.tensors[data[0]], graph.tensors[node.outputs[0]]
        if node.op == "RESHAPE":
            self._anchor(x, y, lambda real: real.reshape(x.shape))
        elif node.op == "TRANSPOSE":
            perm = np.argsort(graph.tensors[node.inputs[1]].values)
            self._anchor(x, y, lambda real: real.transpose(perm))
        elif node.op == "SLICE":
            begin, size = (graph.tensors[name].values.tolist() for name in node.inputs[1:3])
            self._anchor(x, y, lambda real: _uncropped(real, x.shape, begin, size), partial=True)
        elif only_requantizes(node, graph) and y.quantize is not None and x.qparams is not None:
            self._before_requantizing(x, target, y, y.quantize)
        elif node.op in ("MAXIMUM", "MINIMUM") and y.quantize is not None and x.qparams is not None:
            self._behind_limits(self._first_limited(x, target), target, y)

    def _before_requantizing(self, x: Tensor, target: Tensor, y: Anchor, quantize: onnx.NodeProto) -> None:
        """The model rounds there already, to the scale of `x`, or it gets that rounding.

        Pairs in a row with one scale are one tensor of the file: the value is sought before the first of them, which
        may clip where the last does not.
        """
        trained, behind = self._edit.pair_of(quantize.input[0]), y.behind
        while trained is not None and not _same_step(trained.grid, x.q) and _same_step(trained.grid, target.q):
            quantize, behind = trained.quantize, (*trained.behind, *behind)
            trained = self._edit.pair_of(quantize.input[0])
        if trained is not None and _same_step(trained.grid, x.q):
            self.anchors[x.name] = replace(y, quantize=trained.quantize, behind=(*trained.behind, *behind))
        else:
            self.rounded.append(x.name)
            self.anchors[x.name] = replace(y, quantize=self._edit.round_before(quantize, x.q), behind=behind)

    def _first_limited(self, x: Tensor, target: Tensor) -> Tensor:
        """What a chain of MAXIMUM and MINIMUM limits."""
        before = self._producers.get(x.name)
        while before is not None and before.op in ("MAXIMUM", "MINIMUM") and x.q == target.q:
            x = self._graph.tensors[before.inputs[0]]
            before = self._producers.get(x.name)
        return x

    def _behind_limits(self, x: Tensor, target: Tensor, y: Anchor) -> None:
        if x.name in self.anchors or x.is_constant or x.qparams is None or not x.q.same_grid(target.q):
            return
        if x.q != target.q:
            self.anchors[x.name] = y  # a trained clamp: the reference has it between Q and DQ
        elif (source := self._edit.before_limit(y.source)) is not None:
            self.anchors[x.name] = replace(y, name=source, quantize=None)

    def _forwards(self, node: Node) -> None:
        """From the input of an operator that computes nothing to its output."""
        graph, target = self._graph, self._graph.tensors[node.outputs[0]]
        data = [name for name in node.inputs if name and not graph.tensors[name].is_constant]
        x = self.anchors.get(data[0]) if data else None
        if x is None or len(data) != 1 or len(node.outputs) != 1 or target.name in self.anchors:
            return
        source = graph.tensors[data[0]]
        x = replace(x, views=(*x.views, lambda real: _within_clamp(source, real)))
        if node.op == "RESHAPE":
            self._anchor(target, x, lambda real: real.reshape(target.shape))
        elif node.op == "TRANSPOSE":
            perm = graph.tensors[node.inputs[1]].values
            self._anchor(target, x, lambda real: real.transpose(perm))
        elif node.op in ("PAD", "PADV2"):
            paddings, zeros = graph.tensors[node.inputs[1]].values, node.op == "PAD"
            filler = (
                0.0 if zeros else np.nan
            )  # whether the file's own filler is right shows behind the operator it is for
            self._anchor(target, x, lambda real: np.pad(real, paddings, constant_values=filler), partial=not zeros)
        elif only_requantizes(node, graph):
            self._anchor(target, x, lambda real: _on_grid(source, real))

    def _anchor(self, tensor: Tensor, like: Anchor, view: View, partial: bool = False) -> None:
        self.anchors[tensor.name] = replace(like, views=(*like.views, view), partial=like.partial or partial)


def only_requantizes(node: Node, graph: Graph) -> bool:
    """Whether the operator hands real numbers on, on another grid: QUANTIZE, DEQUANTIZE, or ADD of what stands for zero.

    That constant is told by its form (bridge/exact/requantize.py), so that one that is not zero is found out, and an
    operator that does something else with it.
    """
    if node.op in ("QUANTIZE", "DEQUANTIZE"):
        return True
    if node.op not in ("ADD", "SUB", "MUL"):
        return False
    (x, zero) = sorted((graph.tensors[name] for name in node.inputs), key=lambda tensor: tensor.is_constant)
    alike = x.qparams is not None and zero.qparams is not None and np.array_equal(x.q.scale, zero.q.scale)
    return not x.is_constant and zero.is_constant and zero.shape == () and alike and not zero.q.zero_point.any()


def _on_grid(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    if tensor.qparams is None:
        return real
    rounded = dequantize(stored_codes(tensor, real), tensor.q)
    return np.where(np.isnan(real), real, rounded)


def _within_clamp(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """The numbers as the trained clamp of a tensor leaves them: what is made of it has no clamp of its own to do that."""
    q = tensor.qparams
    if q is None or q.axis is not None or (q.qmin, q.qmax) in ((-128, 127), (0, 255)):
        return real
    low, high = (np.float32(code - q.zero_point) * q.scale for code in (q.qmin, q.qmax))
    return np.clip(real, low, high)


def _uncropped(real: np.ndarray, shape: tuple[int, ...], begin: Sequence[int], size: Sequence[int]) -> np.ndarray:
    whole = np.full(shape, np.nan, np.float32)
    whole[tuple(slice(start, start + count) for start, count in zip(begin, size, strict=True))] = real
    return whole


def _same_step(grid: QParams, tensor: QParams) -> bool:
    """Whether both are one grid: uint8 codes at the border of a file lie 128 higher than int8 ones."""
    return grid.axis is None and tensor.axis is None and np.array_equal(grid.scale, tensor.scale)


def _as_int8(tensor: Tensor) -> QParams:
    """The grid in int8 codes."""
    shift = np.int32(128 if tensor.dtype == np.uint8 else 0)
    return replace(tensor.q, zero_point=np.asarray(tensor.q.zero_point - shift), qmin=-128, qmax=127)


@dataclass(frozen=True, eq=False)
class _Pair:
    quantize: onnx.NodeProto
    grid: QParams
    behind: tuple[tuple[onnx.NodeProto, str], ...] = ()


class _Edit:
    """A copy of a model, its nodes in a list that pairs are inserted into."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            self.nodes.append(copy)
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._constants = {each.name: each for each in self.model.graph.initializer}
        self._own: dict[str, _Pair] = {}
        self._names = set(self._producers) | set(self._constants) | {each.name for each in self.model.graph.input}

    def finished(self) -> onnx.ModelProto:
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        return self.model

    def pair_of(self, name: str) -> _Pair | None:
        """The pair that rounds a tensor: one that was added, or the model's own, before what commutes with rounding."""
        if name in self._own:
            return self._own[name]
        behind: list[tuple[onnx.NodeProto, str]] = []
        node, output = self._producers.get(name), name
        on_codes = False  # a Clip of codes is a trained clamp, which `QParams` has; one of real numbers is a ReLU6
        while node is not None and (node.op_type in _HANDS_ON | _COMMUTES or (node.op_type == "Clip" and on_codes)):
            on_codes = on_codes or node.op_type == "DequantizeLinear"
            if node.op_type in _COMMUTES:
                behind.insert(0, (node, output))
            output = node.input[0]
            node = self._producers.get(output)
        if node is None or node.op_type != "QuantizeLinear":
            return None
        scale = self._constant(node.input[1])
        if scale is None or scale.size != 1:
            return None
        grid = QParams(scale.astype(np.float32).reshape(()), np.zeros((), np.int32))
        return _Pair(node, grid, tuple(behind))

    def is_codes(self, name: str) -> bool:
        """Whether a tensor of the model holds codes, in front of their DequantizeLinear."""
        node = self._producers.get(name)
        while node is not None and node.op_type in (_HANDS_ON | _COMMUTES) - {"DequantizeLinear"}:
            node = self._producers.get(node.input[0])
        return node is not None and node.op_type == "QuantizeLinear"

    def repeated(self, source: str, behind: Sequence[tuple[onnx.NodeProto, str]]) -> str:
        """The operators behind a rounding once more, on the unrounded values; what they give."""
        for node, output in behind:
            again = onnx.NodeProto()
            again.CopyFrom(node)
            again.name = ""
            again.input[0] = source
            names = [self._new(f"{name}/unrounded") if name else "" for name in node.output]
            del again.output[:]
            again.output.extend(names)
            source = names[list(node.output).index(output)]
            self.nodes.append(again)
        return source

    def round_at(self, name: str, tensor: Tensor) -> _Pair | None:
        """A pair right behind the operator that computes `name`; None where no operator does, or it is on its grid."""
        node = self._producers.get(name)
        if node is None or node.op_type in ("DequantizeLinear", "QuantizeLinear") or name in self._own:
            return None
        before = self._new(f"{name}/unrounded")
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = before
        self._producers[before] = node
        grid = _as_int8(tensor)
        self._own[name] = _Pair(self._insert(self._index(node) + 1, before, name, grid), grid)
        return self._own[name]

    def round_before(self, quantize: onnx.NodeProto, q: QParams) -> onnx.NodeProto:
        """Another pair right before a QuantizeLinear, for it alone; its own QuantizeLinear."""
        source = quantize.input[0]
        rounded = self._new(f"{source}/rounded")
        added = self._insert(self._index(quantize), source, rounded, q)
        quantize.input[0] = rounded
        return added

    def _index(self, node: onnx.NodeProto) -> int:
        return next(index for index, each in enumerate(self.nodes) if each is node)

    def before_limit(self, name: str) -> str | None:
        """What a limit of the model limits, where `name` is its output."""
        node = self._producers.get(name)
        if node is None or node.op_type not in _LIMITS:
            return None
        return str(node.input[0])

    def _insert(self, index: int, source: str, target: str, q: QParams) -> onnx.NodeProto:
        scale, zero, codes = (self._new(f"{target}/{part}") for part in ("scale", "zero", "codes"))
        for name, value in ((scale, q.scale.astype(np.float32)), (zero, q.zero_point.astype(np.int8))):
            self._constants[name] = numpy_helper.from_array(value, name)
            self.model.graph.initializer.append(self._constants[name])
        quantize = helper.make_node("QuantizeLinear", [source, scale, zero], [codes])
        dequantize = helper.make_node("DequantizeLinear", [codes, scale, zero], [target])
        self.nodes[index:index] = [quantize, dequantize]
        self._producers[codes], self._producers[target] = quantize, dequantize
        return quantize

    def _new(self, name: str) -> str:
        while name in self._names:
            name += "'"
        self._names.add(name)
        return name

    def _constant(self, name: str) -> np.ndarray | None:
        if name in self._constants:
            return np.asarray(numpy_helper.to_array(self._constants[name]))
        node = self._producers.get(name)
        if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
            return None
        return np.asarray(numpy_helper.to_array(node.attribute[0].t))
