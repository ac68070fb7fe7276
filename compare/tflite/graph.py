"""A .tflite as the exact bridge's `Graph`: data, parameters and options, so that it can be examined, changed, rewritten."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, QParams, Tensor
from bridge.exact.schema import ENUMS, OPERATORS, Options
from compare.tflite import file as tflite_file


@dataclass(frozen=True, eq=False)
class OpenedTflite:
    """The main subgraph with everything the file says of it.

    Operators that bridge/exact/schema.py does not know are there by name, without their options.
    """

    graph: Graph
    versions: Mapping[str, int]
    """Operator version by operator name; the highest where a file has several."""
    dynamic: tuple[str, ...]
    """Tensors whose shape signature leaves a dimension open."""
    unreadable: tuple[str, ...]
    """Tensors whose quantization is not valid (scale zero, not finite, ...), with the reason; read as unquantized."""


_DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.FLOAT64: np.float64,
    tflite.TensorType.INT8: np.int8,
    tflite.TensorType.UINT8: np.uint8,
    tflite.TensorType.INT16: np.int16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
    tflite.TensorType.BOOL: np.bool_,
}
_ENUM_NAMES = {
    "padding": {value: name for name, value in ENUMS.items() if name in ("SAME", "VALID")},
    "fused_activation": {value: name for name, value in ENUMS.items() if name.startswith(("NONE", "RELU"))},
    "mode": {value: name for name, value in ENUMS.items() if name in ("REFLECT", "SYMMETRIC")},
}


def open_tflite(content: bytes, where: str = ".tflite") -> OpenedTflite:
    """Parse the flatbuffer; raises `BridgeError` naming `where` when it is not a readable .tflite."""
    file = tflite_file.read(content, where)
    try:
        return _opened(content, file)
    except (struct.error, IndexError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise BridgeError(
            where=where,
            problem=f"the flatbuffer is damaged ({error})",
            remedy="Convert the model again, and check that the file was copied whole.",
        ) from error


def _opened(content: bytes, file: tflite_file.TfliteFile) -> OpenedTflite:
    model = tflite.Model.GetRootAsModel(content, 0)
    main = model.Subgraphs(0)
    for index in range(1, model.SubgraphsLength()):  # read by a few who look beyond the main one
        other = model.Subgraphs(index)
        for tensor in range(other.TensorsLength()):
            other.Tensors(tensor).ShapeLength()
    names: list[str] = []
    for index, described in enumerate(file.tensors):
        names.append(
            described.name
            if described.name and described.name not in names
            else f"{described.name or 'tensor'}#{index}"
        )
    tensors, unreadable, dynamic = {}, [], []
    for index, name in enumerate(names):
        source = main.Tensors(index)
        qparams, problem = _qparams(source, file.tensors[index].shape)
        if problem:
            unreadable.append(f"{name}: {problem}")
        tensors[name] = _tensor(model, source, name, file.tensors[index].shape, qparams)
        if source.ShapeSignatureLength() and (np.asarray(source.ShapeSignatureAsNumpy()) < 0).any():
            dynamic.append(name)
    nodes, versions = [], dict[str, int]()
    for index, info in enumerate(file.operators):
        operator = main.Operators(index)
        versions[info.name] = max(versions.get(info.name, 0), model.OperatorCodes(operator.OpcodeIndex()).Version())
        nodes.append(
            Node(
                info.name,
                f"{info.name}_{index}",
                tuple(names[i] if i >= 0 else "" for i in info.inputs),
                tuple(names[i] for i in info.outputs),
                _options(operator, info.name),
            )
        )
    graph = Graph(tuple(nodes), tensors, tuple(names[i] for i in file.inputs), tuple(names[i] for i in file.outputs))
    _refuse_unfit(graph)
    return OpenedTflite(graph, versions, tuple(dynamic), tuple(unreadable))


_OPERANDS = {
    "CONV_2D": (2, 3), "DEPTHWISE_CONV_2D": (2, 3), "FULLY_CONNECTED": (2, 3), "TRANSPOSE_CONV": (3, 4),
    "BATCH_MATMUL": (2, 2), "ADD": (2, 2), "SUB": (2, 2), "MUL": (2, 2), "DIV": (2, 2), "MINIMUM": (2, 2),
    "MAXIMUM": (2, 2), "PRELU": (2, 2), "RESHAPE": (1, 2), "TRANSPOSE": (2, 2), "PAD": (2, 2), "PADV2": (3, 3),
    "GATHER": (2, 2), "MEAN": (2, 2), "SPLIT": (2, 2), "SPLIT_V": (3, 3), "SLICE": (3, 3), "STRIDED_SLICE": (4, 4),
    "QUANTIZE": (1, 1), "DEQUANTIZE": (1, 1), "MAX_POOL_2D": (1, 1), "AVERAGE_POOL_2D": (1, 1), "SOFTMAX": (1, 1),
    "LOGISTIC": (1, 1), "TANH": (1, 1), "RELU": (1, 1), "RELU6": (1, 1), "RELU_N1_TO_1": (1, 1), "LEAKY_RELU": (1, 1),
    "HARD_SWISH": (1, 1), "RESIZE_BILINEAR": (2, 2), "RESIZE_NEAREST_NEIGHBOR": (2, 2), "MIRROR_PAD": (2, 2),
}  # fmt: skip
"""How many inputs an operator has at least and at most (the checks in its kernel's Prepare)."""


def _refuse_unfit(graph: Graph) -> None:
    """Raise `ValueError` where no runtime could run the operators: operands missing, a tensor written twice or too late.

    What looks at a file afterwards may rely on this.
    """
    written = set(graph.inputs)
    later = {name for node in graph.nodes for name in node.outputs}.difference(graph.inputs)
    for node in graph.nodes:
        early = later.intersection(node.inputs)
        if early:
            raise ValueError(f"{node.op} reads tensor '{min(early)}' before it is written")
        later.difference_update(node.outputs)
        least, most = _OPERANDS.get(node.op, (0, len(node.inputs)))
        if not least <= len(node.inputs) <= most or not all(node.inputs[: min(least, 2)]):
            raise ValueError(f"{node.op} with {len(node.inputs)} inputs")
        if least and len(node.outputs) < 1:
            raise ValueError(f"{node.op} without an output")
        _refuse_other_multiplier(node, graph)
        _refuse_other_type(node, graph)
        for name in node.outputs:
            if name in written or graph.tensors[name].is_constant:
                raise ValueError(f"tensor '{name}' is written twice")
            written.add(name)


_MOVED = {
    "RESHAPE": slice(1), "SQUEEZE": slice(1), "EXPAND_DIMS": slice(1), "TRANSPOSE": slice(1), "PAD": slice(1),
    "PADV2": slice(0, None, 2), "MIRROR_PAD": slice(1), "SLICE": slice(1), "STRIDED_SLICE": slice(1), "GATHER": slice(1),
    "SPLIT": slice(1, 2), "SPLIT_V": slice(1), "CONCATENATION": slice(None), "PACK": slice(None), "UNPACK": slice(1),
    "TILE": slice(1), "BROADCAST_TO": slice(1), "REVERSE_V2": slice(1), "DEPTH_TO_SPACE": slice(1),
    "SPACE_TO_DEPTH": slice(1),
}  # fmt: skip
"""Operators that only move values: which of their inputs are of their outputs' type (the kernels' Prepare)."""


def _refuse_other_type(node: Node, graph: Graph) -> None:
    """Raise `ValueError` where an operator that moves values would read them as another type.

    The built-in RESHAPE copies as many bytes as its input has, whatever room the output's type has (reshape.cc, Eval):
    LiteRT's own process ends, or goes on with other numbers each time.
    """
    read = {str(graph.tensors[name].dtype) for name in node.inputs[_MOVED.get(node.op, slice(0))] if name}
    written = {str(graph.tensors[name].dtype) for name in node.outputs}
    if read and read != written:
        raise ValueError(f"{node.op} reads {' and '.join(sorted(read))} and writes {' and '.join(sorted(written))}")


def _refuse_other_multiplier(node: Node, graph: Graph) -> None:
    """Two kernels read two networks where the option of a depthwise convolution is not what its shapes say.

    The built-in kernels ignore `depth_multiplier` (schema.fbs: "redundant"), XNNPACK divides the filters by it
    (xnnpack_delegate.cc, VisitDepthwiseConv2DNode) and leaves the operator alone where it is 0.
    """
    if node.op != "DEPTHWISE_CONV_2D":
        return
    multiplier = int(node.attrs.get("depth_multiplier", 0))
    read, filters = graph.tensors[node.inputs[0]].shape[-1:], graph.tensors[node.inputs[1]].shape[-1:]
    if multiplier > 0 and read and filters and read[0] * multiplier != filters[0]:
        raise ValueError(
            f"{node.op} with {filters[0]} filters for {read[0]} channels and depth multiplier {multiplier}"
        )


def _qparams(source: tflite.Tensor, shape: tuple[int, ...]) -> tuple[QParams | None, str | None]:
    quantization = source.Quantization()
    if quantization is None or not quantization.ScaleLength():
        return None, None
    scale = np.array(quantization.ScaleAsNumpy(), np.float32)
    zero_point = np.zeros(scale.size, np.int32)
    if quantization.ZeroPointLength():
        zero_point = np.array(quantization.ZeroPointAsNumpy(), np.int32)
    axis = None if scale.size == 1 else quantization.QuantizedDimension()
    if axis is None:
        scale, zero_point = scale.reshape(()), zero_point[:1].reshape(())
    if axis is not None and (axis >= len(shape) or shape[axis] != scale.size or zero_point.size != scale.size):
        return None, f"{scale.size} scales on axis {axis} of shape {shape}"
    try:
        return QParams(scale, zero_point, axis), None
    except AssertionError as error:
        return None, str(error)


def _tensor(
    model: tflite.Model, source: tflite.Tensor, name: str, shape: tuple[int, ...], qparams: QParams | None
) -> Tensor:
    dtype = np.dtype(_DTYPES.get(source.Type(), np.void))
    raw = model.Buffers(source.Buffer()).DataAsNumpy()
    data = None
    if isinstance(raw, np.ndarray) and raw.size and dtype.kind != "V":
        data = np.frombuffer(raw.tobytes(), dtype).reshape(shape)
    return Tensor(name, shape, dtype, data, qparams)


def _options(operator: tflite.Operator, name: str) -> dict[str, Any]:
    known = OPERATORS.get(name)
    table = operator.BuiltinOptions()
    if known is None or known.options is None or table is None:
        return {}
    return _fields(known.options, table)


_READERS = {"Int8": "Int8Flags", "Int32": "Int32Flags", "Bool": "BoolFlags", "Float32": "Float32Flags"}


def _fields(options: Options, table: Any) -> dict[str, Any]:
    from flatbuffers import number_types

    found = {}
    for field, where in options.fields.items():
        offset = table.Offset(4 + 2 * where.slot)
        value = table.Get(getattr(number_types, _READERS[where.type]), offset + table.Pos) if offset else where.default
        found[field] = _ENUM_NAMES[field].get(int(value), "NONE") if field in _ENUM_NAMES else value
    return found
