"""Operators that move elements and compute nothing, or next to nothing."""

from __future__ import annotations

import numpy as np

from bridge.exact.operators.reading import (
    ANY,
    AXIS,
    EXPORT_AGAIN,
    FLAG,
    TWO_INPUTS,
    USED,
    NoEffect,
    Only,
    Within,
    reading,
)
from bridge.exact.operators.record import Axes, Operator, Output, Spelling

_OTHER_MODES_ONLY = NoEffect("it belongs to a mode of Resize that the lowering refuses")

OPERATORS = (
    Operator(
        name="Reshape",
        reads=reading(2, allowzero=FLAG),
        spelling=Spelling.SHAPE,
        becomes=("RESHAPE",),
        axes=Axes.RESHAPE,
        output=Output.MOVED,
    ),
    Operator(name="Flatten", reads=reading(1, axis=AXIS), spelling=Spelling.SHAPE, output=Output.MOVED),
    Operator(name="Squeeze", reads=TWO_INPUTS, spelling=Spelling.SHAPE, output=Output.MOVED),
    Operator(name="Unsqueeze", reads=TWO_INPUTS, spelling=Spelling.SHAPE, output=Output.MOVED),
    Operator(
        name="Transpose",
        reads=reading(1, perm=Within(0, 31)),
        becomes=("TRANSPOSE",),
        axes=Axes.TRANSPOSE,
        output=Output.MOVED,
    ),
    Operator(
        name="Concat",
        reads=reading(ANY, axis=AXIS),
        becomes=("CONCATENATION",),
        axes=Axes.CONCAT,
        output=Output.JOINED,
    ),
    Operator(
        name="Split",
        reads=reading(2, ANY, axis=AXIS, num_outputs=Within(1)),
        becomes=("SPLIT", "SPLIT_V"),
        axes=Axes.SPLIT,
        output=Output.MOVED,
        made={"sizes": list},
    ),
    Operator(
        name="Slice",
        reads=reading(5),
        becomes=("STRIDED_SLICE",),
        axes=Axes.SLICE,
        output=Output.MOVED,
        made={"begin": list, "end": list, "strides": list},
    ),
    Operator(
        name="Pad",
        reads=reading(4, mode=USED),
        becomes=("PAD", "PADV2", "MIRROR_PAD"),
        axes=Axes.PAD,
        output=Output.MOVED,
        made={"paddings": list, "value": float},
    ),
    Operator(
        name="Gather",
        reads=reading(2, axis=AXIS),
        becomes=("GATHER",),
        axes=Axes.GATHER,
        output=Output.MOVED,
        made={"indices": np.ndarray},
    ),
    Operator(
        name="Resize",
        reads=reading(
            4, axes=AXIS, coordinate_transformation_mode=USED, mode=USED, nearest_mode=USED,
            antialias=Only((0,), "smooths before it makes smaller; TFLite's kernels do not", "Use antialias=False."),
            cubic_coeff_a=_OTHER_MODES_ONLY,
            exclude_outside=Only((0,), "leaves out samples outside the image; TFLite repeats the edge", EXPORT_AGAIN),
            extrapolation_value=_OTHER_MODES_ONLY,
            keep_aspect_ratio_policy=Only(
                ("stretch",), "gives another size than it was asked for", "Write the size that comes out, with policy stretch."
            ),
        ),
        becomes=("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"),
        axes=Axes.CHANNELS_LAST,
        output=Output.SAMPLED,
    ),
)  # fmt: skip
