"""A .tflite with QUANTIZE operators put in or taken out; whatever else the file holds stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bridge.exact.graph import QParams
from compare.tflite.graph import open_tflite
from compare.tflite.unpacked import packed, unpacked

_QUANTIZE = 114
_QUANTIZE_VERSION = 2
"""int8 to int8: lite/tools/versioning/op_version.cc."""


def edited(content: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """The file after `change` (model, main subgraph) on the schema's own objects."""
    model = unpacked(content)
    change(model, model.subgraphs[0])
    return packed(model, len(content) + 4096)


def rescaled_after(content: bytes, written: Mapping[str, QParams]) -> bytes:
    """These tensors' operators write with other parameters, and a QUANTIZE brings the result to the tensor's own."""
    places = {name: place for place, name in enumerate(open_tflite(content).graph.tensors)}

    def change(model: Any, main: Any) -> None:
        code = _quantize_code(model)
        for name, qparams in written.items():
            index = places[name]
            (at,) = [at for at, operator in enumerate(main.operators) if index in operator.outputs]
            other = _copy_of(main, index, qparams)
            main.operators[at].outputs = [other if each == index else each for each in main.operators[at].outputs]
            main.operators.insert(at + 1, _quantize(code, other, index))

    return edited(content, change)


def rescaled_before(content: bytes, read: Mapping[tuple[int, int], QParams]) -> bytes:
    """The operators at (position, operand) read their operand with other parameters, through a QUANTIZE."""

    def change(model: Any, main: Any) -> None:
        code = _quantize_code(model)
        added: dict[int, list[Any]] = {}
        for (at, operand), qparams in read.items():
            operator = main.operators[at]
            index = int(operator.inputs[operand])
            other = _copy_of(main, index, qparams)
            operator.inputs = [other if place == operand else int(each) for place, each in enumerate(operator.inputs)]
            added.setdefault(at, []).append(_quantize(code, index, other))
        main.operators = [each for at, operator in enumerate(main.operators) for each in (*added.get(at, ()), operator)]

    return edited(content, change)


def _quantize_code(model: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == _QUANTIZE and code.version >= _QUANTIZE_VERSION:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _QUANTIZE
    code.version = _QUANTIZE_VERSION
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _quantize(code: int, source: int, target: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = [source], [target]
    operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    operator.builtinOptions = schema.QuantizeOptionsT()
    return operator


def _copy_of(main: Any, index: int, qparams: QParams) -> int:
    """A new tensor, shaped as this one; without data, also where that one is a constant."""
    from ai_edge_litert import schema_py_generated as schema

    source = main.tensors[index]
    tensor = schema.TensorT()
    tensor.name = _name(source.name) + f"/rescaled_{len(main.tensors)}"
    tensor.shape, tensor.shapeSignature, tensor.type = source.shape, source.shapeSignature, source.type
    tensor.buffer, tensor.hasRank = 0, source.hasRank
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = qparams.scale.reshape(-1)
    tensor.quantization.zeroPoint = qparams.zero_point.reshape(-1).astype(np.int64)
    main.tensors.append(tensor)
    return len(main.tensors) - 1


def _name(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "tensor")


def without_operators(content: bytes, borders: Mapping[int, tuple[str, str]]) -> bytes:
    """Without the operators at these positions; where the model's input or output was the first name, it is the second.

    The signature goes along.
    """
    places = {name: place for place, name in enumerate(open_tflite(content).graph.tensors)}
    instead = {places[before]: places[after] for before, after in borders.values()}

    def change(model: Any, main: Any) -> None:
        main.operators = [operator for at, operator in enumerate(main.operators) if at not in borders]
        main.inputs = [instead.get(int(index), int(index)) for index in main.inputs]
        main.outputs = [instead.get(int(index), int(index)) for index in main.outputs]
        for signature in model.signatureDefs or ():
            for entry in (*(signature.inputs or ()), *(signature.outputs or ())):
                if not signature.subgraphIndex:
                    entry.tensorIndex = instead.get(entry.tensorIndex, entry.tensorIndex)

    return edited(content, change)
