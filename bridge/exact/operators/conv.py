"""Convolutions, and what becomes one."""

from __future__ import annotations

from bridge.exact.operators.reading import USED, WINDOW, NoEffect, Only, Within, reading
from bridge.exact.operators.record import Axes, Operator, Output, Spelling, Weights

_GAPS, _GROUPS = Within(1), Within(1)

OPERATORS = (
    Operator(
        name="Conv",
        reads=reading(3, 1, WINDOW, dilations=_GAPS, group=_GROUPS),
        spelling=Spelling.CONVOLUTION,
        becomes=("CONV_2D", "DEPTHWISE_CONV_2D"),
        axes=Axes.CHANNELS_LAST,
        output=Output.COMPUTED,
        weights=Weights(outputs=0, inputs=1),
        windowed=True,
        limitable=True,
    ),
    Operator(
        name="ConvTranspose",
        reads=reading(
            3, 1, WINDOW, dilations=_GAPS, group=_GROUPS, output_padding=Within(0), output_shape=USED
        ),
        spelling=Spelling.CONVOLUTION,
        becomes=("TRANSPOSE_CONV",),
        axes=Axes.CHANNELS_LAST,
        output=Output.COMPUTED,
        weights=Weights(outputs=1, inputs=0),
        windowed=True,
        limitable=True,
    ),
    Operator(
        name="BatchNormalization",
        reads=reading(
            5, 5, epsilon=USED,
            momentum=NoEffect("it moves the running mean and variance in training"),
            training_mode=Only(
                (0,),
                "normalizes by the mean and variance of the data it sees: it was exported in training mode",
                "Call model.eval() before the export, or pass training=TrainingMode.EVAL to torch.onnx.export.",
            ),
        ),
        spelling=Spelling.BATCH_NORM,
    ),
    Operator(
        name="ChannelAffine",
        becomes=("DEPTHWISE_CONV_2D",),
        axes=Axes.CHANNELS_LAST,
        output=Output.COMPUTED,
        limitable=True,
    ),
)  # fmt: skip
