"""Files that LiteRT refuses, that end the process, that never answer, that lie: each is a sentence, and a gate stops."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from bridge.errors import BridgeError
from bridge.exact import kernels, writer
from bridge.exact.convert import convert
from bridge.exact.graph import Graph, Node, Tensor
from bridge.exact.schema import OPERATORS, Operator
from bridge.exact.writer import write
from compare.doctor import app
from compare.mismatches.parts.files import activation, codes, tflite_of
from compare.running import trying
from compare.running.trying import run, tried
from compare.testing import assert_bridge_exact, assert_no_mismatch
from compare.tflite.graph import open_tflite
from tests import waiting


def model(batch=1, op="LeakyRelu"):
    """x (batch, 4) at scale 0.5, one activation function, y at scale 0.5."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "half", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "half", "zero"], ["xd"]),
        helper.make_node(op, ["xd"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "half", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "half", "zero"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.float32(0.5), "half"), numpy_helper.from_array(np.int8(0), "zero")]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "one", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def made(op="LEAKY_RELU", source=None, target=None, constants=(), attrs=None):
    """One operator from x to y."""
    x, y = source or activation("x", (1, 4), 0.5), target or activation("y", (1, 4), 0.5)
    names = (x.name, *(each.name for each in constants))
    return tflite_of([Node(op, op, names, (y.name,), attrs or {})], [x, *constants, y], [x.name], [y.name])


def floats(name, shape, dtype=np.float32):
    return Tensor(name, shape, np.dtype(dtype), None, None)


def numbers(name, values):
    data = np.asarray(values, np.int32)
    return Tensor(name, data.shape, data.dtype, data, None)


def with_shape(name, shape):
    graph = open_tflite(convert(model()).tflite).graph
    return write(replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], shape=shape)}))


def unterminated():
    """A name without its closing zero: every reader reads it, LiteRT's verification of bytes refuses it."""
    content = bytearray(made())
    content[content.index(b"x\0\0\0") + 1] = ord("x")
    return bytes(content)


def coarse_sum():
    """x + x at a five-millionth of its scale: ADD's preparation ends the process."""
    x, y = activation("x", (1, 4), 0.5), activation("y", (1, 4), 1e-7)
    return tflite_of([Node("ADD", "sum", ("x", "x"), ("y",), {"fused_activation": "NONE"})], [x, y], ["x"], ["y"])


FAULTY = {
    "an operator refuses its operands": (
        lambda: made("TRANSPOSE", constants=(numbers("perm", [0, 2, 1]),)), "does not run on LiteRT's"
    ),
    "a reshape to another number of elements": (
        lambda: made("RESHAPE", constants=(numbers("shape", [1, 3]),)), "num_input_elements != num_output_elements"
    ),
    "a type that the kernel finds out while it runs": (
        lambda: made("SOFTMAX", floats("x", (1, 4), np.int32), floats("y", (1, 4), np.int32), attrs={"beta": 1.0}),
        "does not run on LiteRT's",
    ),
    "types that do not go together": (
        lambda: made("MUL", constants=(activation("x2", (1, 4), 0.5, dtype=np.uint8),)), "does not run on LiteRT's"
    ),
    "no valid flatbuffer": (unterminated, "not a valid Flatbuffer"),
    "a kernel ends the process": (coarse_sum, "reference kernels: LiteRT ends the process while preparing it (SIGABRT)"),
    "an output of 2^31 elements": (lambda: with_shape("y", (2**31 - 1, 4)), "has more than 1,073,741,824 elements"),
    "an input of 2^31 elements": (lambda: with_shape("x", (2**31 - 1, 4)), "has more than 1,073,741,824 elements"),
    "an output of a negative size": (lambda: with_shape("y", (-1, 4)), "does not run on LiteRT's"),
    "an output of another size": (lambda: with_shape("y", (1000, 4)), "has shape (1000, 4) in the file, and LiteRT"),
    "an input of another size": (lambda: with_shape("x", (3, 4)), "has shape (1, 4) in the file, and LiteRT"),
    "another number of outputs": (
        lambda: write(replace(graph := open_tflite(made()).graph, outputs=(*graph.outputs, "y"))),
        "it has 2 outputs, the model has 1",
    ),
    "another shape, computed": (
        lambda: made("RESHAPE", target=activation("y", (2, 2), 0.5), constants=(numbers("shape", [2, 2]),)),
        "output 'y' has shape (2, 2), that of the model 'y' (1, 4)",
    ),
    "another type": (
        lambda: made(
            "RESHAPE", floats("x", (1, 4), np.int32), floats("y", (1, 4), np.int32), (numbers("shape", [1, 4]),)
        ),
        "input 'x' is of type int32, that of the model 'x' of float",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), FAULTY.values(), ids=list(FAULTY))
def test_a_file_that_does_not_run_as_it_is_written_is_said_and_a_gate_stops(make, said, tmp_path):
    onnx.save(model(), tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(make())
    np.savez(tmp_path / "inputs.npz", x=np.ones((3, 4), np.float32))
    files = [str(tmp_path / name) for name in ("model.onnx", "model.tflite")]
    for given in ([], ["--inputs", str(tmp_path / "inputs.npz")]):
        failing, looking = (CliRunner().invoke(app, [*files, *given, *more]) for more in (["--fail"], []))

        assert failing.exit_code == 1, failing.output
        assert said in failing.stdout
        assert looking.exit_code == 0
    with pytest.raises(AssertionError, match=r"the \.tflite: "):
        assert_no_mismatch(files[0], files[1])
    with pytest.raises(AssertionError, match=r"the \.tflite: "):
        assert_bridge_exact(files[0], files[1], {"x": np.ones((3, 4), np.float32)})


def test_nothing_of_a_strangers_file_runs_in_our_process(tmp_path, monkeypatch):
    """LiteRT is taken away from this process; the doctor does everything it does otherwise."""
    onnx.save(model(), tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(convert(model()).tflite)
    np.savez(tmp_path / "inputs.npz", x=np.ones((3, 4), np.float32))
    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter.__init__", None)
    arguments = [str(tmp_path / "model.onnx"), str(tmp_path / "model.tflite"), "--fail"]

    result = CliRunner().invoke(app, [*arguments, "--inputs", str(tmp_path / "inputs.npz")])

    assert result.exit_code == 0, result.output
    assert "LEAKY_RELU 'y': 0.0 LSB" in result.stdout


@pytest.mark.parametrize("batch", [1, 3])
def test_samples_are_fed_in_runs_of_as_many_as_the_file_takes(batch, tmp_path):
    """3 at a time: M30 compares kernel sets on them too."""
    onnx.save(model(batch), tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(convert(model(batch)).tflite)
    np.savez(tmp_path / "inputs.npz", x=np.linspace(-60, 60, 24, dtype=np.float32).reshape(6, 4))
    arguments = [str(tmp_path / "model.onnx"), str(tmp_path / "model.tflite"), "--fail"]

    result = CliRunner().invoke(app, [*arguments, "--inputs", str(tmp_path / "inputs.npz")])

    assert result.exit_code == 0, result.output


def test_samples_that_are_no_whole_number_of_runs_are_one_error(tmp_path):
    free = model(3)
    free.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    free.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(free, tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(convert(model(3)).tflite)
    np.savez(tmp_path / "inputs.npz", x=np.ones((4, 4), np.float32))

    result = CliRunner().invoke(app, [
        str(tmp_path / "model.onnx"), str(tmp_path / "model.tflite"), "--inputs", str(tmp_path / "inputs.npz"),
    ])  # fmt: skip

    assert result.exit_code == 2, result.output
    assert "no whole number of runs" in result.stderr


def test_a_file_that_runs_has_no_problem_and_its_operands():
    trial = tried(convert(model()).tflite)

    assert trial.problems == ()
    assert [(each.name, each.shape, each.dtype) for each in trial.outputs] == [("y", (1, 4), "int8")]


def slow(layers: int = 100) -> bytes:
    """Float TANHs of four million numbers, which the plain kernels compute one by one."""
    shape = (1, 1 << 22)
    names = [f"t{index}" for index in range(layers + 1)]
    nodes = [Node("TANH", new, (old,), (new,)) for old, new in pairwise(names)]
    return tflite_of(nodes, [floats(name, shape) for name in names], names[:1], names[-1:])


def test_an_output_that_xnnpack_gives_another_size_than_the_file_says_is_said():
    """Its transposed convolution goes by the stride, the built-in one by the output shape that it is given."""
    shape, weight = numbers("shape", [1, 4, 7, 1]), codes("w", np.ones((1, 2, 2, 1)), [0.5], axis=0)
    bias = codes("b", [0], [0.25], axis=0, dtype=np.int32)
    options = {"padding": "VALID", "stride_h": 2, "stride_w": 2, "fused_activation": "NONE"}
    up = Node("TRANSPOSE_CONV", "up", ("shape", "w", "x", "b"), ("u",), options)
    twice = Node("MUL", "twice", ("u", "u"), ("y",), {"fused_activation": "NONE"})
    tensors = [activation("x", (1, 2, 2, 1), 0.5), *(activation(name, (1, 4, 7, 1), 0.5) for name in "uy")]

    assert tried(tflite_of([up, twice], [shape, weight, bias, *tensors], ["x"], ["y"])).problems == (
        "tensor 'y' has shape (1, 4, 7, 1) in the file, and LiteRT's XNNPACK kernels compute (1, 4, 5, 1)",
    )


def test_a_kernel_that_does_not_come_back_is_given_up(monkeypatch):
    monkeypatch.setattr(trying, "_seconds", lambda _graph, _samples: 1)
    monkeypatch.setattr(trying, "KERNEL_SETS", ("builtin",))
    tried.cache_clear()

    assert tried(slow()).problems == (
        "it does not run on LiteRT's built-in kernels: no answer within 1 s of processor time while running it",
    )
    tried.cache_clear()


def test_a_server_that_was_ended_is_started_again():
    content = convert(model()).tflite
    run(content, [np.ones((1, 1, 4), np.int8)])
    process = trying._SERVER._process
    process.kill()
    process.wait()

    (output,) = run(content, [np.full((2, 1, 4), 7, np.int8)])

    assert output.tolist() == [[7, 7, 7, 7]] * 2


def test_a_server_whose_asker_is_killed_does_not_wait_for_its_answer(tmp_path):
    """It may be computing for minutes: nothing of a killed command is left behind."""
    (tmp_path / "slow.tflite").write_bytes(slow(3000))
    request = {
        "model": str(tmp_path / "slow.tflite"), "kernels": "reference", "seconds": 600, "bytes": 1 << 33, "invoke": True,
        "inputs": None, "outputs": None, "wanted": None,
    }  # fmt: skip
    asks = (
        "import json, subprocess, sys, time\n"
        "server = subprocess.Popen([sys.executable, '-I', sys.argv[1]], stdin=subprocess.PIPE, text=True)\n"
        "server.stdin.write(sys.argv[2] + '\\n'); server.stdin.flush()\n"
        "print(server.pid, flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", asks, str(trying.PROGRAM), json.dumps(request)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asker:
        server = psutil.Process(int(asker.stdout.readline()))
        waiting.until(server.children)
        computing = server.children()
        asker.kill()
    _, alive = psutil.wait_procs([server, *computing], timeout=40)
    assert alive == []


def test_a_file_that_does_not_run_is_not_run():
    with pytest.raises(BridgeError, match="ends the process"):
        run(coarse_sum(), [np.zeros((1, 1, 4), np.int8)])


def test_an_operator_that_only_the_reference_kernels_lack_is_no_fault(monkeypatch):
    """ROUND, which TensorFlow's converter writes, runs wherever else LiteRT runs."""
    monkeypatch.setattr(
        writer, "OPERATORS", {**OPERATORS, "ROUND": Operator(116, 1, kernels.MOVED)}
    )  # schema.fbs, BuiltinOperator
    tensors = {name: Tensor(name, (1, 4), np.dtype(np.float32)) for name in "xy"}
    trial = tried(write(Graph((Node("ROUND", "one", ("x",), ("y",)),), tensors, ("x",), ("y",))))
    assert trial.problems == ()
    assert "'ROUND'" in trial.unknown_to_reference
