"""Operators of constants alone, which no folding computes: never a float operand of an int8 kernel."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.verifying.litert import KERNELS, Runner
from tests.bridge.exact.graphs import Builder, Seeded

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

OPERATORS = {
    "GlobalAveragePool": {}, "MaxPool": {"kernel_shape": [2, 2]}, "AveragePool": {"kernel_shape": [2, 2]},
    "Sigmoid": {}, "HardSwish": {}, "LeakyRelu": {}, "Softmax": {"axis": 1},
}  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS)
def test_an_operator_of_a_float_constant_stays_float_or_is_refused(op):
    b = Builder(Seeded(1))
    constant = b.constant(b.normal(1, 2, 4, 4))
    y = b.quantize(str(b.add(op, [constant], **OPERATORS[op])))
    x = b.quantize(str(b.add("Relu", [b.quantize(b.input(1, 2, 4, 4, magnitude=2.0))])))
    model = b.finish([y, x])
    with pytest.raises(BridgeError):
        convert(model.proto)

    conversion = convert(model.proto, Options(allow_float=True))

    name = conversion.graph.outputs[0]
    tensor = conversion.graph.tensors[name]
    expected = np.rint(b.values[y] / tensor.q.scale) + int(tensor.q.zero_point)
    expected = expected.transpose(0, 2, 3, 1) if expected.shape != tensor.shape or expected.ndim == 4 else expected
    for kernels in KERNELS:
        found = Runner(conversion.tflite, kernels)({conversion.graph.inputs[0]: np.zeros((1, 4, 4, 2), np.int8)})[name]
        assert np.abs(found.astype(int) - expected).max() <= 1
