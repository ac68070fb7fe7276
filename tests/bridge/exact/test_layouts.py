"""Inputs and outputs are stored as `Options` says, by rank and by name, and mean the same numbers in every layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import BridgeError
from bridge.exact.arithmetic import quantize
from bridge.exact.convert import Options, convert
from bridge.verifying.litert import Runner
from tests.bridge.exact.graphs import Model, Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS
from tests.builders import Pair, qdq_model, weight

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")


def last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def codes(model: Model, options: Options) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Shapes of inputs and outputs, and what the file gives for the model's first sample, axes as in the model."""
    done = convert(model.proto, options)
    shapes = {name: done.graph.tensors[name].shape for name in (*done.graph.inputs, *done.graph.outputs)}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.proto.graph.output}

    def order(name: str, rank: int) -> tuple[int, ...]:
        wanted = options.layouts.get(name, options.layout if rank == 4 else "nchw")
        return last(rank) if wanted == "nhwc" else tuple(range(rank))

    fed = {}
    for name in done.graph.inputs:
        real = model.inputs[name][: len(model.inputs[name]) // 2]
        fed[name] = np.ascontiguousarray(quantize(real, done.graph.tensors[name].q).transpose(order(name, real.ndim)))
    made = Runner(done.tflite, "reference")(fed)
    return shapes, {name: made[name].transpose(np.argsort(order(name, ranks[name]))) for name in ranks}


@settings(
    max_examples=60, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
@given(seed=st.integers(0, 10**6), data=st.data())
def test_a_drawn_model_gives_the_same_codes_in_every_layout(seed, data):
    try:
        model = draw_model(Seeded(seed), STEPS, 3)
        plain_shapes, plain = codes(model, Options(layout="nchw"))
    except (Unusable, BridgeError):
        return
    borders = (*model.proto.graph.input, *model.proto.graph.output)
    onnx_shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in borders}
    assert plain_shapes == {name: onnx_shapes[name] for name in plain_shapes}

    wide = [name for name, shape in onnx_shapes.items() if len(shape) > 2]
    named = {name: data.draw(st.sampled_from(["nhwc", "nchw"])) for name in wide if data.draw(st.booleans())}
    shapes, moved = codes(model, Options(layouts=named))
    for name, shape in shapes.items():
        wanted = named.get(name, "nhwc" if len(shape) == 4 else "nchw")
        order = last(len(shape)) if wanted == "nhwc" else range(len(shape))
        assert shape == tuple(onnx_shapes[name][axis] for axis in order)
    for name in plain:
        np.testing.assert_array_equal(moved[name], plain[name])


def signal(outputs: str = "y"):
    """A convolution over one axis: (1, 2, 6) -> (1, 3, 5)."""
    kernel = weight("w", np.arange(12).reshape(3, 2, 2) - 6, 0.5)
    return qdq_model(
        ("Conv", "x w", "y", {"kernel_shape": [2]}), inputs={"x": (1, 2, 6)}, pairs={"x": Pair(0.5), "y": Pair(2.0)},
        outputs=outputs, constants=[kernel],
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_a_convolution_over_one_axis_keeps_the_axes_of_the_model(layout):
    done = convert(signal(), Options(layout=layout))
    assert [done.graph.tensors[name].shape for name in "xy"] == [(1, 2, 6), (1, 3, 5)]


def test_three_axes_go_channels_last_when_they_are_named():
    done = convert(signal(), Options(layouts={"x": "nhwc", "y": "nhwc"}))
    assert [done.graph.tensors[name].shape for name in "xy"] == [(1, 6, 2), (1, 5, 3)]
    assert "TRANSPOSE" not in [node.op for node in done.graph.nodes]


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(BridgeError, match=r"layout z=nhwc: is not about .*\n  Its inputs: x\. Its outputs: y\."):
        convert(signal(), Options(layouts={"z": "nhwc"}))


def test_channels_last_of_two_axes_is_refused():
    model = qdq_model(("Relu", "x", "y"), inputs={"x": (1, 2)}, pairs={"x": Pair(0.5)}, outputs="y")
    assert convert(model, Options(layouts={"x": "nchw"})).graph.tensors["x"].shape == (1, 2)
    with pytest.raises(BridgeError, match="asks for channels last, and 'x' has 2 axes"):
        convert(model, Options(layouts={"x": "nhwc"}))


def test_one_tensor_under_two_names_has_the_layout_of_each():
    model = qdq_model(
        ("Relu", "x", "r"), ("Identity", "r", "y"), ("Identity", "r", "z"),
        inputs={"x": (1, 2, 3, 3)}, pairs={"x": Pair(0.5)}, outputs="y z",
    )  # fmt: skip
    done = convert(model, Options(layouts={"y": "nchw"}))
    x = np.arange(18, dtype=np.int8).reshape(1, 3, 3, 2)
    made = Runner(done.tflite, "reference")({"x": x})
    np.testing.assert_array_equal(made["z"], x)
    np.testing.assert_array_equal(made["y"], x.transpose(0, 3, 1, 2))
