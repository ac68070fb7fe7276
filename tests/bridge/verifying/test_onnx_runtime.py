"""ONNX Runtime as the truth: what the file says, and sentences where it cannot be had."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.verifying import onnx_runtime
from tests.builders import Pair, qdq_model, weight


def doubled_and_shifted(shift=1.0, dims=()):
    """y = 2 x + shift, on vectors of two."""
    nodes = [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Add", ["twice", "shift"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    constant = numpy_helper.from_array(np.full(dims, shift, np.float32), "shift")
    graph = helper.make_graph(nodes, "g", [x], [y], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def every_form(model, folder):
    """The model as a file, as bytes, in memory, and as a file whose data lies beside it."""
    onnx.save(model, folder / "whole.onnx")
    beside = onnx.load(folder / "whole.onnx")  # saving empties it
    onnx.save(beside, folder / "split.onnx", save_as_external_data=True, size_threshold=0, location="data.bin")
    assert (folder / "data.bin").exists()
    return [folder / "whole.onnx", model.SerializeToString(), model, folder / "split.onnx"]


def test_every_form_of_a_model_runs_with_and_without_more_outputs(tmp_path):
    x = np.array([[1, -2]], np.float32)
    for model in every_form(doubled_and_shifted(dims=(2,)), tmp_path):
        (y,) = onnx_runtime.session(model).run(None, {"x": x})
        assert_array_equal(y, [[3, -3]])
        y, twice = onnx_runtime.session(model, extra_outputs=("twice", "y")).run(None, {"x": x})
        assert_array_equal(y, [[3, -3]])
        assert_array_equal(twice, [[2, -4]])


def test_the_model_in_memory_is_not_changed():
    model = doubled_and_shifted()
    before = model.SerializeToString()
    onnx_runtime.session(model, extra_outputs=("twice",))
    assert model.SerializeToString() == before


def test_no_optimization_is_on_and_the_threads_are_bounded():
    options = onnx_runtime.session(doubled_and_shifted()).get_session_options()
    assert options.graph_optimization_level.name == "ORT_DISABLE_ALL"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_the_truth_knows_no_int16_lane():
    """Products that saturate the optimized session on processors without VNNI: 2 · 255 · 127 > 32767 (M80)."""
    w = weight("w", np.full((1, 2, 1, 1), 127), [1 / 128])
    model = qdq_model(
        ("Conv", "x w", "y"),
        inputs={"x": (1, 2, 1, 1)}, pairs={"x": Pair(1 / 128, -128), "y": Pair(1 / 32, -128)}, outputs="y", constants=[w],
    )  # fmt: skip
    (y,) = onnx_runtime.session(model).run(None, {"x": np.full((1, 2, 1, 1), 255 / 128, np.float32)})
    assert y.item() == 127 / 32  # 2 · 255 · 127 / 2^14 = 3.953, on a grid of 1/32; saturated it would be 2.0


def test_outputs_join_the_samples_in_their_order():
    session = onnx_runtime.session(doubled_and_shifted(), extra_outputs=("twice",))
    samples = np.arange(6, dtype=np.float32).reshape(3, 2)
    y, twice = onnx_runtime.outputs(session, {"x": samples})
    assert_array_equal(y, 2 * samples + 1)
    assert_array_equal(twice, 2 * samples)


def test_samples_that_do_not_fit_are_a_sentence():
    session = onnx_runtime.session(doubled_and_shifted())
    with pytest.raises(BridgeError, match=r"ONNX Runtime on m\.onnx: .*\n  Pass the samples as the model takes them"):
        onnx_runtime.outputs(session, {"x": np.zeros((4, 7), np.float32)}, where="ONNX Runtime on m.onnx")


def test_a_file_that_is_refused_is_a_sentence_and_nothing_else_is_said(tmp_path, capfd):
    model = doubled_and_shifted()
    model.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BridgeError, match=r"odd\.onnx: ONNX Runtime refuses it: .*NoSuchOperator"):
        onnx_runtime.session(tmp_path / "odd.onnx")
    with pytest.raises(BridgeError, match="ONNX model: ONNX Runtime refuses it"):
        onnx_runtime.session(b"no model at all")
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        BridgeError, match=r"needs onnxruntime, which is not installed\n  Install it with: pip install '\.\[verify\]'"
    ):
        onnx_runtime.session(doubled_and_shifted())


def test_the_users_own_session_is_optimized(tmp_path):
    """Two Q/DQ pairs around a convolution become one integer operator, whatever the processor."""
    w = weight("w", [[[[1]]], [[[2]]]], [0.5, 0.25])
    model = qdq_model(
        ("Conv", "x w", "y"),
        inputs={"x": (1, 1, 4, 4)}, pairs={"x": Pair(0.5), "y": Pair(0.5, -128)}, outputs="y", constants=[w],
    )  # fmt: skip
    onnx_runtime.as_users_make_it(model, optimized=tmp_path / "optimized.onnx")
    assert "QLinearConv" in {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}


def test_importing_it_imports_no_runtime():
    code = (
        "import sys, bridge.verifying.onnx_runtime, bridge.verifying.litert\n"
        "print(sorted({'onnxruntime', 'ai_edge_litert', 'torch', 'tensorflow'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
