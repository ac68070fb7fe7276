"""What onnx2tf 1.x does wrong, recognised in the ONNX file and the .tflite made from it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import tflite

from bridge.errors import BridgeError
from bridge.exact.passes.fold import fold
from bridge.exact.reader import from_model

_WITH_BIAS = {"Conv": "CONV_2D", "Gemm": "FULLY_CONNECTED"}


def clipped_pairs(onnx_file: Path | BinaryIO) -> int:
    """How many QuantizeLinear nodes reach their DequantizeLinear through a Clip, as `reduce_range` models export.

    onnx2tf 1.29.24 drops a pair only when nothing but a Cast stands between. Otherwise its QuantizeLinear already
    returns real values (ops/QuantizeLinear.py ends with a multiplication by the scale), the Clip then limits real
    values, and DequantizeLinear subtracts the zero point and multiplies by the scale a second time.
    """
    graph = onnx.load(onnx_file).graph
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return sum(
        any(
            then.op_type == "Clip"
            and any(last.op_type == "DequantizeLinear" for last in consumers.get(then.output[0], []))
            for then in consumers.get(node.output[0], [])
        )
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    )


def reordered_biases(onnx_file: Path | BinaryIO, content: bytes) -> list[str]:
    """Names of the ONNX operators whose bias stands in the .tflite in another order: 0, 2, 3, ..., n-1, 1.

    onnx2tf 1.29.24 does this to every int32 bias behind a DequantizeLinear, as in a converted PyTorch int8 model: it
    takes the integer vector for a shape and moves the second entry, the channel of an NCHW shape, to the end.
    Operators are matched by their order among their kind; a bias that is in order, or fits in no way, is not named.
    """
    written = _tflite_biases(content)
    return [
        name
        for kind, trained in _onnx_biases(onnx.load(onnx_file)).items()
        for (name, bias), found in zip(trained, written[_WITH_BIAS[kind]], strict=False)
        if found is not None and found.shape == bias.shape and _is_reordered(bias, found)
    ]


def _is_reordered(trained: np.ndarray, found: np.ndarray) -> bool:
    """Half a percent of the largest entry is more than an int32 bias loses by being quantized twice."""
    tolerance = 0.005 * float(np.abs(trained).max(initial=0.0))
    as_a_shape = np.concatenate([trained[:1], trained[2:], trained[1:2]])
    in_order = bool(np.abs(found - trained).max(initial=0.0) <= tolerance)
    return not in_order and bool(np.abs(found - as_a_shape).max(initial=0.0) <= tolerance)


def _onnx_biases(model: onnx.ModelProto) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Real-valued biases by operator kind, in graph order, whatever arithmetic the file leaves to compute them.

    Empty for a model that the exact bridge's reader refuses.
    """
    found: dict[str, list[tuple[str, np.ndarray]]] = {kind: [] for kind in _WITH_BIAS}
    try:
        graph = fold(from_model(model))
    except BridgeError:
        return found
    for node in graph.nodes:
        bias = graph.operand(node, 2) if node.op in _WITH_BIAS else None
        if bias is not None and bias.is_constant:
            found[node.op].append((node.name, bias.real.astype(np.float64)))
    return found


def _tflite_biases(content: bytes) -> dict[str, list[np.ndarray | None]]:
    """Real-valued biases by operator name, in execution order; None where there is none or it is computed."""
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    codes = {tflite.BuiltinOperator.CONV_2D: "CONV_2D", tflite.BuiltinOperator.FULLY_CONNECTED: "FULLY_CONNECTED"}
    found: dict[str, list[np.ndarray | None]] = {name: [] for name in codes.values()}
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        name = codes.get(model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode())
        if name is not None:
            present = operator.InputsLength() > 2 and operator.Inputs(2) >= 0
            found[name].append(_bias(model, graph.Tensors(operator.Inputs(2))) if present else None)
    return found


def _bias(model: tflite.Model, tensor: tflite.Tensor) -> np.ndarray | None:
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    if not isinstance(data, np.ndarray):
        return None
    if tensor.Type() == tflite.TensorType.FLOAT32:
        return data.view(np.float32).astype(np.float64)
    if tensor.Type() != tflite.TensorType.INT32 or tensor.Quantization() is None:
        return None
    return data.view(np.int32) * np.asarray(tensor.Quantization().ScaleAsNumpy(), np.float64)
