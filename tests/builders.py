"""Tensors, one-operator graphs and small QDQ models, in one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.graph import Graph, Limits, Node, Note, QParams, Tensor, constant, per_tensor
from bridge.exact.lowering import lower


def activation(
    name: str,
    shape: Sequence[int],
    scale: float | None = None,
    zero_point: int = 0,
    qmin: int = -128,
    qmax: int = 127,
) -> Tensor:
    """A tensor computed at run time: int8 at this scale, float32 without one."""
    if scale is None:
        return Tensor(name, tuple(shape), np.dtype(np.float32))
    return Tensor(name, tuple(shape), np.dtype(np.int8), None, per_tensor(scale, zero_point, qmin, qmax))


def weight(name: str, codes: Any, scale: float | Sequence[float], zero_point: int = 0, axis: int = 0) -> Tensor:
    """A constant of int8 codes; a list of scales is one for each index along `axis`."""
    data = np.array(codes, np.int8)
    if isinstance(scale, float):
        return constant(name, data, per_tensor(scale, zero_point))
    scales = np.array(scale, np.float32)
    return constant(name, data, QParams(scales, np.full(scales.shape, zero_point, np.int32), axis))


def int32_codes(name: str, codes: Sequence[int], scale: Sequence[float]) -> Tensor:
    """A bias that the model holds as int32 codes already."""
    scales = np.array(scale, np.float32)
    return constant(name, np.array(codes, np.int32), QParams(scales, np.zeros(scales.shape, np.int32), 0))


def float_constant(name: str, values: Any) -> Tensor:
    return constant(name, np.array(values, np.float32))


def integers(name: str, values: Any) -> Tensor:
    """An int64 constant: axes, sizes, indices."""
    return constant(name, np.array(values, np.int64))


def graph_of(nodes: Sequence[Node], tensors: Sequence[Tensor], outputs: Sequence[str]) -> Graph:
    """A graph whose inputs are the tensors that are neither constant nor written by a node."""
    written = {name for node in nodes for name in node.outputs}
    inputs = tuple(tensor.name for tensor in tensors if not tensor.is_constant and tensor.name not in written)
    return Graph(tuple(nodes), {tensor.name: tensor for tensor in tensors}, inputs, tuple(outputs))


def single_node(
    op: str,
    *operands: Tensor | None,
    output: Tensor | Sequence[Tensor],
    within: tuple[float, float] | None = None,
    **attrs: Any,
) -> Graph:
    """A graph of one operator named 'node', limited to what lies `within`; an operand None is left out."""
    outputs = [output] if isinstance(output, Tensor) else list(output)
    inputs = tuple("" if operand is None else operand.name for operand in operands)
    limits = None if within is None else Limits(*within)
    node = Node(op, "node", inputs, tuple(tensor.name for tensor in outputs), attrs, limits)
    present = [operand for operand in operands if operand is not None]
    return graph_of([node], [*present, *outputs], node.outputs)


def lowered(op: str, *operands: Tensor | None, output: Tensor | Sequence[Tensor], **attrs: Any) -> Graph:
    """`single_node` in TFLite's operators."""
    return lower(single_node(op, *operands, output=output, **attrs))


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def notes(graph: Graph, kind: str) -> list[Note]:
    return [note for note in graph.notes if note.kind == kind]


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear and DequantizeLinear on a tensor, with a Clip between them where `clip` is set."""

    scale: float
    zero_point: int = 0
    dtype: Any = np.int8
    clip: tuple[int, int] | None = None


Step = tuple[str, str, str] | tuple[str, str, str, Mapping[str, Any]]


def qdq_model(
    *steps: Step,
    inputs: Mapping[str, Sequence[int | str]],
    pairs: Mapping[str, Pair],
    outputs: str,
    constants: Sequence[Tensor] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """A whole QDQ model; a step is (operator, input names, output names, attributes), names separated by blanks.

    Every tensor in `pairs` gets a Q/DQ pair; a constant of codes gets its DequantizeLinear. `_` is a missing operand.
    """
    made: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    reads: dict[str, str] = {}

    def initializer(name: str, array: Any) -> str:
        initializers.append(numpy_helper.from_array(np.array(array), name))
        return name

    def dequantize(codes: str, name: str, scale: Any, zero: Any, axis: int | None) -> None:
        parameters = [initializer(f"{name}_scale", scale), initializer(f"{name}_zero", zero)]
        attrs = {} if axis is None else {"axis": axis}
        made.append(helper.make_node("DequantizeLinear", [codes, *parameters], [name], f"{name}_dq", **attrs))

    def pair(source: str, name: str, value: Pair) -> None:
        scale, zero = np.float32(value.scale).reshape(()), np.array(value.zero_point, value.dtype)
        parameters = [initializer(f"{name}_qscale", scale), initializer(f"{name}_qzero", zero)]
        codes = f"{name}_codes"
        made.append(helper.make_node("QuantizeLinear", [source, *parameters], [codes], f"{name}_q"))
        if value.clip is not None:
            limits = [initializer(f"{name}_{i}", np.array(n, value.dtype)) for i, n in enumerate(value.clip)]
            made.append(helper.make_node("Clip", [codes, *limits], [f"{codes}_clipped"], f"{name}_clip"))
            codes = f"{codes}_clipped"
        dequantize(codes, name, scale, zero, None)

    for tensor in constants:
        if tensor.qparams is None:
            initializer(tensor.name, tensor.values)
        else:
            zero = tensor.q.zero_point.astype(tensor.dtype)
            codes = initializer(f"{tensor.name}_codes", tensor.values)
            dequantize(codes, tensor.name, tensor.q.scale, zero, tensor.q.axis)
    for name in inputs:
        if name in pairs:
            reads[name] = f"{name}_quantized"
            pair(name, reads[name], pairs[name])
    for op, takes, gives, *rest in steps:
        named = ["" if name == "_" else reads.get(name, name) for name in takes.split()]
        targets = [f"{name}_float" if name in pairs else name for name in gives.split()]
        made.append(helper.make_node(op, named, targets, gives.split()[0], **(rest[0] if rest else {})))
        for name in gives.split():
            if name in pairs:
                pair(f"{name}_float", name, pairs[name])
    graph = helper.make_graph(
        made,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)
