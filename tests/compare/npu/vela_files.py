"""Makers of small .tflite files: one operator each, with the numbers that Vela's rules are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import tflite
from ai_edge_litert import schema_py_generated as schema

from bridge.exact.graph import Node, Tensor, constant
from compare.mismatches.parts.files import activation, codes, tflite_of


def edited(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after a change of its object tree: for what the bridge's writer never writes."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    change(model)
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def as_operator(content: bytes, op: str) -> bytes:
    """The file with its only operator replaced by one of the same operands and without options."""

    def change(model: Any) -> None:
        code = getattr(tflite.BuiltinOperator, op)
        model.operatorCodes[0].builtinCode = code
        model.operatorCodes[0].deprecatedBuiltinCode = min(code, 127)
        model.subgraphs[0].operators[0].builtinOptions = None
        model.subgraphs[0].operators[0].builtinOptionsType = 0

    return edited(content, change)


def with_tensor(content: bytes, name: str, change: Callable[[Any], None]) -> bytes:
    """The file with one tensor changed."""
    return edited(
        content, lambda model: [change(each) for each in model.subgraphs[0].tensors if each.name == name.encode()]
    )


def open_dimension(content: bytes, axis: int) -> bytes:
    """The file with one dimension of its input left open."""

    def change(tensor: Any) -> None:
        tensor.shapeSignature = list(tensor.shape)
        tensor.shapeSignature[axis] = -1

    return with_tensor(content, "x", change)


def one(op: str, operands: list[Tensor], result: Tensor, fed: int = 1, **options: Any) -> bytes:
    """A file of one operator; the first `fed` operands are the file's inputs."""
    names = [each.name for each in operands]
    node = Node(op, op, tuple(names), (result.name,), options)
    return tflite_of([node], [*operands, result], names[:fed], [result.name])


def int8(name: str, *shape: int, scale: float = 0.5) -> Tensor:
    return activation(name, shape, scale)


def integers(name: str, *values: Any) -> Tensor:
    return constant(name, np.array(values, np.int32))


def ones(name: str, *shape: int, scales: int = 1, axis: int = 0) -> Tensor:
    """int8 weights of 1, with one scale or with one for each channel."""
    return codes(name, np.ones(shape), [0.25] * scales if scales > 1 else 0.25, axis=axis if scales > 1 else None)


def bias(channels: int, scales: int = 1, name: str = "b") -> Tensor:
    return codes(name, np.zeros(channels), [0.125] * scales if scales > 1 else 0.125, dtype=np.int32,
                 axis=0 if scales > 1 else None)  # fmt: skip


def floats(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, np.dtype(np.float32))


def conv(stride: int = 1, size: int = 9, batch: int = 1) -> bytes:
    out = -(-size // stride)
    return one("CONV_2D", [int8("x", batch, size, size, 4), ones("w", 4, 3, 3, 4), bias(4)],
               int8("y", batch, out, out, 4), padding="SAME", stride_w=stride, stride_h=stride)  # fmt: skip


def float_conv(weight: Tensor) -> bytes:
    """A convolution of float tensors, whose weight may be stored as int8 (dynamic range)."""
    return one("CONV_2D", [floats("x", 1, 8, 8, 4), weight, constant("b", np.zeros(4, np.float32))],
               floats("y", 1, 8, 8, 4), padding="SAME", stride_w=1, stride_h=1)  # fmt: skip


def fed_weight_conv() -> bytes:
    weight = int8("w", 4, 3, 3, 4, scale=0.25)
    return one("CONV_2D", [int8("x", 1, 8, 8, 4), weight, bias(4)], int8("y", 1, 8, 8, 4), fed=2,
               padding="SAME", stride_w=1, stride_h=1)  # fmt: skip


def heavy_conv(kernel: int, depth: int) -> bytes:
    """Every weight is 127, so that the sum of one channel is 127 * kernel * kernel * depth."""
    weight = codes("w", np.full((1, kernel, kernel, depth), 127), 0.25)
    return one("CONV_2D", [int8("x", 1, kernel, kernel, depth), weight, bias(1)], int8("y", 1, 1, 1, 1),
               padding="VALID", stride_w=1, stride_h=1)  # fmt: skip


def int16_weight() -> bytes:
    """int16 weights, which the writer does not write."""

    def change(model: Any) -> None:
        (weight,) = (each for each in model.subgraphs[0].tensors if each.name == b"w")
        weight.type = tflite.TensorType.INT16
        model.buffers[weight.buffer].data = np.frombuffer(np.ones(144, "<i2").tobytes(), np.uint8)

    return edited(conv(), change)


def depthwise(stride: int) -> bytes:
    out = -(-12 // stride)
    return one("DEPTHWISE_CONV_2D", [int8("x", 1, 12, 12, 4), ones("w", 1, 3, 3, 4), bias(4)], int8("y", 1, out, out, 4),
               padding="SAME", stride_w=stride, stride_h=stride, depth_multiplier=1)  # fmt: skip


def pool(op: str, kernel: int, padding: str, height: int = 16, width: int = 16) -> bytes:
    out = (height, width) if padding == "SAME" else (height - kernel + 1, width)
    return one(op, [int8("x", 1, height, width, 4)], int8("y", 1, *out, 4), padding=padding, stride_w=1, stride_h=1,
               filter_height=kernel, filter_width=kernel if padding == "SAME" else 1)  # fmt: skip


def dense(scales: int) -> bytes:
    return one("FULLY_CONNECTED", [int8("x", 1, 16), ones("w", 4, 16, scales=scales), bias(4, scales)], int8("y", 1, 4),
               keep_num_dims=False)  # fmt: skip


def binary(op: str, second_scale: float = 0.5) -> bytes:
    return one(op, [int8("x", 1, 8, 8, 4), int8("z", 1, 8, 8, 4, scale=second_scale)], int8("y", 1, 8, 8, 4), fed=2)


def mean(batch: int) -> bytes:
    return one("MEAN", [int8("x", batch, 8, 8, 4), integers("axes", 1, 2)], int8("y", batch, 1, 1, 4), keep_dims=True)


def fed_axes_mean() -> bytes:
    axes = Tensor("axes", (2,), np.dtype(np.int32))
    return one("MEAN", [int8("x", 1, 8, 8, 4), axes], int8("y", 1, 1, 1, 4), fed=2, keep_dims=True)


def resize(op: str, factor: int, half_pixel: bool = False) -> bytes:
    return one(op, [int8("x", 1, 4, 4, 4), integers("size", 4 * factor, 4 * factor)],
               int8("y", 1, 4 * factor, 4 * factor, 4), align_corners=False, half_pixel_centers=half_pixel)  # fmt: skip


def transpose_conv(stride: int) -> bytes:
    out = 4 * stride
    operands = [integers("size", 1, out, out, 4), ones("w", 4, 3, 3, 4), int8("x", 1, 4, 4, 4), bias(4)]
    result = int8("y", 1, out, out, 4)
    options = {"padding": "SAME", "stride_w": stride, "stride_h": stride}
    node = Node("TRANSPOSE_CONV", "TRANSPOSE_CONV", tuple(each.name for each in operands), ("y",), options)
    return tflite_of([node], [*operands, result], ["x"], ["y"])


def gather() -> bytes:
    return one("GATHER", [int8("x", 8, 4), integers("rows", 1, 0)], int8("y", 2, 4), axis=0)


def logistic(*shape: int) -> bytes:
    return one("LOGISTIC", [int8("x", *shape)], activation("y", shape, 1 / 256, -128))


def unquantized(content: bytes, name: str) -> bytes:
    def change(tensor: Any) -> None:
        tensor.quantization = None

    return with_tensor(content, name, change)


def int16_bias() -> bytes:
    """An int16 bias on int8 activations."""

    def change(model: Any) -> None:
        (found,) = (each for each in model.subgraphs[0].tensors if each.name == b"b")
        found.type = tflite.TensorType.INT16
        model.buffers[found.buffer].data = np.zeros(8, np.uint8)

    return edited(conv(), change)


def quantize_float() -> bytes:
    return one("QUANTIZE", [floats("x", 1, 8)], int8("y", 1, 8))


def requantize() -> bytes:
    return one("QUANTIZE", [int8("x", 1, 8, scale=0.25)], int8("y", 1, 8))


def small_network(*, resized: bool = False) -> bytes:
    """What the exact bridge writes for the MNIST network: float in and out, two convolutions, a dense layer, softmax.

    With `resized`, an enlargement by 3 stands in place of the second convolution: the U65 leaves it to the CPU.
    """
    side = 24 if resized else 8
    operands = [
        floats("image", 1, 16, 16, 1), int8("q", 1, 16, 16, 1), ones("w1", 4, 3, 3, 1, scales=4), bias(4, 4, "b1"),
        int8("c1", 1, 16, 16, 4), int8("p1", 1, 8, 8, 4), int8("c2", 1, side, side, 4), ones("w2", 4, 3, 3, 4, scales=4),
        integers("size", 24, 24), integers("flat", 1, side * side * 4), int8("f", 1, side * side * 4),
        ones("w3", 10, side * side * 4), bias(10), int8("logits", 1, 10), activation("s", (1, 10), 1 / 256, -128),
        floats("scores", 1, 10),
    ]  # fmt: skip
    same = {"padding": "SAME", "stride_w": 1, "stride_h": 1}
    pool2 = {"padding": "VALID", "stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    second = (
        Node("RESIZE_NEAREST_NEIGHBOR", "second", ("p1", "size"), ("c2",), {"half_pixel_centers": False})
        if resized
        else Node("CONV_2D", "second", ("p1", "w2", "b1"), ("c2",), same)
    )
    nodes = [
        Node("QUANTIZE", "quantize", ("image",), ("q",)),
        Node("CONV_2D", "first", ("q", "w1", "b1"), ("c1",), {**same, "fused_activation": "RELU"}),
        Node("MAX_POOL_2D", "pool", ("c1",), ("p1",), pool2),
        second,
        Node("RESHAPE", "flatten", ("c2", "flat"), ("f",)),
        Node("FULLY_CONNECTED", "dense", ("f", "w3", "b"), ("logits",), {"keep_num_dims": False}),
        Node("SOFTMAX", "softmax", ("logits",), ("s",), {"beta": 1.0}),
        Node("DEQUANTIZE", "dequantize", ("s",), ("scores",)),
    ]
    return tflite_of(nodes, operands, ["image"], ["scores"])
