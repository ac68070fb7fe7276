"""The gate on the bridge's own files: it passes them whatever options wrote them, and still sees what is changed in them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.convert import Options, convert
from bridge.exact.writer import write
from compare.measuring.drift import _difference
from compare.testing import assert_bridge_exact, assert_no_mismatch
from compare.tflite.graph import open_tflite
from tests.builders import Pair, qdq_model, weight

CODES = np.random.default_rng(1)
OPTIONS = [
    Options(layout=layout, per_channel_dense=dense, io=io)
    for layout, dense, io in itertools.product(("nhwc", "nchw"), ("FULLY_CONNECTED", "CONV_2D"), ("int8", "float32"))
]


def square(kernel):
    """A convolution whose images have as many channels as rows and columns: no size tells its axes apart."""
    codes = CODES.integers(-120, 120, (4, 4, kernel, kernel))
    return qdq_model(
        ("Conv", "x w", "y", {"pads": [kernel // 2] * 4}),
        inputs={"x": (1, 4, 4, 4)}, pairs={"x": Pair(0.03), "y": Pair(0.08)}, outputs="y",
        constants=[weight("w", codes, 0.01)],
    )  # fmt: skip


def flattened(*before):
    """Images flattened into a dense layer with one scale per channel; `before` turns x into f."""
    return qdq_model(
        *before,
        ("Flatten", "f" if before else "x", "flat"),
        ("Gemm", "flat w", "y", {"transB": 1}),
        inputs={"x": (1, 3, 4, 4)},
        pairs={"x": Pair(0.03), "y": Pair(0.3)} | ({"f": Pair(0.03)} if before else {}),
        outputs="y",
        constants=[weight("w", CODES.integers(-120, 120, (5, 48)), [0.01] * 5)],
    )


MODELS = {
    "3x3 convolution of a cube": square(3),
    "1x1 convolution of a cube": square(1),
    "flattened input": flattened(),
    "flattened ReLU": flattened(("Relu", "x", "f")),
}


def samples(model):
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(0).normal(size=(6, *shape[1:])).astype(np.float32)}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o.layout}-{o.per_channel_dense}-{o.io}")
@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_the_bridge_passes_with_and_without_inputs(name, options):
    model = MODELS[name]
    onnx, tflite = model.SerializeToString(), convert(model, options).tflite
    assert_no_mismatch(onnx, tflite)
    assert_no_mismatch(onnx, tflite, samples(model))
    assert_bridge_exact(onnx, tflite, samples(model))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o.layout}-{o.per_channel_dense}-{o.io}")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("given", [True, False], ids=["inputs", "no inputs"])
def test_two_codes_that_changed_places_fail_it(name, options, given):
    model = MODELS[name]
    graph = open_tflite(convert(model, options).tflite).graph
    node = next(node for node in graph.nodes if node.op in ("CONV_2D", "FULLY_CONNECTED"))
    stored = graph.tensors[node.inputs[1]]
    codes = stored.values.reshape(stored.shape[0], -1).copy()
    first, second = 0, next(i for i in range(1, codes.shape[1]) if abs(int(codes[0, i]) - int(codes[0, 0])) > 60)
    codes[0, [first, second]] = codes[0, [second, first]]
    changed = replace(stored, data=codes.reshape(stored.shape))
    with pytest.raises(AssertionError):
        assert_no_mismatch(
            model.SerializeToString(),
            write(replace(graph, tensors={**graph.tensors, stored.name: changed})),
            samples(model) if given else None,
        )


def test_arrays_in_two_layouts_are_as_far_apart_as_in_one():
    expected = CODES.normal(size=(2, 3, 3, 3))
    for order in ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)):
        assert not _difference(expected.transpose(order), expected).any()
    assert _difference(expected.transpose(0, 1, 3, 2), expected).any()  # rows and columns: no layout has them so
