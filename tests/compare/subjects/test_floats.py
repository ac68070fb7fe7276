"""A QDQ model without its pairs: the same network in float, whoever wrote the pairs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bridge.verifying import onnx_runtime
from compare.mismatches.parts.models import conv_relu
from compare.subjects.floats import without_pairs

X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
WEIGHT = np.array([[64, -32], [16, 8], [-96, 4], [2, 100]], np.int8)


def outputs(model: ModelProto) -> np.ndarray:
    session = onnx_runtime.session(model.SerializeToString())
    (values,) = session.run(None, {model.graph.input[0].name: X})
    return np.asarray(values)


def dense(*, zero_point: int, domain: str = "", clip: bool = False, scale: float = 0.1) -> ModelProto:
    """x (8, 4) -> Q/DQ -> times stored codes -> Q/DQ with this zero point -> y."""
    kind = TensorProto.INT8
    constants = [
        helper.make_tensor("xs", TensorProto.FLOAT, [], [0.03]),
        helper.make_tensor("zero", kind, [], [0]),
        helper.make_tensor("ys", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("yz", kind, [], [zero_point]),
        helper.make_tensor("ws", TensorProto.FLOAT, [2], [0.01, 0.02]),
        helper.make_tensor("wz", kind, [2], [0, 0]),
        numpy_helper.from_array(WEIGHT, "w"),
        helper.make_tensor("low", kind, [], [-100]),
        helper.make_tensor("high", kind, [], [100]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "zero"], ["xq"], domain=domain),
        helper.make_node("DequantizeLinear", ["xq", "xs", "zero"], ["xd"], domain=domain),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1, domain=domain),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "ys", "yz"], ["mq"], domain=domain),
        *([helper.make_node("Clip", ["mq", "low", "high"], ["mc"])] if clip else []),
        helper.make_node("DequantizeLinear", ["mc" if clip else "mq", "ys", "yz"], ["y"], domain=domain),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "dense", [value("x", TensorProto.FLOAT, [8, 4])], [value("y", TensorProto.FLOAT, [8, 2])], constants
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


EXPECTED = X @ (WEIGHT * np.array([0.01, 0.02], np.float32))


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("clip", [False, True])
def test_stored_codes_become_numbers_and_nothing_is_rounded(domain: str, clip: bool) -> None:
    given = dense(zero_point=3, domain=domain, clip=clip)
    before = given.SerializeToString()
    plain = without_pairs(given)
    assert given.SerializeToString() == before
    assert [node.op_type for node in plain.graph.node] == ["MatMul", "Identity"]
    assert [tensor.name for tensor in plain.graph.initializer] == ["wd"]
    np.testing.assert_allclose(outputs(plain), EXPECTED, rtol=1e-5)


def test_codes_that_start_at_zero_were_a_relu() -> None:
    plain = without_pairs(dense(zero_point=-128))
    assert [node.op_type for node in plain.graph.node] == ["MatMul", "Relu"]
    np.testing.assert_allclose(outputs(plain), np.maximum(EXPECTED, 0), rtol=1e-5)


def test_what_is_left_is_a_valid_model_close_to_the_quantized_one() -> None:
    model = onnx.load_from_string(conv_relu())
    plain = without_pairs(model)
    onnx.checker.check_model(plain)
    assert not {node.op_type for node in plain.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
