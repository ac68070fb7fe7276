"""A square map with as many channels as rows and columns fits both orders of axes: both are tried, and it is said."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.convert import Options, convert
from compare.explaining.verdict import judge
from compare.measuring.feeding import ambiguous, arranged
from compare.measuring.runtimes import save_inputs
from compare.subjects.case import Case
from compare.subjects.model import Form
from compare.testing import assert_bridge_exact, assert_no_mismatch

RANDOM = np.random.default_rng(0)
SIDE = 4
INPUTS = {"x": (RANDOM.normal(size=(6, SIDE, SIDE, SIDE)) * 4).astype(np.float32)}


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


WEIGHTS = np.random.default_rng(1).integers(-127, 128, (SIDE, SIDE, 3, 3))


def convolution():
    """x and y (1, 4, 4, 4): nothing in the sizes says where the channels are."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "z"], ["wd"]),
        helper.make_node("Conv", ["d", "wd", "b"], ["c"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "so", "z"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "so", "z"], ["y"]),
    ]
    constants = [
        constant("s", 0.1), constant("z", 0, np.int8), constant("w", WEIGHTS, np.int8), constant("sw", 0.01),
        constant("b", np.arange(SIDE)), constant("so", 0.5),
    ]  # fmt: skip
    shape = [1, SIDE, SIDE, SIDE]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def case(layout):
    model = convolution()
    return Case(onnx=model.SerializeToString(), tflite=convert(model, Options(layout=layout)).tflite, inputs=INPUTS)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_a_right_file_passes_in_either_order_of_its_inputs(layout):
    given = case(layout)
    assert ambiguous(given) == ("x",)
    wanted = INPUTS["x"].transpose(0, 2, 3, 1) if layout == "nhwc" else INPUTS["x"]
    assert np.array_equal(arranged(given)[0], wanted)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_the_runtimes_of_other_toolchains_are_fed_in_the_order_of_the_file_too(layout, tmp_path):
    given, model, samples = case(layout), tmp_path / "model.onnx", tmp_path / "samples.npz"
    model.write_bytes(given.onnx)

    save_inputs(
        given.tflite, Form(model, np.zeros((6, 1)), 1.0, onnx=True, inputs=INPUTS, calibration={}, kind="qdq"), samples
    )

    with np.load(samples) as saved:
        assert np.array_equal(saved["0"], arranged(given)[0])


def test_the_last_line_says_that_the_order_could_not_be_told_and_which_was_taken():
    verdict = judge(case("nhwc"))
    assert not verdict.fails
    assert max(layer.max_lsb for layer in verdict.traced.layers) <= 1.01
    (said,) = [str(each) for each in verdict.unchecked if "order of axes" in str(each)]
    assert said == (
        "in which order of axes the file is fed with 'x' "
        "(the sizes fit channels first and channels last; compared as channels last)"
    )


def test_a_model_whose_sizes_differ_needs_no_guess():
    model = convolution()
    given = Case(onnx=model.SerializeToString(), tflite=case("nhwc").tflite, inputs={"x": np.ones((6, 4, 5, 6))})
    assert ambiguous(given) == ()


def test_assertions_hold_for_a_right_file_and_fail_for_another_one(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(convolution().SerializeToString())
    right, wrong = (tmp_path / name for name in ("right.tflite", "wrong.tflite"))
    right.write_bytes(case("nhwc").tflite)
    turned = convolution()
    turned.graph.initializer[2].CopyFrom(constant("w", WEIGHTS.transpose(0, 1, 3, 2), np.int8))
    wrong.write_bytes(convert(turned).tflite)
    assert_bridge_exact(path, right, INPUTS)
    assert_no_mismatch(path, right, INPUTS)
    with pytest.raises(AssertionError, match="more than 1 LSB"):
        assert_bridge_exact(path, wrong, INPUTS)
    with pytest.raises(AssertionError):
        assert_no_mismatch(path, wrong, INPUTS)


def test_two_inputs_of_one_shape_are_told_apart_by_the_names_that_tensorflow_makes_of_theirs():
    """It lists them in another order; swapped, the file would be called wrong."""
    names = ("serving_default_right_x:0", "serving_default_left_x:0")
    given = {"left/x": np.zeros((2, 3), np.float32), "right/x": np.ones((2, 3), np.float32)}

    class Named(Case):
        file = SimpleNamespace(
            graph=SimpleNamespace(inputs=names, tensors={name: SimpleNamespace(shape=(1, 3)) for name in names})
        )

    first, second = arranged(Named(inputs=given))
    assert (first == 1).all()
    assert (second == 0).all()


@pytest.mark.parametrize(("taken", "turned"), [((1, 3, 5), False), ((1, 5, 3), True)])
def test_a_sequence_is_turned_where_the_file_takes_channels_last(taken, turned):
    class Sequence(Case):
        file = SimpleNamespace(graph=SimpleNamespace(inputs=("x",), tensors={"x": SimpleNamespace(shape=taken)}))

    array = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    (found,) = arranged(Sequence(inputs={"x": array}))
    assert np.array_equal(found, array.transpose(0, 2, 1) if turned else array)
