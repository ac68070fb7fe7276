"""Element types that the installed onnx has no name for: refused, before they pass for the one that it lends them.

From onnx 1.19 on ml_dtypes names them all. Before, int4 passes for int8 or float32 and bfloat16 for float32, by version
and by function, so that 4-bit codes would be read as 8-bit ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from bridge.errors import BridgeError

_TYPE_ATTRIBUTES = {"to", "output_dtype", "precision"}
"""Attributes that hold an element type: of Cast, QuantizeLinear and DequantizeLinear."""


def _unnamed() -> frozenset[int]:
    """Those beyond numpy's own (`TensorProto.DataType`: 16 and up) that onnx calls by the name of one of numpy's."""
    numbers = [number for number in onnx.TensorProto.DataType.values() if number >= onnx.TensorProto.BFLOAT16]
    return frozenset(
        number for number in numbers if np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).isbuiltin == 1
    )


UNNAMED = _unnamed()


def refuse_unnamed_types(model: onnx.ModelProto, file: str) -> None:
    """Raise `BridgeError` for the first tensor or attribute whose type the installed onnx calls by another's name."""
    for where, number in _types(model.graph) if UNNAMED else ():
        if number in UNNAMED:
            name = onnx.TensorProto.DataType.Name(number).lower()
            raise BridgeError(
                where=f"{file}, {where}",
                problem=f"is {name}, which onnx {onnx.__version__} has no name for; the kernels take int8 and uint8",
                remedy="Train with 8-bit fake-quant; if this tensor is not among the quantized ones, "
                "pip install 'onnx>=1.19'.",
            )


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for tensor in graph.initializer:
        yield f"initializer '{tensor.name}'", tensor.data_type
    for sparse in graph.sparse_initializer:
        yield f"initializer '{sparse.values.name}'", sparse.values.data_type
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield f"tensor '{value.name}'", value.type.tensor_type.elem_type
    for node in graph.node:
        where = f"{node.op_type} '{node.name}'"
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES:
                yield f"{where}, {attribute.name}", attribute.i
            yield where, attribute.t.data_type
            yield where, attribute.sparse_tensor.values.data_type
