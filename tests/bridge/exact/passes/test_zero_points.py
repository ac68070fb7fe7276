"""Weights with a zero point: the same numbers at zero point 0, in as many parts as int8 needs."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from tests.bridge.exact.graphs import Builder, Seeded
from tests.bridge.exact.judging import apart

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")


def unsigned(b, codes, scale, zero):
    """A weight of uint8 codes behind its DequantizeLinear."""
    parameters = [b.constant(scale), b.constant(zero, np.uint8)]
    attrs = {"axis": 0} if np.ndim(scale) else {}
    return str(b.add("DequantizeLinear", [b.constant(codes, np.uint8), *parameters], **attrs))


def drawn(b, shape, zero, per_channel=False):
    codes = b.random.integers(0, 256, shape)
    codes.reshape(-1)[:2] = 0, 255
    if not per_channel:
        return unsigned(b, codes, 0.01, zero)
    zeros = [zero, *b.random.integers(0, 256, shape[0] - 1)]
    return unsigned(b, codes, b.random.uniform(0.01, 0.02, shape[0]), zeros)


def convolution(b, zero, shape, group=1, op="Conv", per_channel=False):
    x = b.quantize(b.input(2, 4, 5, 6, magnitude=2.0))
    w = drawn(b, shape, zero, per_channel)
    y = str(b.add(op, [x, w, b.constant(b.normal(8))], group=group, pads=[1, 1, 1, 1]))
    return b.finish([b.quantize(y, at_least=0.02)])


LAYERS = {
    "convolution": ((8, 4, 3, 3), {}),
    "per channel": ((8, 4, 3, 3), {"per_channel": True}),
    "depthwise": ((8, 1, 3, 3), {"group": 4}),
    "in groups": ((8, 2, 3, 3), {"group": 2}),
    "transposed": ((4, 8, 3, 3), {"op": "ConvTranspose"}),
}


@pytest.mark.parametrize("zero", [0, 1, 100, 127, 200, 255])
@pytest.mark.parametrize("layer", LAYERS)
def test_any_zero_point_of_a_convolution_is_computed_exactly(layer, zero):
    shape, attrs = LAYERS[layer]
    model = convolution(Builder(Seeded(3)), zero, shape, **attrs)
    assert apart(model.proto, model.inputs) <= 1
    (note,) = [note for note in convert(model.proto).notes if note.kind == "parts"]
    assert "parts" in note.what


@pytest.mark.parametrize("zero", [0, 100, 255])
@pytest.mark.parametrize("rank", [2, 3])
def test_any_zero_point_of_a_dense_layer_is_computed_exactly(zero, rank):
    b = Builder(Seeded(4))
    x = b.quantize(b.input(*(2, 3, 12)[3 - rank :], magnitude=2.0))
    y = b.add("MatMul", [x, drawn(b, (12, 5), zero)])
    model = b.finish([b.quantize(str(y), at_least=0.02)])
    assert apart(model.proto, model.inputs) <= 1


@pytest.mark.parametrize("zero", [100, 140])
def test_a_batch_norm_with_a_negative_factor_turns_the_numbers_and_not_the_codes(zero):
    b = Builder(Seeded(5))
    x = b.quantize(b.input(2, 4, 5, 5, magnitude=2.0))
    codes = b.random.integers(40, 200, (3, 4, 1, 1))
    y = b.add("Conv", [x, unsigned(b, codes, 0.01, zero)])
    numbers = [b.constant(each) for each in ([-1.5, 1.0, -0.7], [0.1, 0.2, 0.3], [0.0, 0.1, 0.0], [1.0, 1.0, 2.0])]
    model = b.finish([b.quantize(str(b.add("BatchNormalization", [y, *numbers])), at_least=0.02)])
    assert apart(model.proto, model.inputs) <= 1


def test_numbers_that_fit_int8_stay_one_part():
    b = Builder(Seeded(6))
    x = b.quantize(b.input(2, 12, magnitude=2.0))
    y = b.add("Gemm", [x, unsigned(b, b.random.integers(0, 200, (5, 12)), 0.01, 100)], transB=1)
    model = b.finish([b.quantize(str(y), at_least=0.02)])
    conversion = convert(model.proto)
    assert conversion.operators_out == {"FULLY_CONNECTED": 1}
    assert apart(model.proto, model.inputs) <= 1


def test_a_transposed_convolution_in_groups_is_refused_with_its_count():
    model = convolution(Builder(Seeded(7)), 20, (4, 4, 3, 3), op="ConvTranspose", group=2)
    with pytest.raises(
        BridgeError, match=r"has zero point -108 \(as int8\), .* codes do not fit[\s\S]*WeightSymmetric"
    ):
        convert(model.proto)
