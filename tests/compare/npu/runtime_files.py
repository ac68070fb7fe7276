"""Makers of small .tflite files that an interpreter refuses, and of their repaired twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import tflite

from bridge.exact.graph import Node
from compare.mismatches.parts.files import activation, codes, tflite_of
from tests.compare.npu import vela_files as files


def conv_with(**changed: Any) -> bytes:
    """A convolution with some of its tensors replaced: `x`, `w`, `b`, `y`."""
    tensors = {"x": files.int8("x", 1, 8, 8, 4), "w": files.ones("w", 4, 3, 3, 4), "b": files.bias(4),
               "y": files.int8("y", 1, 8, 8, 4), **changed}  # fmt: skip
    return files.one("CONV_2D", [tensors["x"], tensors["w"], tensors["b"]], tensors["y"],
                     padding="SAME", stride_w=1, stride_h=1)  # fmt: skip


def uint8_conv() -> bytes:
    return conv_with(
        x=activation("x", (1, 8, 8, 4), 0.5, 128, np.uint8),
        w=codes("w", np.ones((4, 3, 3, 4)), 0.25, 128, dtype=np.uint8),
        y=activation("y", (1, 8, 8, 4), 0.5, 128, np.uint8),
    )


def int16_conv() -> bytes:
    """16-bit activations on 8-bit weights, which the bridge's writer does not write."""

    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.name in (b"x", b"y"):
                tensor.type = tflite.TensorType.INT16
            if tensor.name == b"b":
                tensor.type = tflite.TensorType.INT64
                model.buffers[tensor.buffer].data = np.zeros(4 * 8, np.uint8)

    return files.edited(files.conv(), change)


def wide_conv() -> bytes:
    """Input scale times weight scale is 2.5 million times the output's."""
    return conv_with(
        x=files.int8("x", 1, 8, 8, 4, scale=1e5),
        b=codes("b", np.zeros(4), 0.25e5, dtype=np.int32),
        y=files.int8("y", 1, 8, 8, 4, scale=0.01),
    )


def unscaled_conv() -> bytes:
    """The output's scale is zero."""

    def change(tensor: Any) -> None:
        tensor.quantization.scale = [0.0]

    return files.with_tensor(files.conv(), "y", change)


def hybrid_dense() -> bytes:
    """Float activations, int8 weights: a dynamic-range model."""
    return files.one("FULLY_CONNECTED", [files.floats("x", 1, 16), files.ones("w", 4, 16)], files.floats("y", 1, 4),
                     keep_num_dims=False)  # fmt: skip


def pool_to(scale: float) -> bytes:
    return files.one("MAX_POOL_2D", [files.int8("x", 1, 8, 8, 4)], files.int8("y", 1, 8, 8, 4, scale=scale),
                     padding="SAME", stride_w=1, stride_h=1, filter_height=2, filter_width=2)  # fmt: skip


def unary(op: str, dtype: str, version: int = 1) -> bytes:
    """One operator without options on eight values."""
    make = files.floats if dtype == "float32" else files.int8
    content = files.as_operator(files.one("RELU", [make("x", 1, 8)], make("y", 1, 8)), op)
    return files.edited(content, lambda model: setattr(model.operatorCodes[0], "version", version))


def float_binary(op: str) -> bytes:
    operands = [files.floats("x", 1, 8), files.floats("z", 1, 8)]
    return files.as_operator(files.one("MAXIMUM", operands, files.floats("y", 1, 8), fed=2), op)


def softmax(scale: float = 0.5, zero_point: int = -128) -> bytes:
    return files.one("SOFTMAX", [files.int8("x", 1, 8, scale=scale)], activation("y", (1, 8), 1 / 256, zero_point),
                     beta=1.0)  # fmt: skip


def float_softmax() -> bytes:
    return files.one("SOFTMAX", [files.floats("x", 1, 8)], files.floats("y", 1, 8), beta=1.0)


def sigmoid(zero_point: int) -> bytes:
    return files.one("LOGISTIC", [files.int8("x", 1, 8)], activation("y", (1, 8), 1 / 256, zero_point))


def dequantize(half: bool) -> bytes:
    """From int8, or from float16 as in a model with half-precision weights."""
    content = files.one("DEQUANTIZE", [files.int8("x", 1, 8)], files.floats("y", 1, 8))

    def change(tensor: Any) -> None:
        tensor.type, tensor.quantization = tflite.TensorType.FLOAT16, None

    return files.with_tensor(content, "x", change) if half else content


def custom() -> bytes:
    """An operator of somebody's own."""

    def change(model: Any) -> None:
        code, operator = model.operatorCodes[0], model.subgraphs[0].operators[0]
        code.builtinCode = code.deprecatedBuiltinCode = tflite.BuiltinOperator.CUSTOM
        code.customCode = b"Mine"
        operator.builtinOptions, operator.builtinOptionsType = None, 0

    return files.edited(files.conv(), change)


def requantize(to: float) -> bytes:
    return files.one("QUANTIZE", [files.int8("x", 1, 8)], files.int8("y", 1, 8, scale=to))


def addition(second: float) -> bytes:
    return files.one("ADD", [files.int8("x", 1, 8), files.int8("z", 1, 8, scale=second)], files.int8("y", 1, 8), fed=2)


def relu_of(size: int) -> bytes:
    """`size` floats, four bytes each."""
    return files.one("RELU", [files.floats("x", 1, size)], files.floats("y", 1, size))


def fed_with(shape: list[int]) -> bytes:
    """A convolution whose input claims another shape."""
    return files.with_tensor(files.conv(), "x", lambda tensor: setattr(tensor, "shape", shape))


def network_with(op: str) -> bytes:
    """The small network with its softmax replaced by another operator."""

    def change(model: Any) -> None:
        (number,) = (
            n for n, code in enumerate(model.operatorCodes) if code.builtinCode == tflite.BuiltinOperator.SOFTMAX
        )
        model.operatorCodes[number].builtinCode = getattr(tflite.BuiltinOperator, op)
        model.operatorCodes[number].deprecatedBuiltinCode = min(model.operatorCodes[number].builtinCode, 127)
        for operator in model.subgraphs[0].operators:
            if operator.opcodeIndex == number:
                operator.builtinOptions, operator.builtinOptionsType = None, 0

    return files.edited(files.small_network(), change)


def branches() -> bytes:
    """Two partitions around a MAXIMUM, a way past it, and an ABS that nothing uses."""
    shape = (1, 8, 8, 4)
    names = ("x", "a", "m", "c", "y", "unused")
    same = {"padding": "SAME", "stride_w": 1, "stride_h": 1}
    nodes = [
        Node("CONV_2D", "one", ("x", "w", "b"), ("a",), same),
        Node("MAXIMUM", "two", ("a", "x"), ("m",)),
        Node("RELU", "dead", ("a",), ("unused",)),
        Node("CONV_2D", "three", ("m", "w", "b"), ("c",), same),
        Node("ADD", "four", ("c", "a"), ("y",)),
    ]
    tensors = [*(files.int8(name, *shape) for name in names), files.ones("w", 4, 3, 3, 4), files.bias(4)]
    return tflite_of(nodes, tensors, ["x"], ["y"])


def gather_fed() -> bytes:
    """A table looked up by an index that is fed: a random one would lie outside."""
    operands = [codes("table", np.arange(8).reshape(4, 2), 0.5), activation("rows", (2,), 1.0, 0, np.int32)]
    node = Node("GATHER", "look up", ("table", "rows"), ("y",), {"axis": 0})
    content = tflite_of([node], [*operands, files.int8("y", 2, 2)], ["rows"], ["y"])
    return files.unquantized(content, "rows")
