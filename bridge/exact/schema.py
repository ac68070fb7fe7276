"""TFLite's operators: codes, versions and options of the file format, and what the kernels compute. A table, no more.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs (codes, option tables, field order) and
tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc (the lowest version whose kernel takes int8).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from bridge.exact import kernels
from bridge.exact.kernels import Kernel

TENSOR_TYPES = MappingProxyType(
    {
        np.dtype(np.float32): 0,
        np.dtype(np.int32): 2,
        np.dtype(np.uint8): 3,
        np.dtype(np.int64): 4,
        np.dtype(np.int8): 9,
    }
)

ENUMS = MappingProxyType(
    {"SAME": 0, "VALID": 1, "NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "REFLECT": 0, "SYMMETRIC": 1}
)


@dataclass(frozen=True)
class Field:
    """One field of an options table: its place, its flatbuffer type, and the value that is not written."""

    slot: int
    type: str
    default: float = 0


@dataclass(frozen=True)
class Options:
    """An options table: its number in the BuiltinOptions union, and its fields by name."""

    number: int
    fields: MappingProxyType[str, Field]


def _options(number: int, **fields: Field) -> Options:
    return Options(number, MappingProxyType(fields))


_STRIDES = {"padding": Field(0, "Int8"), "stride_w": Field(1, "Int32"), "stride_h": Field(2, "Int32")}
_CONV = _options(
    1,
    **_STRIDES,
    fused_activation=Field(3, "Int8"),
    dilation_w_factor=Field(4, "Int32", 1),
    dilation_h_factor=Field(5, "Int32", 1),
)
_DEPTHWISE = _options(
    2,
    **_STRIDES,
    depth_multiplier=Field(3, "Int32"),
    fused_activation=Field(4, "Int8"),
    dilation_w_factor=Field(5, "Int32", 1),
    dilation_h_factor=Field(6, "Int32", 1),
)
_POOL = _options(
    5,
    **_STRIDES,
    filter_width=Field(3, "Int32"),
    filter_height=Field(4, "Int32"),
    fused_activation=Field(5, "Int8"),
)
_TRANSPOSE_CONV = _options(49, **_STRIDES, fused_activation=Field(3, "Int8"))
_DENSE = _options(8, fused_activation=Field(0, "Int8"), keep_num_dims=Field(2, "Bool"))
_RESIZE_BILINEAR = _options(15, align_corners=Field(2, "Bool"), half_pixel_centers=Field(3, "Bool"))
_RESIZE_NEAREST = _options(74, align_corners=Field(0, "Bool"), half_pixel_centers=Field(1, "Bool"))
_FUSED = Field(0, "Int8")


@dataclass(frozen=True)
class Operator:
    """An operator: its builtin code, the version that takes int8, what kernels can do, and its options."""

    code: int
    version: int
    kernel: Kernel
    options: Options | None = None


OPERATORS = MappingProxyType(
    {
        "ADD": Operator(0, 2, kernels.SUM, _options(11, fused_activation=_FUSED)),
        "AVERAGE_POOL_2D": Operator(1, 2, kernels.POOLED, _POOL),
        "BATCH_MATMUL": Operator(
            126, 2, kernels.MATRICES, _options(101, adj_x=Field(0, "Bool"), adj_y=Field(1, "Bool"))
        ),
        "CONCATENATION": Operator(
            2, 2, kernels.CONCATENATED, _options(10, axis=Field(0, "Int32"), fused_activation=Field(1, "Int8"))
        ),
        "CONV_2D": Operator(3, 3, kernels.CONVOLUTION, _CONV),
        "DEPTHWISE_CONV_2D": Operator(4, 3, kernels.CONVOLUTION, _DEPTHWISE),
        "DEQUANTIZE": Operator(6, 2, kernels.TO_FLOAT, _options(38)),
        "FULLY_CONNECTED": Operator(9, 4, kernels.DENSE, _DENSE),
        "GATHER": Operator(36, 2, kernels.CONCATENATED, _options(23, axis=Field(0, "Int32"))),
        "HARD_SWISH": Operator(117, 1, kernels.HARD_SWISH, _options(91)),
        "LEAKY_RELU": Operator(98, 2, kernels.RESCALED, _options(75, alpha=Field(0, "Float32"))),
        "LOGISTIC": Operator(14, 2, kernels.LOOKED_UP),
        "MAXIMUM": Operator(55, 2, kernels.EXTREME, _options(39)),
        "MAX_POOL_2D": Operator(17, 2, kernels.POOLED, _POOL),
        "MEAN": Operator(40, 2, kernels.MEAN, _options(27, keep_dims=Field(0, "Bool"))),
        "MINIMUM": Operator(57, 2, kernels.EXTREME, _options(39)),
        "MIRROR_PAD": Operator(100, 2, kernels.MOVED, _options(77, mode=Field(0, "Int8"))),
        "MUL": Operator(18, 2, kernels.PRODUCT, _options(21, fused_activation=_FUSED)),
        "PAD": Operator(34, 2, kernels.PADDED, _options(22)),
        "PADV2": Operator(60, 2, kernels.PADDED, _options(43)),
        "PRELU": Operator(54, 1, kernels.SLOPES),
        "QUANTIZE": Operator(114, 2, kernels.RESCALED, _options(89)),
        "RELU": Operator(19, 2, kernels.MOVED),
        "RELU6": Operator(21, 2, kernels.UP_TO_6),
        "RELU_N1_TO_1": Operator(20, 1, kernels.UP_TO_1),
        "RESHAPE": Operator(22, 1, kernels.MOVED, _options(17)),
        "RESIZE_BILINEAR": Operator(23, 3, kernels.MOVED, _RESIZE_BILINEAR),
        "RESIZE_NEAREST_NEIGHBOR": Operator(97, 3, kernels.MOVED, _RESIZE_NEAREST),
        "SLICE": Operator(65, 2, kernels.CUT, _options(48)),
        "SOFTMAX": Operator(25, 2, kernels.SOFTMAX, _options(9, beta=Field(0, "Float32"))),
        "SPLIT": Operator(49, 2, kernels.CONCATENATED, _options(35, num_splits=Field(0, "Int32"))),
        "SPLIT_V": Operator(102, 2, kernels.CONCATENATED, _options(79, num_splits=Field(0, "Int32"))),
        "STRIDED_SLICE": Operator(45, 2, kernels.CUT, _options(32)),
        "SUB": Operator(41, 2, kernels.SUM, _options(28, fused_activation=_FUSED)),
        "TANH": Operator(28, 2, kernels.LOOKED_UP),
        "TRANSPOSE": Operator(39, 2, kernels.TRANSPOSED, _options(26)),
        "TRANSPOSE_CONV": Operator(67, 3, kernels.CONVOLUTION, _TRANSPOSE_CONV),
    }
)
