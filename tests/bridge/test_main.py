"""python -m bridge: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bridge.__main__ import _layouts, app


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
        "quantization": {"scale": 0.5, "zero_point": 0},
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
