"""What LiteRT's kernels can compute of each operator of TFLite: from which scales on they cannot, and of how many axes.

Measured with LiteRT 2.1.0, XNNPACK and reference kernels: every int8 code through one operator at factors from 2^-40 to
2^34, and 0 to 8 axes (docs/properties.md). tests/bridge/exact/test_limits.py asks each of them again. A factor is how many
steps of the output one step of the input is (for products: of the accumulator). From 256 on a single step leaves the
output's whole range, so that no sound training produces one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Scales = list[float]
"""Of a node's operands, a per-channel one by its largest."""


@dataclass(frozen=True)
class Limit:
    """The factor that a kernel no longer does, how it follows from the operands' scales, and what happens there."""

    below: float
    factor: Callable[[Scales], float]
    happens: str


@dataclass(frozen=True)
class Unlimited:
    """No factor is too large, for this reason."""

    because: str


MOST_AXES = 8
"""Up to which operators were measured; those of which nothing else is said, without a fault."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What both kernel sets compute of an operator; beyond it a file is refused or written otherwise."""

    factor: Limit | Unlimited
    one_scale: bool = False
    """Its operands and outputs of codes must be at one scale; nothing checks that when a file is loaded."""
    input_scales: tuple[float, float] | None = None
    """Between which scales of its input, both excluded, it computes what it should."""
    output_scale: float | None = None
    """Up to which scale of its output it does."""
    axes: int = MOST_AXES
    """Up to which number of axes; sums, products and extremes of two equal shapes have no limit."""
    least_axes: int = 0
    """Below it, the output has another shape than was asked for, or there is none."""
    windowed: bool = False
    """It keeps padding, strides and dilations in 16 bits (lite/kernels/internal/types.h)."""
    writes_over: bool = False
    """LiteRT lets it write its output over an operand of the same size (shared_memory.py)."""


def product(scales: Scales) -> float:
    """The scale of a product; one operand in float or uint8 has no limit of int8 kernels."""
    return scales[0] * scales[1] if len(scales) > 1 else 0.0


_ACCUMULATED = Limit(2.0**8, product, "XNNPACK does not load the file")
_SHIFTED = Limit(2.0**20, max, "the result wraps around")
_SAME = Unlimited("one scale, in and out")
_WHATEVER_COMES_IN = Unlimited("a table of 256 results, whatever the scale of the input")

SUM = Kernel(
    factor=Limit(2.0**8, max, "XNNPACK's sum wraps around, and from 2^19 on the reference kernel ends the process"),
    # 2^20 times the output's scale is taken in float32, and ends the process where that is infinite: AddParams and
    # SubParams in lite/kernels/{add,sub}.cc, left_shift 20.
    output_scale=2.0**107,
    axes=6,  # beyond: wrong numbers, or the process ends
    writes_over=True,
)
PRODUCT = Kernel(factor=Limit(2.0**8, product, "XNNPACK's product wraps around"), axes=6, writes_over=True)
CONVOLUTION = Kernel(factor=_ACCUMULATED, windowed=True)
DENSE = Kernel(
    factor=_ACCUMULATED,
    axes=6,  # see CONCATENATED
    least_axes=2,  # fully_connected.cc: a vector's result comes as a matrix of one row
)
MATRICES = Kernel(
    factor=Limit(2.0**20, product, "the result wraps around"),
    axes=5,  # batch_matmul.cc: NumDimensions(lhs_data) <= 5
    least_axes=2,  # batch_matmul.cc: NumDimensions(lhs_data) >= 2
)
RESCALED = Kernel(factor=_SHIFTED)
SLOPES = Kernel(factor=_SHIFTED, axes=4)  # activations.cc, BroadcastPrelu4DSlow: beyond, the process ends
MEAN = Kernel(factor=_SHIFTED, axes=6)  # see CONCATENATED
HARD_SWISH = Kernel(
    # lite/kernels/activations.cc, HardSwishPrepare: output_multiplier_exponent <= 0
    factor=Limit(2.0**7, max, "the kernel does not prepare"),
    # Its 16-bit gate wraps around (lite/kernels/internal/reference/hard_swish.h, reluish_multiplier_exponent).
    input_scales=(0.0, 2.0**25),
)
SOFTMAX = Kernel(
    factor=Unlimited("one scale out"),
    # Its input multiplier, 2^26 * scale, must be above 1, or the kernel ends the process: PreprocessSoftmaxScaling and
    # QuantizeMultiplierGreaterThanOne in lite/kernels/internal/quantization_util.cc.
    input_scales=(2.0**-26, np.inf),
    axes=6,  # see CONCATENATED
    writes_over=True,
)
LOOKED_UP = Kernel(factor=_WHATEVER_COMES_IN)
TO_FLOAT = Kernel(factor=Unlimited("no scale out"))
MOVED = Kernel(factor=_SAME, one_scale=True)
# XNN_MAX_TENSOR_DIMS is 6. XNNPACK leaves wider operators to others as long as it knows how, and these it does not when
# the graph has more of them: "failed to delegate MEAN node".
CONCATENATED = Kernel(factor=_SAME, one_scale=True, axes=6)
TRANSPOSED = Kernel(
    factor=_SAME, one_scale=True, axes=6
)  # transpose.cc: "Transpose op only supports 1D-6D input arrays"
PADDED = Kernel(factor=_SAME, one_scale=True, axes=5)  # pad.cc: PadKernelMaxDimensionCount
CUT = Kernel(factor=_SAME, one_scale=True, axes=5)  # slice.cc, strided_slice.cc: "only supports 1D-5D input arrays"
# Their limit as a code does not fit int32 there; lowering/activation.py leaves it away before.
UP_TO_6 = Kernel(factor=_SAME, one_scale=True, input_scales=(2.0**-28, np.inf))
UP_TO_1 = Kernel(factor=_SAME, one_scale=True, input_scales=(2.0**-31, np.inf))
POOLED = Kernel(factor=_SAME, one_scale=True, windowed=True)
# maximum_minimum.cc, MaximumMinimumBroadcastSlow of 5 axes: beyond, the process ends
EXTREME = Kernel(factor=_SAME, one_scale=True, axes=5)
