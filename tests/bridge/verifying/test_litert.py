"""LiteRT's interpreter: the kernel set that was asked for, and sentences where it cannot be had."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.graph import Node
from bridge.exact.writer import write
from bridge.verifying import litert
from tests.builders import activation, graph_of


def threefold() -> bytes:
    x, y, z = (activation(name, (1, 2), 0.5) for name in "xyz")
    nodes = [Node("ADD", "a", ("x", "x"), ("y",)), Node("ADD", "b", ("y", "x"), ("z",))]
    return write(graph_of(nodes, [x, y, z], ["z"]))


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_bytes_and_files_run_on_every_kernel_set(tmp_path, kernels):
    path = tmp_path / "model.tflite"
    path.write_bytes(threefold())
    for model in (threefold(), path):
        ready = litert.interpreter(model, kernels)
        ready.set_tensor(ready.get_input_details()[0]["index"], np.array([[-3, 40]], np.int8))
        ready.invoke()
        assert_array_equal(ready.get_tensor(ready.get_output_details()[0]["index"]), [[-9, 120]])
        delegated = "DELEGATE" in {node["op_name"] for node in ready._get_ops_details()}
        assert delegated == (kernels == "xnnpack")


def test_what_operators_hand_each_other_is_kept_on_demand():
    ready = litert.interpreter(threefold(), "builtin", keep_tensors=True)
    ready.set_tensor(ready.get_input_details()[0]["index"], np.array([[-3, 40]], np.int8))
    ready.invoke()
    (between,) = [detail["index"] for detail in ready.get_tensor_details() if detail["name"] == "y"]
    assert_array_equal(ready.get_tensor(between), [[-6, 80]])


@pytest.mark.parametrize("content", [b"TFL3", b"\x1c\x00\x00\x00TFL3" + bytes(64)], ids=["short", "zeros"])
@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_a_file_that_is_refused_is_a_sentence_with_litert_s_reason(kernels, content):
    with pytest.raises(BridgeError, match=rf"^head: LiteRT refuses the model on its {kernels} kernels: \w") as caught:
        litert.interpreter(content, kernels, where="head")
    assert isinstance(caught.value.__cause__, RuntimeError | ValueError)
    with pytest.raises((RuntimeError, ValueError)):
        litert.as_users_make_it(content, kernels)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "empty.tflite").touch()
    for model in (b"", tmp_path / "empty.tflite"):
        with pytest.raises(BridgeError, match=r"^\.tflite: is empty\n"):
            litert.interpreter(model)


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(
        BridgeError,
        match=r"needs ai-edge-litert, which is not installed\n  Install it with: pip install '\.\[verify\]'",
    ):
        litert.interpreter(threefold())
