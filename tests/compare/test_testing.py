"""The assertions in a team's own tests: nothing that cannot be compared passes, and nothing of the team's is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import bridge
from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from compare.testing import assert_bridge_exact, assert_no_mismatch
from torch_side import network, training

RANDOM = np.random.default_rng(0)
A, B = (RANDOM.normal(size=(6, 4)).astype(np.float32) for _ in "ab")


def pair(nodes, source, target, scale):
    nodes += [
        helper.make_node("QuantizeLinear", [source, scale, "z"], [f"{target}_q"]),
        helper.make_node("DequantizeLinear", [f"{target}_q", scale, "z"], [target]),
    ]


def model(op="Sub", scale=0.03, limit=None):
    """a, b (1, 4) -> op -> y; with `limit` it is a's alone, cut off there."""
    nodes = []
    pair(nodes, "a", "da", "s")
    if limit is None:
        pair(nodes, "b", "db", "s")
    nodes.append(helper.make_node(*(("Clip", ["da", "low", "high"]) if limit else (op, ["da", "db"])), ["f"]))
    pair(nodes, "f", "y", "so")
    constants = {"s": np.float32(0.03), "so": np.float32(2 * scale), "z": np.int8(0)}
    constants |= {"low": np.float32(0), "high": np.float32(limit)} if limit else {}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("a" if limit else "ab")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def files():
    made = model()
    return made.SerializeToString(), convert(made).tflite


def test_inputs_are_told_by_their_names_in_whatever_order_they_are_given(files):
    assert_bridge_exact(*files, {"b": B, "a": A})
    assert_no_mismatch(*files, {"b": B, "a": A})


@pytest.mark.parametrize("assertion", [assert_bridge_exact, assert_no_mismatch])
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "hold no array"),
        ({"a": A, "c": B}, "are called a, c; those of the model: a, b"),
        ({"a": A}, "are called a; those of the model: a, b"),
        ({"a": A[:0], "b": B[:0]}, r"of shape \(0, 4\)"),
        ({"a": A, "b": B * np.nan}, "holds NaN"),
        ({"a": A, "b": np.array(["text"])}, "is <U4"),
        ({"a": A, "b": B[:, :3]}, r"the ONNX model takes \(1, 4\)"),
        ({"a": A, "b": B[:3]}, "other numbers of runs: 'a' for 6, 'b' for 3"),
    ],
)
def test_inputs_that_prove_nothing_are_refused(files, assertion, inputs, said):
    with pytest.raises(BridgeError, match=said):
        assertion(*files, inputs)


@pytest.mark.parametrize("limit", [float("nan"), -1, float("inf")])
def test_a_limit_that_nothing_can_miss_is_refused(files, limit):
    with pytest.raises(BridgeError, match="is no limit"):
        assert_bridge_exact(*files, {"a": A, "b": B}, max_lsb=limit)


def test_what_is_neither_a_model_nor_a_file_is_refused(files, tmp_path):
    for other in (None, 3, model()):
        with pytest.raises(BridgeError, match=r"neither an eager torch\.nn\.Module nor an ONNX file"):
            assert_no_mismatch(other, files[1])
    with pytest.raises(BridgeError, match=r"nowhere\.tflite: cannot be read"):
        assert_no_mismatch(files[0], tmp_path / "nowhere.tflite")


def test_a_float_output_that_never_moves_is_held_against_its_own_size():
    trained, other = model(limit=0.3), model(limit=0.9)
    inputs = {"a": np.full((4, 4), 3, np.float32)}  # the limit, for every sample
    right, wrong = (convert(each, Options(io="float32")).tflite for each in (trained, other))

    assert_bridge_exact(trained.SerializeToString(), right, inputs)
    with pytest.raises(AssertionError, match="more than 1 LSB"):
        assert_bridge_exact(trained.SerializeToString(), wrong, inputs)


def test_infinity_never_passes():
    nodes = []
    pair(nodes, "a", "da", "s")
    nodes += [helper.make_node("Mul", ["da", "large"], ["m"]), helper.make_node("Mul", ["m", "large"], ["y"])]
    constants = {"s": np.float32(0.03), "z": np.int8(0), "large": np.float32(1e30)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(AssertionError, match="the worst inf LSB"):
        assert_bridge_exact(
            made.SerializeToString(), convert(made, Options(allow_float=True)).tflite, {"a": A}, max_lsb=1000
        )


def test_a_torch_model_that_still_observes_is_left_as_it_is_and_its_exact_file_passes(tmp_path):
    net = training.prepare_for_qat(network.build_network(0), "tflite").train()
    images = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    net(images)
    bridge.convert(net, images[:1], tmp_path / "model.tflite")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    brighter = {"input": 4 * images.numpy()}  # beyond every range that training has seen

    assert_bridge_exact(net, tmp_path / "model.tflite", brighter)
    assert_no_mismatch(net, tmp_path / "model.tflite", brighter)

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(
        module.training for module in net.modules() if not isinstance(module, torch.ao.quantization.ObserverBase)
    )
