"""The scales that a producer decided, read from its file, and how many of them a .tflite still has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from compare.tflite import file as tflite_file

_SCALE_PLACES = {
    "QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7), "QLinearAdd": (1, 4, 6), "QLinearMul": (1, 4, 6), "QLinearSigmoid": (1, 3),
    "QLinearLeakyRelu": (1, 3), "QLinearSoftmax": (1, 3), "QLinearAveragePool": (1, 3),
    "QLinearGlobalAveragePool": (1, 3), "QLinearWhere": (2, 5, 7), "QLinearReduceMean": (1, 3),
}  # fmt: skip
"""Where each operator has its scales (onnx/docs/Operators.md; onnxruntime/docs/ContribOperators.md)."""
_TO_DIGITS = 1e-6


def of_onnx(model: onnx.ModelProto) -> np.ndarray:
    """Different scales, float32, ascending, of activations and weights; those of int32 biases are no decision."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    return _different(numpy_helper.to_array(constants[name]) for name in _names(model, constants) if name in constants)


def _names(model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type == "QLinearConcat":
            yield node.input[0]
            yield from node.input[3::3]
            continue
        codes = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or codes.data_type != onnx.TensorProto.INT32:
            for place in _SCALE_PLACES.get(node.op_type, ()):
                if place < len(node.input):
                    yield node.input[place]


def of_program(path: Path) -> np.ndarray:
    """Different scales, float32, ascending, of the `quantized_decomposed` operators of a .pt2 file."""
    from bridge.from_torch.files import load

    module = load(path)[0].module()
    found = []
    for node in module.graph.nodes:
        if node.op == "call_function" and "quantized_decomposed" in str(node.target):
            given, codes = node.args[1], _held(module, node.args[0])
            if codes is None or codes.is_floating_point() or codes.dtype.itemsize == 1:  # not an int32 bias
                value = _held(module, given)
                found.append(np.asarray(given if value is None else value, np.float32))
    return _different(found)


def _held(module: Any, given: Any) -> Any:
    """The tensor that a node reads from the module; None where it is none such."""
    if getattr(given, "op", "") != "get_attr":
        return None
    return module.get_submodule(given.target.rpartition(".")[0]).__getattr__(given.target.rpartition(".")[2])


def of_tflite(content: bytes) -> np.ndarray:
    """Different scales, float32, ascending, of all 8-bit tensors."""
    tensors = tflite_file.read(content, "model").tensors
    return _different(np.array(each.scale) for each in tensors if each.dtype in ("int8", "uint8") and each.scale)


def kept(decided: np.ndarray, found: np.ndarray) -> int:
    """How many of the decided scales are among those found, to seven digits."""
    if not found.size:
        return 0
    places = np.searchsorted(found, decided)
    nearest = np.minimum(
        np.abs(found[np.clip(places, 0, found.size - 1)] - decided),
        np.abs(found[np.clip(places - 1, 0, found.size - 1)] - decided),
    )
    return int((nearest <= _TO_DIGITS * decided).sum())


def _different(arrays: Iterable[np.ndarray]) -> np.ndarray:
    values = [np.asarray(array, np.float32).reshape(-1) for array in arrays]
    return np.unique(np.concatenate(values)) if values else np.zeros(0, np.float32)
