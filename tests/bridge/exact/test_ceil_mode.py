import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bridge.errors import BridgeError
from bridge.exact.ceil_mode import settle_ceil_mode
from bridge.exact.convert import Options, convert
from bridge.verifying import onnx_runtime
from tests.builders import Pair, qdq_model


def pool(size: tuple[int, int], op: str = "MaxPool", **attrs: object) -> onnx.NodeProto:
    """The pool node after settling, on an input (1, 1, *size)."""
    node = helper.make_node(op, ["x"], ["y"], "pool", ceil_mode=1, **attrs)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, *size))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]))
    settle_ceil_mode(model, lambda: {"x": (1, 1, *size)})
    return model.graph.node[0]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def test_a_pool_that_inference_gets_right_is_left_alone():
    settled = pool((6, 6), kernel_shape=[3, 3], strides=[2, 2])  # windows at 0, 2, 4: the last one hangs over
    assert attributes(settled)["ceil_mode"] == 1


def test_a_window_that_would_start_in_the_padding_is_left_out():
    settled = pool((4, 4), kernel_shape=[1, 2], strides=[2, 2], pads=[0, 1, 0, 1])
    # Rows at 0, 2 (4 is left out); columns at -1, 1, 3 without ceil_mode, so that nothing hangs over.
    assert attributes(settled)["ceil_mode"] == 0
    assert attributes(settled)["pads"] == [0, 1, 0, 1]


def test_where_one_axis_leaves_out_and_the_other_hangs_over_the_padding_says_so():
    settled = pool((4, 6), kernel_shape=[1, 3], strides=[2, 2])  # rows 0, 2; columns 0, 2, 4 with one beyond
    assert attributes(settled)["ceil_mode"] == 0
    assert attributes(settled)["pads"] == [0, 0, 0, 1]


def test_an_average_that_counts_some_of_its_padding_only_is_refused():
    with pytest.raises(BridgeError, match="counts its own padding but not what ceil_mode adds"):
        pool((4, 6), op="AveragePool", kernel_shape=[1, 3], strides=[2, 2], count_include_pad=1)


def test_auto_pad_same_needs_no_ceil_mode():
    settled = pool((5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    assert attributes(settled)["ceil_mode"] == 0


def test_a_settled_pool_has_the_shape_that_onnx_runtime_computes():
    pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    for _ in range(60):
        size = tuple(int(n) for n in random.integers(3, 9, 2))
        kernel, strides = ([int(n) for n in random.integers(1, 4, 2)] for _ in range(2))
        pads = [int(random.integers(0, (k + 1) // 2)) for k in kernel * 2]
        attrs = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, *size))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        shapes = []
        for node in (helper.make_node("MaxPool", ["x"], ["y"], "pool", ceil_mode=1, **attrs), pool(size, **attrs)):
            model = helper.make_model(
                helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
            )
            made = onnx_runtime.session(model).run(None, {"x": np.zeros((1, 1, *size), np.float32)})[0]
            shapes.append(made.shape)
        inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
        assert shapes[0] == shapes[1] == tuple(d.dim_value for d in inferred.dim), attrs


def test_shapes_in_the_file_that_came_from_that_inference_are_inferred_anew():
    attrs = {"kernel_shape": [1, 2], "strides": [2, 2], "pads": [0, 1, 0, 1], "ceil_mode": 1}
    model = qdq_model(
        ("MaxPool", "x", "p", attrs),
        ("Relu", "p", "y"),
        inputs={"x": (1, 1, 4, 4)},
        pairs={"x": Pair(0.5)},
        outputs="y",
    )
    # What onnx from 1.17 on infers before opset 22: it counts a window that starts in the padding.
    said = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 3, 3))
    model.graph.output[0].CopyFrom(said)
    assert convert(model, Options(layout="nchw")).graph.tensors["y"].shape == (1, 1, 2, 3)
