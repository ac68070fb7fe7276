"""`Graph` to FlatBuffer bytes: the only place that knows how the file format is laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, QParams, Tensor
from bridge.exact.schema import ENUMS, OPERATORS, TENSOR_TYPES

_ALIGNMENT = 16
"""Of a buffer's data in the file: kernels map weights where they lie (schema.fbs, table Buffer, force_align)."""

_SCHEMA_VERSION = 3
_DESCRIPTION = "Written by qat-tflite-bridge"
SIGNATURE = "serving_default"


def write(graph: Graph) -> bytes:
    """The .tflite file of a lowered graph: one subgraph, one signature; the same graph gives the same bytes."""
    codes = sorted({node.op for node in graph.nodes})
    names = _used(graph)
    index = {name: place for place, name in enumerate(names)}
    payload = sum(tensor.data.nbytes for name in names if (tensor := graph.tensors[name]).data is not None)
    builder = flatbuffers.Builder(payload + 512 * (len(names) + len(graph.nodes)) + 4096)

    buffers: list[int] = []
    buffer_of: dict[str, int] = {}
    for name in names:
        data = graph.tensors[name].data
        if data is not None:
            buffer_of[name] = len(buffers) + 1
            buffers.append(_buffer(builder, data))
    empty = _table(builder, 3, {})
    tensors = [_tensor(builder, graph.tensors[name], buffer_of.get(name, 0)) for name in names]
    operators = [_operator(builder, node, codes.index(node.op), index) for node in graph.nodes]
    subgraph = _table(
        builder,
        6,
        {
            0: ("UOffset", _offsets(builder, tensors)),
            1: ("UOffset", _numbers(builder, [index[name] for name in graph.inputs])),
            2: ("UOffset", _numbers(builder, [index[name] for name in graph.outputs])),
            3: ("UOffset", _offsets(builder, operators)),
            4: ("UOffset", builder.CreateString("main")),
        },
    )
    model = _table(
        builder,
        8,
        {
            0: ("Uint32", _SCHEMA_VERSION),
            1: ("UOffset", _offsets(builder, [_operator_code(builder, op) for op in codes])),
            2: ("UOffset", _offsets(builder, [subgraph])),
            3: ("UOffset", builder.CreateString(_DESCRIPTION)),
            4: ("UOffset", _offsets(builder, [empty, *buffers])),
            7: ("UOffset", _offsets(builder, [_signature(builder, graph, index)])),
        },
    )
    builder.Finish(model, file_identifier=b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])  # Output() would hold it twice meanwhile


def _used(graph: Graph) -> list[str]:
    """Every tensor an operator touches: inputs first, then in order of appearance."""
    names = dict.fromkeys(graph.inputs)
    for node in graph.nodes:
        names.update(dict.fromkeys(name for name in (*node.inputs, *node.outputs) if name))
    names.update(dict.fromkeys(graph.outputs))
    return list(names)


Values = Mapping[int, tuple[str, Any]]


def _table(builder: Any, fields: int, values: Values, defaults: Mapping[int, float] | None = None) -> int:
    """A table of `fields` slots; `values` maps a slot to its flatbuffer type and its number or offset."""
    builder.StartObject(fields)
    for slot, (kind, value) in values.items():
        if kind == "UOffset":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            prepend: Callable[..., None] = getattr(builder, f"Prepend{kind}Slot")
            prepend(slot, value, (defaults or {}).get(slot, 0))
    return int(builder.EndObject())


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: Any, numbers: Sequence[int]) -> int:
    return int(builder.CreateNumpyVector(np.array(numbers, np.int32)))


def _buffer(builder: Any, data: np.ndarray) -> int:
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    builder.StartVector(1, raw.size, _ALIGNMENT)
    head = builder.Head() - raw.size
    builder.head = head
    builder.Bytes[head : head + raw.size] = raw.data
    return _table(builder, 3, {0: ("UOffset", builder.EndVector())})


def _tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    values = {
        0: ("UOffset", _numbers(builder, tensor.shape)),
        1: ("Int8", TENSOR_TYPES[tensor.dtype]),
        2: ("Uint32", buffer),
        3: ("UOffset", builder.CreateString(tensor.name)),
        8: ("Bool", True),
    }
    if tensor.qparams is not None:
        values[4] = ("UOffset", _quantization(builder, tensor.qparams))
    return _table(builder, 10, values)


def _quantization(builder: Any, qparams: QParams) -> int:
    scales = builder.CreateNumpyVector(qparams.scale.reshape(-1))
    zero_points = builder.CreateNumpyVector(qparams.zero_point.reshape(-1).astype(np.int64))
    values = {2: ("UOffset", scales), 3: ("UOffset", zero_points)}
    if qparams.axis:
        values[6] = ("Int32", qparams.axis)
    return _table(builder, 7, values)


def _operator(builder: Any, node: Node, code: int, index: Mapping[str, int]) -> int:
    values = {
        0: ("Uint32", code),
        1: ("UOffset", _numbers(builder, [index[name] if name else -1 for name in node.inputs])),
        2: ("UOffset", _numbers(builder, [index[name] for name in node.outputs])),
    }
    if node.op not in OPERATORS:
        raise BridgeError(
            where=str(node),
            problem="is an operator that this writer does not know",
            remedy="Only files of operators that the bridge writes can be rewritten (docs/operators.md).",
        )
    options = OPERATORS[node.op].options
    if options is None:
        if set(node.attrs) - {"fused_activation"}:
            raise AssertionError(f"{node}: {sorted(node.attrs)} have no place in its options")
    else:
        fields, defaults = {}, {}
        for name, value in node.attrs.items():
            field = options.fields[name]
            fields[field.slot] = (field.type, ENUMS[value] if isinstance(value, str) else value)
            defaults[field.slot] = field.default
        slots = 1 + max((field.slot for field in options.fields.values()), default=-1)
        values[3] = ("Uint8", options.number)
        values[4] = ("UOffset", _table(builder, slots, fields, defaults))
    return _table(builder, 14, values)


def _operator_code(builder: Any, op: str) -> int:
    """Both code fields: readers older than 2021 know the first one only (schema.fbs, table OperatorCode)."""
    operator = OPERATORS[op]
    return _table(
        builder,
        4,
        {0: ("Int8", operator.code), 2: ("Int32", operator.version), 3: ("Int32", operator.code)},
        {2: 1},
    )


def _signature(builder: Any, graph: Graph, index: Mapping[str, int]) -> int:
    """Inputs and outputs by name, so that a caller need not know their order."""
    maps = []
    for names in (graph.inputs, graph.outputs):
        entries = [
            _table(builder, 2, {0: ("UOffset", builder.CreateString(name)), 1: ("Uint32", index[name])})
            for name in sorted(dict.fromkeys(names))
        ]
        maps.append(_offsets(builder, entries))
    key = builder.CreateString(SIGNATURE)
    return _table(builder, 5, {0: ("UOffset", maps[0]), 1: ("UOffset", maps[1]), 2: ("UOffset", key)})
