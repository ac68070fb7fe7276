"""Pools and means."""

from __future__ import annotations

from bridge.exact.operators.reading import (
    EXPORT_AGAIN,
    FLAG,
    ONE_INPUT,
    REDUCTION,
    WINDOW,
    NoEffect,
    Only,
    Within,
    reading,
)
from bridge.exact.operators.record import Axes, Operator, Output, Spelling

OPERATORS = (
    Operator(
        name="MaxPool",
        reads=reading(
            1, 2, WINDOW, ceil_mode=FLAG, dilations=Within(1),
            storage_order=NoEffect("it numbers the indices of the second output, and that one is refused"),
        ),
        spelling=Spelling.POOL,
        becomes=("MAX_POOL_2D",),
        axes=Axes.CHANNELS_LAST,
        output=Output.MOVED,
        windowed=True,
        limitable=True,
    ),
    Operator(
        name="AveragePool",
        reads=reading(
            1, 1, WINDOW, ceil_mode=FLAG, count_include_pad=FLAG,
            dilations=Only((1,), "averages over a window with gaps; TFLite's pools have none", EXPORT_AGAIN),
        ),
        spelling=Spelling.POOL,
        becomes=("AVERAGE_POOL_2D",),
        axes=Axes.CHANNELS_LAST,
        output=Output.AVERAGED_IN_PLACE,
        windowed=True,
        limitable=True,
    ),
    Operator(name="GlobalAveragePool", reads=ONE_INPUT, spelling=Spelling.MEAN),
    Operator(name="ReduceMean", reads=reading(2, 1, REDUCTION), spelling=Spelling.MEAN),
    Operator(
        name="Mean",
        becomes=("MEAN",),
        axes=Axes.REDUCE,
        output=Output.AVERAGED,
        made={"axes": list, "keepdims": bool},
    ),
)  # fmt: skip
