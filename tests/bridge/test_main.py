"""python -m bridge: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bridge.__main__ import _layouts, app
from bridge.exact.graph import Node
from tests.builders import Pair, qdq_model, weight


@pytest.fixture
def model(tmp_path):
    """x -> Q/DQ -> Relu -> Q/DQ -> y, float32 (1, 2, 3, 3)."""
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "s"),
        numpy_helper.from_array(np.array(128, np.uint8), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"], name="limit"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    shape = [1, 2, 3, 3]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx"
    )
    return tmp_path / "model.onnx"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_file_is_written_beside_the_model_and_the_summary_says_what_was_done(model):
    result = run(model)

    assert result.exit_code == 0
    assert model.with_suffix(".tflite").read_bytes()[4:8] == b"TFL3"
    assert "RELU 1" in result.stdout
    assert "takes x int8 [1, 3, 3, 2] N,H,W,C, scale 0.5, zero point 0" in result.stdout


def test_json_is_one_record_with_operators_and_parameters(model, tmp_path):
    result = run(model, "-o", tmp_path / "out.tflite", "--json", "--layout", "nchw")

    said = json.loads(result.stdout)
    assert said["operators_out"] == {"RELU": 1}
    assert said["inputs"]["x"] == {
        "shape": [1, 2, 3, 3],
        "axes": [0, 1, 2, 3],
        "layout": "as in the model",
        "dtype": "int8",
        "quantization": {"scale": 0.5, "zero_point": 0, "codes": [-128, 127]},
    }


@pytest.mark.parametrize(
    ("said", "shapes"),
    [
        ([], ([1, 3, 3, 2], [1, 3, 3, 2])),
        (["nchw"], ([1, 2, 3, 3], [1, 2, 3, 3])),
        (["x=nchw"], ([1, 2, 3, 3], [1, 3, 3, 2])),
        (["x=nhwc,y=nchw"], ([1, 3, 3, 2], [1, 2, 3, 3])),
        (["nchw,x=nhwc"], ([1, 3, 3, 2], [1, 2, 3, 3])),
        (["y=nchw", "x=nhwc"], ([1, 3, 3, 2], [1, 2, 3, 3])),
    ],
)
def test_the_layout_is_said_of_everything_or_by_name(model, tmp_path, said, shapes):
    options = [part for text in said for part in ("--layout", text)]
    made = json.loads(run(model, "-o", tmp_path / "out.tflite", "--json", *options).stdout)
    assert (made["inputs"]["x"]["shape"], made["outputs"]["y"]["shape"]) == shapes


def test_a_name_in_a_layout_may_hold_commas_and_equal_signs():
    assert _layouts(["a,b=c=nchw,d=nhwc", "nchw"]) == ("nchw", {"a,b=c": "nchw", "d": "nhwc"})


def test_verification_reports_equal_outputs_and_passes_the_gate(model, tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 3)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", x=x)

    result = run(model, "--verify", tmp_path / "inputs.npz", "--max-lsb", 0)

    assert result.exit_code == 0
    assert "xnnpack   y: 100.0000% equal, worst 0 LSB" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--verify", "missing.npz"], "missing.npz: is not a readable .npz archive"),
        (["--layout", "ncwh"], "--layout ncwh: is not nhwc, nchw, or NAME=nhwc"),
        (["--layout", "x=nhwc", "--layout", "x=nchw"], "says nhwc and nchw of x"),
        (
            ["--layout", "image=nchw"],
            "layout image=nchw: is not about an input or output of this model\n  Its inputs: x",
        ),
        (["--input-shape", "x=1,a"], "--input-shape x=1,a: is not NAME=number"),
        (["--input-shape", "nobody=1,2"], "is not an input of this model"),
    ],
)
def test_wrong_usage_is_one_error_with_exit_code_2_and_no_file(model, arguments, said):
    result = run(model, *arguments)

    assert result.exit_code == 2
    assert said in result.stderr
    assert not model.with_suffix(".tflite").exists()


def test_the_model_is_never_overwritten(model):
    before = model.read_bytes()

    result = run(model, "-o", model)

    assert result.exit_code == 2
    assert model.read_bytes() == before


def test_a_pickle_is_not_unpacked(model, tmp_path):
    np.save(tmp_path / "inputs.npy", np.array([{"x": 1}], dtype=object))

    result = run(model, "--verify", tmp_path / "inputs.npy")

    assert result.exit_code == 2
    assert "archive of plain arrays" in result.stderr


def test_a_cold_start_imports_no_framework(model, tmp_path):
    watched = (
        "import sys; from bridge.__main__ import _layouts, app; app(sys.argv[1:], standalone_mode=False);"
        "print(sorted({'torch', 'tensorflow', 'onnxruntime'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", watched, str(model), "-o", str(tmp_path / "o.tflite")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.stdout.splitlines()[-1] == "[]"


# --verify -----------------------------------------------------------------------------------------------------------


def classifier(path, scale=0.5, sign=1, softmax=True):
    """x -> Q/DQ -> Gemm -> Q/DQ -> Softmax -> y, which no pair follows: probabilities, float32 (1, 3)."""
    w = weight("w", np.eye(3, 4, dtype=int) * 100 * sign, 0.02)
    steps = [("Gemm", "x w", "g", {"transB": 1}), ("Softmax", "g", "y", {"axis": 1})]
    pairs = {"x": Pair(0.05), "g": Pair(scale)}
    made = qdq_model(
        *steps if softmax else steps[:1], inputs={"x": (1, 4)}, pairs=pairs, outputs="y" if softmax else "g",
        constants=[w],
    )  # fmt: skip
    onnx.save(made, path)
    return path


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "inputs.npz", x=np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32) * 3)
    return tmp_path / "inputs.npz"


@pytest.fixture
def wrong_file(monkeypatch):
    """Every file is written with weights that are negative where they were positive."""
    from bridge.exact import convert

    def broken(graph):
        tensors = {
            name: replace(tensor, data=-tensor.data) if name.startswith("w") and tensor.dtype == np.int8 else tensor
            for name, tensor in graph.tensors.items()
        }
        return write(replace(graph, tensors=tensors))

    write = convert.write
    monkeypatch.setattr(convert, "write", broken)


IO_AND_FLOAT = [
    ("int8", ()), ("uint8", ()), ("float32", ()), ("int8", ("--allow-float",)), ("float32", ("--allow-float",)),
]  # fmt: skip


@pytest.mark.parametrize(("io", "more"), IO_AND_FLOAT)
@pytest.mark.parametrize("softmax", [True, False], ids=["probabilities", "logits"])
@pytest.mark.parametrize("limit", [("--max-lsb", 2), ("--max-diff", 0.05)], ids=["lsb", "diff"])
def test_a_wrong_file_misses_a_limit_in_every_type_of_output_and_a_right_one_does_not(
    io, more, softmax, limit, tmp_path, npz, request
):
    model = classifier(tmp_path / "model.onnx", softmax=softmax)
    arguments = (model, "--io", io, *more, "--verify", npz, *limit)

    right = run(*arguments)
    assert (right.exit_code, right.stderr.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "")) == (
        0,
        "",
    )

    request.getfixturevalue("wrong_file")
    wrong = run(*arguments)
    assert wrong.exit_code == 1
    assert f"more than {limit[0]} {limit[1]}" in wrong.stderr


@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_what_is_verified_is_the_file_that_is_written(io, tmp_path, npz, monkeypatch):
    """A fault at its border is not in the int8 file that could be verified in its place."""
    from bridge.exact import convert

    def with_a_fault(graph, dtype):
        bordered = with_io(graph, dtype)
        if dtype == "int8":
            return bordered
        *others, last = bordered.nodes
        inner = replace(bordered.tensors["g"], name="fault")
        nodes = (*others, replace(last, outputs=("fault",)), Node("MINIMUM", "m", ("fault", "limit"), ("g",)))
        limit = replace(inner, name="limit", shape=(), data=np.array(0 if dtype == "float32" else 128, inner.dtype))
        return replace(bordered, nodes=nodes, tensors={**bordered.tensors, "fault": inner, "limit": limit})

    with_io = convert.with_io
    monkeypatch.setattr(convert, "with_io", with_a_fault)
    model = classifier(tmp_path / "model.onnx", softmax=False)
    assert run(model, "--verify", npz, "--max-lsb", 1).exit_code == 0
    assert run(model, "--verify", npz, "--max-lsb", 1, "--io", io).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-lsb", 1], "--max-lsb: limits what --verify measures, and --verify is not there"),
        (["--max-diff", 0.1], "--max-diff: limits what --verify measures, and --verify is not there"),
        (["--kernels", "reference"], "--kernels reference: limits what --verify measures, and --verify is not there"),
        (["--verify", "NPZ", "--max-lsb", -1], "--max-lsb -1: is no limit"),
        (["--verify", "NPZ", "--max-diff", "nan"], "--max-diff nan: is no limit"),
        (["--verify", "NPZ", "--max-diff", 2], "--max-diff 2.0: is no limit: it takes a fraction from 0 to 1"),
    ],
)
def test_limits_that_limit_nothing_are_refused_before_anything_is_done(arguments, said, model, npz):
    result = run(model, *(npz if each == "NPZ" else each for each in arguments))

    assert result.exit_code == 2
    assert said in result.stderr
    assert not model.with_suffix(".tflite").exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.zeros((1, 4), np.float32)}, r"input 'x': is not among the arrays given (z)"),
        ({"x": np.zeros((0, 4), np.float32)}, "input 'x': has shape (0, 4)"),
        ({"x": np.zeros((2, 5), np.float32)}, "input 'x': has shape (2, 5)"),
        ({"x": np.float32(3)}, "input 'x': has shape ()"),
        ({"x": np.full((1, 4), np.nan, np.float32)}, "input 'x': holds NaN or infinity"),
        ({"x": np.full((1, 4), 1e300)}, "input 'x': holds NaN or infinity, as float32"),
        ({"x": np.zeros((1, 4), bool)}, "and type bool"),
        ({"x": np.zeros((1, 4), complex)}, "and type complex128"),
        ({"x": np.array([["a"] * 4])}, "and type <U1"),
        ({"x": np.array([[None] * 4], object)}, "is not a readable .npz archive of plain arrays"),
        ({"x": np.zeros((1, 4), "datetime64[s]")}, "and type datetime64"),
    ],
    ids=["name", "empty", "shape", "number", "nan", "overflow", "bool", "complex", "text", "object", "date"],
)
def test_arrays_that_are_no_inputs_are_one_sentence_and_no_file(arrays, said, tmp_path):
    model = classifier(tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **arrays)

    result = run(model, "--verify", tmp_path / "inputs.npz")

    assert result.exit_code == 2
    assert said in result.stderr
    assert not model.with_suffix(".tflite").exists()


def test_the_record_has_the_baseline_and_what_training_did_not_decide_and_is_plain_json(tmp_path, npz):
    result = run(classifier(tmp_path / "model.onnx"), "--verify", npz, "--json")

    said = json.loads(result.stdout)["verification"]
    assert set(said["outputs"]) == {"xnnpack", "reference"}
    assert said["baseline"]["y"]["count"] == said["outputs"]["xnnpack"]["y"]["count"] == 60
    assert said["rounded"] == ["y"]  # TFLite prescribes the scale of a softmax
    assert said["guilty"] == []


def test_each_kernel_set_decides_unless_one_is_named(tmp_path):
    """A mean of two codes: the reference kernel rounds its ties another way than XNNPACK and the reference do."""
    pairs = {"x": Pair(0.5), "y": Pair(0.5)}
    made = qdq_model(("ReduceMean", "x", "y", {"axes": [1]}), inputs={"x": (1, 2)}, pairs=pairs, outputs="y")
    onnx.save(made, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", x=np.array([[a, b] for a in range(-6, 7) for b in range(-6, 7)], np.float32) / 2)
    apart = {}
    for kernels in ("both", "xnnpack", "reference"):
        arguments = ["--verify", tmp_path / "inputs.npz", "--kernels", kernels, "--json"]
        said = json.loads(run(tmp_path / "model.onnx", *arguments).stdout)["verification"]["outputs"]
        apart[kernels] = {name: outputs["y"]["worst_lsb"] for name, outputs in said.items()}
    assert apart["both"] == {**apart["xnnpack"], **apart["reference"]}
    assert set(apart["xnnpack"]) == {"xnnpack"}
    for kernels, worst in apart.items():
        code = run(tmp_path / "model.onnx", "--verify", tmp_path / "inputs.npz", "--kernels", kernels, "--max-lsb", 0)
        assert code.exit_code == (1 if max(worst.values()) else 0)
