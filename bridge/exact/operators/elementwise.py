"""Sums, products, activations, limits, and the operators that only change the scale."""

from __future__ import annotations

from bridge.exact.graph import per_tensor
from bridge.exact.operators.reading import AXIS, MANY_INPUTS, ONE_INPUT, TWO_INPUTS, USED, reading
from bridge.exact.operators.record import Axes, Operator, Output, Spelling


def _pairwise(name: str, becomes: str) -> Operator:
    return Operator(
        name=name,
        reads=TWO_INPUTS,
        becomes=(becomes,),
        axes=Axes.BROADCAST,
        output=Output.COMPUTED,
        limitable=True,
    )


def _extreme(name: str, becomes: str) -> Operator:
    return Operator(name=name, reads=MANY_INPUTS, becomes=(becomes,), axes=Axes.BROADCAST, output=Output.COMPARED)


OPERATORS = (
    _pairwise("Add", "ADD"),
    _pairwise("Sub", "SUB"),
    _pairwise("Mul", "MUL"),
    _pairwise("Div", "MUL"),
    _extreme("Min", "MINIMUM"),
    _extreme("Max", "MAXIMUM"),
    # Where TFLite's 8-bit quantization specification knows one scale for an output, it is the one of LOGISTIC, TANH and
    # SOFTMAX there.
    Operator(
        name="Sigmoid",
        reads=ONE_INPUT,
        becomes=("LOGISTIC",),
        axes=Axes.AS_STORED,
        output=Output.PRESCRIBED,
        prescribed=per_tensor(1 / 256, -128),
    ),
    Operator(
        name="Tanh",
        reads=ONE_INPUT,
        becomes=("TANH",),
        axes=Axes.AS_STORED,
        output=Output.PRESCRIBED,
        prescribed=per_tensor(1 / 128, 0),
    ),
    Operator(
        name="Softmax",
        reads=reading(1, axis=AXIS),
        becomes=("SOFTMAX",),
        axes=Axes.LAST,
        output=Output.PRESCRIBED,
        prescribed=per_tensor(1 / 256, -128),
    ),
    Operator(name="HardSwish", reads=ONE_INPUT, becomes=("HARD_SWISH",), axes=Axes.AS_STORED, output=Output.COMPUTED),
    Operator(
        name="HardSigmoid",
        reads=reading(1, alpha=USED, beta=USED),
        becomes=("DEPTHWISE_CONV_2D",),
        axes=Axes.AS_STORED,
        output=Output.COMPUTED,
    ),
    Operator(
        name="LeakyRelu",
        reads=reading(1, alpha=USED),
        becomes=("LEAKY_RELU",),
        axes=Axes.AS_STORED,
        output=Output.COMPUTED,
    ),
    Operator(name="PRelu", reads=TWO_INPUTS, becomes=("PRELU",), axes=Axes.BROADCAST, output=Output.COMPUTED),
    Operator(name="Relu", reads=ONE_INPUT, spelling=Spelling.LIMIT),
    Operator(name="Clip", reads=reading(3), spelling=Spelling.LIMIT),
    Operator(
        name="Limit",
        becomes=("RELU", "RELU6", "RELU_N1_TO_1", "MAXIMUM", "MINIMUM"),
        axes=Axes.AS_STORED,
        output=Output.LIMITED,
    ),
    # The last three come from passes/rescale.py and qdq.py; the layout pass meets the Quantize alone.
    Operator(name="Clamp", becomes=("MAXIMUM", "MINIMUM"), axes=Axes.AS_STORED, output=Output.COMPUTED),
    Operator(name="Quantize", becomes=("QUANTIZE",), axes=Axes.AS_STORED, output=Output.COMPUTED),
    Operator(name="Dequantize", becomes=("DEQUANTIZE",), axes=Axes.AS_STORED, output=Output.COMPUTED),
)
