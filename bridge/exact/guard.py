"""What onnx's own checker and shape inference do not survive is found here, before they see the model.

Both are C++ and trust a model's ranks and numbers: a weight of two axes under ConvTranspose is read out of bounds and
ends the process, a stride of 0 is divided by, `num_outputs` of Split is allocated (onnx 1.19.1; found by running every
operator with operands of 0 to 6 axes and odd attributes in child processes). So the model is walked node by node, each
shape inferred by onnx alone from operands that were looked at before, and held against the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import shape_inference

from bridge.errors import BridgeError
from bridge.exact.budget import Budget, size_of
from bridge.exact.graph import Node, Tensor
from bridge.exact.passes.fold import SMALL, evaluate
from bridge.exact.unwritten import unwritten

MOST_AXES = 32
"""Of any tensor; NumPy counts no further, and TFLite's kernels stop at 6."""
_PROPAGATED = 2**20
"""Numbers of shapes in a whole model; onnx's inference keeps every one as an object."""

Shape = tuple[int, ...] | None


def guard(
    model: onnx.ModelProto,
    nodes: Sequence[Node],
    constants: Mapping[str, np.ndarray],
    file: str,
    budget: Budget,
    known: Container[str] | None = None,
) -> bool:
    """Raise `BridgeError` for what would end the process or fill the memory; whether shapes may be propagated as data.

    `nodes` are those of the model in the bridge's spelling, in the same order; an operator outside `known` is refused.
    """
    _refuse_names(model, constants, file)
    walk = _Walk(model, constants, file)
    propagated = 0
    for proto, node in zip(model.graph.node, nodes, strict=True):
        where = f"{file}, {node}"
        _refuse_unwritten(node, walk, where)
        constant = walk.pass_on_constant(node)
        if known is not None and node.op not in known and not constant:
            others = (each for each in nodes if each is not node and each.op not in known)
            computed = (each for each in others if not all(name in constants for name in each.inputs))
            raise unwritten([node, *computed])
        _refuse_attributes(proto, node, where)
        shapes = [walk.shape(name) for name in node.inputs]
        _refuse_ranks(node, shapes, where)
        _refuse_no_list(node, shapes, where)
        for name in walk.step(proto, node):
            shape = walk.shape(name)
            if shape is None:
                continue
            if len(shape) > MOST_AXES:
                _refuse(f"{where}, output '{name}'", f"has {len(shape)} axes; no kernel takes more than {MOST_AXES}")
            budget.refuse_tensor(size_of(shape), f"{where}, output '{name}'")
            propagated += size_of(shape) if len(shape) == 1 else 1
    return propagated <= _PROPAGATED


def _refuse(
    where: str, problem: str, remedy: str = "The file is damaged or was edited by hand; export it again."
) -> None:
    raise BridgeError(where=where, problem=problem, remedy=remedy)


# Names


def _refuse_names(model: onnx.ModelProto, constants: Mapping[str, np.ndarray], file: str) -> None:
    """Every tensor is made once: as an input, as a constant, or by one node."""
    made = dict.fromkeys(constants, "a constant")
    taken = dict.fromkeys(constants, True)
    for value in model.graph.input:
        if value.name in made and not taken.pop(value.name, False):
            _refuse(f"{file}, input '{value.name}'", "is in the file twice")
        made[value.name] = "an input"
    for node in model.graph.node:
        for name in node.output:
            if name and name in made:
                _refuse(f"{file}, node '{node.name}' ({node.op_type})", f"makes tensor '{name}', which is {made[name]}")
            made[name] = f"made by node '{node.name}' already"
    seen: set[str] = set()
    for name in (value.name for value in model.graph.output):
        if name in seen:
            _refuse(f"{file}, output '{name}'", "is in the file twice")
        seen.add(name)
        if name not in made:
            _refuse(f"{file}, output '{name}'", "is made by no node of the model")


def _refuse_unwritten(node: Node, walk: _Walk, where: str) -> None:
    for name in node.inputs:
        if name and not walk.made(name):
            _refuse(where, f"is not a consistent ONNX graph: it reads '{name}' before anything wrote it")


# Attributes

_WINDOWS = {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"}
_AT_LEAST = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0, "output_padding": 0, "output_shape": 0}
_INT32 = 2**31 - 1


def _refuse_attributes(proto: onnx.NodeProto, node: Node, where: str) -> None:
    for attribute in proto.attribute:
        if attribute.ref_attr_name:
            _refuse(f"{where}, attribute '{attribute.name}'", "refers to an attribute of a function around it")
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            _refuse(
                where,
                "runs another graph inside",
                "The bridge writes one graph of operators: export without control flow, for fixed shapes.",
            )
    if node.op == "Split" and node.attrs.get("num_outputs", len(node.outputs)) != len(node.outputs):
        _refuse(where, f"has {len(node.outputs)} outputs and num_outputs {node.attrs['num_outputs']}")
    if node.op not in _WINDOWS:
        return
    group = node.attrs.get("group", 1)
    if not isinstance(group, int) or not 1 <= group <= _INT32:
        _refuse(where, f"has {group} groups")
    for name, least in _AT_LEAST.items():
        numbers = node.attrs.get(name, [])
        if not isinstance(numbers, list):
            _refuse(where, f"has {name} {numbers}, and not a list of numbers")
        wrong = [number for number in numbers if not least <= number <= _INT32]
        if wrong:
            _refuse(where, f"has {name} {numbers[:8]}; {wrong[0]} is not between {least} and {_INT32}")
    kernel = node.attrs.get("kernel_shape")
    if kernel:
        _refuse_counts(node, len(kernel), where)


def _refuse_counts(node: Node, axes: int, where: str) -> None:
    """Each axis that the window moves over has one stride, one dilation, two pads."""
    for name, each in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2), ("output_padding", 1)):
        numbers = node.attrs.get(name, [])
        if numbers and len(numbers) != axes * each:
            _refuse(where, f"moves over {axes} axes and has {name} {numbers[:8]}, {len(numbers)} numbers")


# Ranks


def _refuse_ranks(node: Node, shapes: Sequence[Shape], where: str) -> None:
    rule = _RANKS.get(node.op)
    if rule is not None:
        rule(node, shapes, where)


def _rank(node: Node, shapes: Sequence[Shape], place: int, where: str) -> int:
    shape = shapes[place] if place < len(shapes) else None
    if shape is None:
        what = f"operand '{node.inputs[place]}'" if place < len(node.inputs) else f"operand {place}"
        _refuse(
            f"{where}, {what}",
            "has a number of axes that cannot be told before the model runs",
            "Export with fixed shapes; integer kernels are planned for them.",
        )
        raise AssertionError  # for mypy: `_refuse` never returns
    return len(shape)


def _convolution(places: tuple[int, int]) -> Callable[[Node, Sequence[Shape], str], None]:
    def rule(node: Node, shapes: Sequence[Shape], where: str) -> None:
        x, weight = (_rank(node, shapes, place, where) for place in places)
        if x != weight or x < 3:
            _refuse(
                f"{where}, weight '{node.inputs[places[1]]}'",
                f"has {weight} axes and its input {x}; both are batch, channels, and what the window moves over",
                "Export the convolution again; its weight has the axes of its input.",
            )
        _refuse_counts(node, x - 2, where)

    return rule


def _pool(node: Node, shapes: Sequence[Shape], where: str) -> None:
    rank = _rank(node, shapes, 0, where)
    kernel = node.attrs.get("kernel_shape", [])
    if rank < 3 or len(kernel) != rank - 2:
        _refuse(
            where, f"has kernel_shape {kernel[:8]} and an input of {rank} axes; the first two are batch and channels"
        )


def _axis_within(node: Node, shapes: Sequence[Shape], where: str) -> None:
    rank, axis = _rank(node, shapes, 0, where), node.attrs.get("axis", -1)
    if not -rank <= axis < max(rank, 1):
        _refuse(where, f"has axis {axis} and an input of {rank} axes")


def _not_at_all(node: Node, shapes: Sequence[Shape], where: str) -> None:  # noqa: ARG001 - the table's form
    _refuse(
        where,
        "is an operator that the bridge does not write, and whose shapes onnx's inference cannot be trusted with",
        "What the bridge writes: docs/operators.md",
    )


_RANKS: dict[str, Callable[[Node, Sequence[Shape], str], None]] = {
    "Conv": _convolution((0, 1)),
    "ConvTranspose": _convolution((0, 1)),
    "ConvInteger": _convolution((0, 1)),
    "QLinearConv": _convolution((0, 3)),
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "LayerNormalization": _axis_within,
    **dict.fromkeys(("DeformConv", "GatherND", "MaxRoiPool", "MaxUnpool", "OneHot"), _not_at_all),
}
"""Operators whose inference reads or divides out of bounds when the ranks are not those of the specification."""


_LISTS = {
    "Slice": (1, 2, 3, 4),
    "Reshape": (1,),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Pad": (1, 3),
    "Split": (1,),
    "ReduceMean": (1,),
    "ReduceProd": (1,),
    "Resize": (1, 2, 3),
}
"""Operands that are lists of numbers, one axis by the specification; onnx looks at some of them only."""


_LONGEST_LIST = 2 * MOST_AXES
"""Two numbers for each axis (Pad, the regions of Resize). onnx's inference makes an object of every number that a list
would hold, known or not: 1.2 GiB for one of 16 million. Split has one for each of its outputs, which are in the file."""


def _refuse_no_list(node: Node, shapes: Sequence[Shape], where: str) -> None:
    for place in _LISTS.get(node.op, ()):
        shape = shapes[place] if place < len(shapes) else None
        if shape is None:
            continue
        operand = f"{where}, operand '{node.inputs[place]}'"
        if len(shape) != 1:
            _refuse(operand, f"has shape {shape}; it must be a list of numbers")
        if shape[0] > _LONGEST_LIST and node.op != "Split":
            _refuse(operand, f"is a list of {shape[0]:,} numbers; no tensor has that many axes")


# The walk


def first_sentence(error: Exception) -> str:
    """What onnx says is wrong, without its trail of contexts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("==>")]
    return " ".join(lines)[:300] if lines else type(error).__name__


def _type_of(kind: int, shape: tuple[int, ...]) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(kind, [None if axis < 0 else axis for axis in shape])


class _Walk:
    """Types and small constants so far, one node after the other."""

    def __init__(self, model: onnx.ModelProto, constants: Mapping[str, np.ndarray], file: str) -> None:
        self._file = file
        self._opsets = list(model.opset_import)
        self._opset = max((each.version for each in self._opsets if each.domain in ("", "ai.onnx")), default=1)
        self._ir_version = model.ir_version
        self._types = {value.name: value.type for value in model.graph.input}
        self._tensors: dict[str, Tensor] = {}
        self._protos: dict[str, onnx.TensorProto] = {}
        for name, array in constants.items():
            self._know(name, array)
        self._schemas: dict[str, Any] = {}
        self._constant = set(constants)
        self._made = {*constants, *self._types}

    def _know(self, name: str, array: np.ndarray) -> None:
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        self._types[name] = onnx.helper.make_tensor_type_proto(elem_type, array.shape)
        if array.size <= SMALL:
            self._tensors[name] = Tensor(name, array.shape, array.dtype, array)

    def made(self, name: str) -> bool:
        """Whether it is an input, a constant, or written by a node before."""
        return name in self._made

    def pass_on_constant(self, node: Node) -> bool:
        """Whether the node reads constants only; its outputs are constants then, too."""
        self._made.update(node.outputs)
        constant = all(name in self._constant or not name for name in node.inputs)
        if constant:
            self._constant.update(node.outputs)
        return constant

    def shape(self, name: str) -> Shape:
        """Of a tensor seen so far, an open axis as -1; None where not even the number of axes is known."""
        found = self._types.get(name)
        if not name or found is None or not found.tensor_type.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in found.tensor_type.shape.dim)

    def step(self, proto: onnx.NodeProto, node: Node) -> Iterator[str]:
        """The outputs of the next node that have a type now."""
        made = self._folded(node)
        if made is not None:
            self._know(made.name, made.values)
            yield made.name
            return
        for name, kind in self._inferred(proto, node).items():
            self._types[name] = kind
            yield name

    def _folded(self, node: Node) -> Tensor | None:
        """What shape arithmetic says, without Q/DQ, whose results no shape is made of."""
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return None
        if node.op == "Shape":
            shape = self.shape(node.inputs[0]) if node.inputs else None
            known = {} if shape is None else {node.inputs[0]: Tensor(node.inputs[0], shape, np.dtype(np.float32))}
            return evaluate(node, known, most=SMALL) if known else None
        return evaluate(node, self._tensors, most=SMALL)

    def _inferred(self, proto: onnx.NodeProto, node: Node) -> dict[str, onnx.TypeProto]:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):  # passes/fold.py has the better words for wrong types
            shape = self.shape(node.inputs[0]) if node.inputs else None
            kind = onnx.TensorProto.FLOAT if node.op == "DequantizeLinear" else onnx.TensorProto.UINT8
            if len(node.inputs) > 2 and node.inputs[2] in self._types and node.op == "QuantizeLinear":
                kind = self._types[node.inputs[2]].tensor_type.elem_type
            return {} if shape is None else {node.outputs[0]: _type_of(kind, shape)}
        if node.op not in self._schemas:
            known = onnx.defs.has(node.op, self._opset, "")
            self._schemas[node.op] = onnx.defs.get_schema(node.op, self._opset, "") if known else None
        schema = self._schemas[node.op]
        read = {name: self._types[name] for name in node.inputs if name in self._types}
        if schema is None or any(name and name not in read for name in node.inputs):
            return {}
        data = {name: self._data(name) for name in read if name in self._tensors}
        try:
            if not all(proto.input):
                return self._inferred_as_a_model(proto, read, data)
            found = shape_inference.infer_node_outputs(
                schema, proto, read, data, opset_imports=self._opsets, ir_version=self._ir_version
            )
        except (shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            raise BridgeError(
                where=f"{self._file}, {node}",
                problem=f"is not a consistent ONNX graph: {first_sentence(error)}",
                remedy="The tool that wrote it left it broken; export again, or ask onnx.checker for the whole story.",
            ) from error
        return dict(found)

    def _inferred_as_a_model(
        self, proto: onnx.NodeProto, read: dict[str, onnx.TypeProto], data: dict[str, onnx.TensorProto]
    ) -> dict[str, onnx.TypeProto]:
        """As `infer_node_outputs`, which raises KeyError '' for an operand left out before others (onnx 1.16 to 1.18)."""
        graph = onnx.GraphProto(
            name="one node",
            node=[proto],
            input=[onnx.ValueInfoProto(name=name, type=read[name]) for name in read if name not in data],
            initializer=data.values(),
            output=[onnx.ValueInfoProto(name=name) for name in proto.output if name],
        )
        model = onnx.ModelProto(ir_version=self._ir_version, opset_import=self._opsets, graph=graph)
        made = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
        return {value.name: value.type for value in (*made.output, *made.value_info) if value.HasField("type")}

    def _data(self, name: str) -> onnx.TensorProto:
        if name not in self._protos:
            self._protos[name] = onnx.numpy_helper.from_array(self._tensors[name].values, name)
        return self._protos[name]
