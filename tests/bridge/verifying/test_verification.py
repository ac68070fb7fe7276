"""A file held against its reference: what is compared, on which kernels, and what is refused."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.exact.graph import Node
from bridge.verifying.batches import onnx_shape
from bridge.verifying.litert import KERNELS, Runner
from bridge.verifying.operators import single
from bridge.verifying.verification import compare_outputs, verify
from tests.builders import Pair, qdq_model, weight


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    w = weight("w", np.arange(-9, 9).reshape(2, 1, 3, 3), [0.25, 0.125])
    onnx.save(
        qdq_model(
            ("Conv", "x w", "c"), ("Relu", "c", "r"), ("MaxPool", "r", "y", {"kernel_shape": [2, 2]}),
            inputs={"x": (1, 1, 5, 5)}, pairs={"x": Pair(0.5), "r": Pair(0.5, -128), "y": Pair(0.5, -128)}, outputs="y",
            constants=[w],
        ),
        path,
    )  # fmt: skip
    return path


def samples(count=4):
    return {"x": np.random.default_rng(0).normal(size=(count, 1, 5, 5)).astype(np.float32) * 10}


def test_a_conversion_is_held_against_onnx_runtime_on_both_kernel_sets(model):
    done = convert(model)
    found = verify(model, done.graph, done.tflite, samples())
    assert found.samples == 4
    assert set(found.outputs) == set(KERNELS)
    # Scales are powers of two: the accumulator is exact in float32. A tie may fall either way: 1 LSB.
    assert all(outputs["y"].worst <= 1 for outputs in found.outputs.values())


def test_every_operator_is_measured_alone(model):
    done = convert(model)
    found = verify(model, done.graph, done.tflite, samples())
    measured = {(item.op, item.kernels) for item in found.operators}
    assert measured == {(op, kernels) for op in ("CONV_2D", "MAX_POOL_2D") for kernels in KERNELS}


def test_a_wrong_file_is_found_and_the_operator_named(model):
    done = convert(model)
    nodes = tuple(replace(node, attrs={**node.attrs, "fused_activation": "NONE"}) for node in done.graph.nodes)
    shifted = {
        name: replace(tensor, data=tensor.data + np.int8(1)) if name.startswith("w") else tensor
        for name, tensor in done.graph.tensors.items()
    }
    found = verify(model, replace(done.graph, nodes=nodes, tensors=shifted), done.tflite, samples())
    assert found.guilty()[0].op == "CONV_2D"


def test_outputs_can_be_held_against_any_reference(model):
    done = convert(model)
    runner = Runner(done.tflite, "reference")
    x = samples(1)
    stored = np.clip(np.rint(x["x"] / 0.5), -128, 127).astype(np.int8).reshape(1, 5, 5, 1)
    real = (runner({"x": stored})["y"].astype(np.float32) + 128) * 0.5
    found = compare_outputs(done.graph, done.tflite, x, [real.transpose(0, 3, 1, 2)])
    assert found["reference"]["y"].worst == 0


def test_the_onnx_shape_of_a_tensor_stored_otherwise(model):
    assert onnx_shape(convert(model).graph.tensors["x"]) == (1, 1, 5, 5)
    assert onnx_shape(convert(model).graph.tensors["y"]) == (1, 2, 2, 2)


def test_a_single_operator_is_a_model_of_its_own(model):
    graph = convert(model).graph
    alone = single(graph, graph.nodes[1])
    assert (alone.inputs, alone.outputs) == (graph.nodes[0].outputs, ("y",))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, r"input 'x': is not among the arrays given \(none\)"),
        ({"x": np.zeros((4, 5, 5, 1))}, r"input 'x': has shape \(4, 5, 5, 1\) .* the model takes \(1, 1, 5, 5\)"),
        ({"x": np.zeros((0, 1, 5, 5))}, r"has shape \(0, 1, 5, 5\)"),
        ({"x": np.full((1, 1, 5, 5), np.nan)}, "holds NaN or infinity"),
        ({"x": np.array(["a"])}, r"has shape \(1,\)"),
    ],
    ids=["missing", "layout", "empty", "nan", "text"],
)
def test_inputs_that_do_not_fit_are_refused(model, inputs, text):
    done = convert(model)
    with pytest.raises(BridgeError, match=text):
        verify(model, done.graph, done.tflite, inputs)


def test_a_model_that_gives_a_single_number_can_be_verified(tmp_path):
    path = tmp_path / "scalar.onnx"
    pairs = dict.fromkeys("xy", Pair(0.5))
    onnx.save(
        qdq_model(("ReduceMean", "x", "y", {"keepdims": 0}), inputs={"x": (1, 2)}, pairs=pairs, outputs="y"), path
    )
    done = convert(path)
    found = verify(path, done.graph, done.tflite, {"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert found.outputs["reference"]["y"].count == 2


def test_inputs_of_different_length_are_refused(tmp_path):
    path = tmp_path / "two.onnx"
    pairs = dict.fromkeys("xzy", Pair(0.5))
    onnx.save(qdq_model(("Add", "x z", "y"), inputs={"x": (1, 2), "z": (1, 2)}, pairs=pairs, outputs="y"), path)
    done = convert(path)
    arrays = {"x": np.zeros((2, 2), np.float32), "z": np.zeros((3, 2), np.float32)}
    with pytest.raises(BridgeError, match="hold different numbers of samples"):
        verify(path, done.graph, done.tflite, arrays)


def test_a_file_that_the_runtime_refuses_is_reported_with_its_words(model):
    graph = convert(model).graph
    broken = replace(graph, nodes=(Node("MEAN", "m", ("x",), ("y",)),))
    from bridge.exact.writer import write

    with pytest.raises(BridgeError, match=r"\.tflite: LiteRT refuses the model on its reference kernels: .*MEAN"):
        Runner(write(broken), "reference")
