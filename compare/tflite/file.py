"""A .tflite file as plain records: operators, tensors, inputs and outputs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import tflite
from flatbuffers.number_types import Int32Flags

from bridge.errors import BridgeError
from compare.tflite.flatbuffer import verify

_DTYPES = {
    value: name.lower()
    for name, value in vars(tflite.TensorType).items()
    if not name.startswith("_") and isinstance(value, int)
}
_OPERATORS = {
    value: name
    for name, value in vars(tflite.BuiltinOperator).items()
    if not name.startswith("_") and isinstance(value, int)
}

_BUILTIN_CODE_FIELD = 10
"""Where the vtable of OperatorCode has `builtin_code`: its fourth field (schema.fbs)."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor; `scale` and `zero_point` are empty when it carries no quantization."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    constant: bool

    @property
    def floating(self) -> bool:
        return self.dtype.startswith("float")


@dataclass(frozen=True)
class OperatorInfo:
    """One operator in execution order; operands are indices into the tensors, -1 for one left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TfliteFile:
    """The main subgraph of a .tflite."""

    operators: tuple[OperatorInfo, ...]
    tensors: tuple[TensorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def is_integer(self, operator: OperatorInfo) -> bool:
        """Whether no operand of the operator is floating point."""
        return not any(self.tensors[i].floating for i in (*operator.inputs, *operator.outputs) if i >= 0)


def read(content: bytes, where: str) -> TfliteFile:
    """Parse the flatbuffer; raises `BridgeError` naming `where` when it is not a readable .tflite."""
    if content[4:8] != b"TFL3":
        raise BridgeError(
            where=where,
            problem=f"is not a .tflite file (identifier {content[4:8]!r} instead of b'TFL3')",
            remedy="Convert the model again, and check that the file was copied whole.",
        )
    try:
        return _parse(content)
    except (struct.error, IndexError, TypeError, UnicodeDecodeError, AttributeError, KeyError) as error:
        raise BridgeError(
            where=where,
            problem=f"the flatbuffer is damaged ({error})",
            remedy="Convert the model again, and check that the file was copied whole.",
        ) from error


def _parse(content: bytes) -> TfliteFile:
    verify(content)
    model = tflite.Model.GetRootAsModel(content, 0)
    if model.SubgraphsLength() == 0:
        raise IndexError("it has no subgraph")
    graph = model.Subgraphs(0)
    codes = [_operator_name(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    file = TfliteFile(
        operators=tuple(
            OperatorInfo(
                codes[o.OpcodeIndex()],
                tuple(o.Inputs(i) for i in range(o.InputsLength())),
                tuple(o.Outputs(i) for i in range(o.OutputsLength())),
            )
            for o in operators
        ),
        tensors=tuple(_tensor(model, graph.Tensors(i)) for i in range(graph.TensorsLength())),
        inputs=tuple(graph.Inputs(i) for i in range(graph.InputsLength())),
        outputs=tuple(graph.Outputs(i) for i in range(graph.OutputsLength())),
    )
    _check_references(file)
    _check_operands(file)
    return file


_OPERANDS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV", "PRELU"), 2),
    **dict.fromkeys(("BATCH_MATMUL", "MAXIMUM", "MINIMUM", "MEAN", "PAD", "TRANSPOSE", "GATHER", "SPLIT"), 2),
    **dict.fromkeys(("TRANSPOSE_CONV", "SLICE", "PADV2", "SPLIT_V"), 3),
}
"""Inputs that an operator cannot do without; of all others, one."""
_AXES = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "TRANSPOSE_CONV": 4}
"""Axes of the weights, the second input."""
_SOURCES = ("CALL_ONCE", "VAR_HANDLE")
"""Operators that may have no input, or no output."""


def _check_operands(file: TfliteFile) -> None:
    """Raise `IndexError` for an operator without the operands that every one of its kind has."""
    for place, operator in enumerate(file.operators):
        if operator.name in _SOURCES or operator.name.startswith("CUSTOM:"):
            continue
        needed = _OPERANDS.get(operator.name, 1)
        if len(operator.inputs) < needed or -1 in operator.inputs[:needed] or not operator.outputs:
            raise IndexError(f"operator {place}, {operator.name}, has not its {needed} inputs and an output")
        axes = _AXES.get(operator.name)
        if axes is not None and len(file.tensors[operator.inputs[1]].shape) != axes:
            raise IndexError(f"operator {place}, {operator.name}, has weights that have not {axes} axes")


def _check_references(file: TfliteFile) -> None:
    """Every operand is a tensor of the file; only an operator's input may be left out.

    Raises `IndexError`. Python would take a negative index from the end, and so read a damaged file as another model.
    """
    present = range(len(file.tensors))
    written = [index for operator in file.operators for index in operator.outputs]
    read = [index for operator in file.operators for index in operator.inputs if index != -1]
    for index in (*file.inputs, *file.outputs, *read, *written):
        if index not in present:
            raise IndexError(f"tensor {index} of {len(file.tensors)}")


def _operator_name(code: tflite.OperatorCode) -> str:
    """The larger of the old 8-bit code and the 32-bit one, as the runtime takes it (schema_utils.cc, GetBuiltinCode).

    The generated accessor is not enough: it ignores a 32-bit code below 127 that has no 8-bit twin.
    """
    table = code._tab  # noqa: SLF001 - the only way to the raw field
    offset = table.Offset(_BUILTIN_CODE_FIELD)
    value = max(code.DeprecatedBuiltinCode(), table.Get(Int32Flags, offset + table.Pos) if offset else 0)
    if value == tflite.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{(code.CustomCode() or b'?').decode()}"
    name: str = _OPERATORS.get(value, f"OPERATOR_{value}")
    return name


def _tensor(model: tflite.Model, tensor: tflite.Tensor) -> TensorInfo:
    quantization = tensor.Quantization()
    scales = quantization.ScaleLength() if quantization is not None else 0
    if tensor.Buffer() >= model.BuffersLength():
        raise IndexError(f"buffer {tensor.Buffer()} of {model.BuffersLength()}")
    return TensorInfo(
        name=(tensor.Name() or b"").decode(),
        shape=tuple(tensor.Shape(i) for i in range(tensor.ShapeLength())),
        dtype=_DTYPES[tensor.Type()],
        scale=tuple(float(np.float32(quantization.Scale(i))) for i in range(scales)),
        zero_point=tuple(quantization.ZeroPoint(i) for i in range(quantization.ZeroPointLength())) if scales else (),
        constant=model.Buffers(tensor.Buffer()).DataLength() > 0,
    )
