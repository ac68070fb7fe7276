"""Dense layers and products of two activations."""

from __future__ import annotations

from bridge.exact.operators.reading import FLAG, TWO_INPUTS, USED, reading
from bridge.exact.operators.record import Axes, Operator, Output, Spelling, Weights

OPERATORS = (
    Operator(
        name="Gemm",
        reads=reading(3, alpha=USED, beta=USED, transA=FLAG, transB=FLAG),
        spelling=Spelling.DENSE,
        becomes=("FULLY_CONNECTED",),
        axes=Axes.DENSE,
        output=Output.COMPUTED,
        weights=Weights(outputs=0, inputs=1),
        limitable=True,
    ),
    Operator(
        name="MatMul",
        reads=TWO_INPUTS,
        spelling=Spelling.PRODUCT,
        becomes=("BATCH_MATMUL",),
        axes=Axes.AS_IN_ONNX,
        output=Output.COMPUTED,
    ),
)
