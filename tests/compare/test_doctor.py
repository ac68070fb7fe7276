"""The doctor on files with and without a mismatch, the drift between two models, the assertions for other teams."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import external_data_helper
from typer.testing import CliRunner

import bridge
from bridge.exact.convert import convert
from bridge.exact.writer import write
from compare.doctor import app
from compare.measuring.drift import drift, trace_onnx, trace_tflite
from compare.mismatches.m33_same_scale import reproduce
from compare.testing import assert_bridge_exact, assert_no_mismatch
from compare.tflite.graph import open_tflite
from torch_side import bias_grid, export, network, training

IMAGES = np.random.default_rng(0).random((6, 1, 28, 28), np.float32)
EXAMPLE = np.zeros((1, 1, 28, 28), np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(ONNX, .tflite) of the MNIST network after a look at noise, converted by the exact bridge."""
    model = training.prepare_for_qat(network.build_network(0), "tflite")
    model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    frozen = export.freeze(model.apply(torch.ao.quantization.disable_observer).eval())
    bias_grid.round_frozen(frozen, (EXAMPLE,))
    path = tmp_path_factory.mktemp("doctor") / "model.onnx"
    export.export_onnx(frozen, EXAMPLE, path)
    converted = path.with_suffix(".tflite")
    converted.write_bytes(convert(path).tflite)
    np.savez(path.with_name("inputs.npz"), input=IMAGES)
    return path, converted


def broken(tflite):
    """The convolution's bias shifted by one channel."""
    graph = open_tflite(tflite).graph
    name = next(node for node in graph.nodes if node.op == "CONV_2D").inputs[2]
    bias = graph.tensors[name]
    moved = replace(bias, data=np.roll(bias.values + np.arange(12, dtype=np.int32) * 5000, 1))
    return write(replace(graph, tensors={**graph.tensors, name: moved}))


def test_an_exact_conversion_has_no_mismatch_and_no_drift(files):
    onnx_file, tflite = files

    result = CliRunner().invoke(
        app, [str(onnx_file), str(tflite), "--inputs", str(onnx_file.with_name("inputs.npz")), "--fail"]
    )

    assert result.exit_code == 0, result.output
    assert "No mismatch of the catalogue was seen." in result.stdout


def test_what_is_seen_is_named_with_its_place_and_its_remedy(tmp_path):
    (tmp_path / "bad.tflite").write_bytes(reproduce().tflite)

    result = CliRunner().invoke(app, [str(tmp_path / "bad.tflite"), "--fail"])

    assert result.exit_code == 1
    assert "M33 different scales around an operator that cannot rescale" in result.stdout
    assert "RESHAPE, tensor 'y'" in result.stdout


def test_costs_are_measured_when_inputs_are_given(tmp_path):
    (tmp_path / "bad.tflite").write_bytes(reproduce().tflite)
    np.savez(tmp_path / "x.npz", x=np.ones((4, 4), np.float32) * np.arange(-20, 20, 10, dtype=np.float32)[:, None])

    result = CliRunner().invoke(app, [str(tmp_path / "bad.tflite"), "--inputs", str(tmp_path / "x.npz"), "--json"])

    (seen,) = json.loads(result.stdout)["mismatches"]
    assert seen["cost"]["differing"] > 0.5


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "a.onnx", "not a readable ONNX file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(8), "a.tflite", "damaged"),
        (None, "none.onnx", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error(tmp_path, content, name, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    result = CliRunner().invoke(app, [str(tmp_path / name)])

    assert result.exit_code == 2
    assert said in result.stderr


def test_drift_names_the_first_layer_that_leaves_the_reference(files):
    onnx_file, tflite = files
    reference = trace_onnx(onnx_file.read_bytes(), {"input": IMAGES})

    same = drift(reference, trace_tflite(tflite.read_bytes(), [IMAGES.transpose(0, 2, 3, 1)]))
    moved = drift(reference, trace_tflite(broken(tflite.read_bytes()), [IMAGES.transpose(0, 2, 3, 1)]))

    assert [layer.op for layer in same.layers] == ["CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED"]
    assert same.guilty() is None
    assert moved.guilty().op == "CONV_2D"
    assert moved.layers[0].sqnr_db < same.layers[0].sqnr_db


def test_two_tflite_files_can_be_compared_too(files):
    content = files[1].read_bytes()
    inputs = [IMAGES.transpose(0, 2, 3, 1)]

    found = drift(trace_tflite(content, inputs), trace_tflite(broken(content), inputs))

    assert found.guilty().op == "CONV_2D"
    assert found.unmatched == ()


def test_the_assertions_pass_on_an_exact_conversion(files):
    onnx_file, tflite = files

    assert_no_mismatch(onnx_file, tflite)
    assert_bridge_exact(onnx_file, tflite, {"input": IMAGES})


def test_weights_in_a_file_of_their_own_are_found(files, tmp_path):
    """What PyTorch's default exporter leaves: model.onnx and model.onnx.data."""
    model = onnx.load(files[0])
    external_data_helper.convert_model_to_external_data(model, location="model.onnx.data", size_threshold=0)
    parted = tmp_path / "model.onnx"
    onnx.save(model, parted)

    assert_no_mismatch(parted, files[1])
    assert_bridge_exact(parted, files[1], {"input": IMAGES})
    assert CliRunner().invoke(app, [str(parted), str(files[1]), "--fail"]).exit_code == 0

    (tmp_path / "model.onnx.data").unlink()
    refused = CliRunner().invoke(app, [str(parted), str(files[1])])
    assert refused.exit_code == 2
    assert "'model.onnx.data' is missing or too short" in " ".join(refused.output.split())


def test_a_failing_assertion_teaches(files):
    onnx_file, tflite = files

    with pytest.raises(AssertionError, match="first layer further away is CONV_2D"):
        assert_bridge_exact(onnx_file, broken(tflite.read_bytes()), {"input": IMAGES})
    with pytest.raises(AssertionError, match="M33 different scales"):
        assert_no_mismatch(onnx.load(onnx_file).SerializeToString(), reproduce().tflite)


def test_a_torch_model_is_a_reference_too(tmp_path):
    model = training.prepare_for_qat(network.build_network(0), "tflite")
    model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    model.apply(torch.ao.quantization.disable_observer).eval()
    bridge.convert(model, EXAMPLE, tmp_path / "model.tflite")

    assert_bridge_exact(model, tmp_path / "model.tflite", {"input": IMAGES})


def test_a_keras_model_is_looked_at_too(tmp_path, monkeypatch):
    (tmp_path / "team_models.py").write_text(
        "from compare.mismatches.m26_partly_annotated import reproduce\n\ndef build():\n    return reproduce().keras_model\n"
    )
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["--keras", "team_models:build", "--json"])

    assert result.exit_code == 0, result.output
    assert "M26" in [seen["id"] for seen in json.loads(result.stdout)["mismatches"]]


@pytest.mark.parametrize("option", ["--model", "--keras"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module:build", "ModuleNotFoundError"),
        ("json:no_such_factory", "AttributeError"),
        ("json:loads", "TypeError"),
    ],
)
def test_a_factory_that_cannot_be_called_is_one_error(option, target, said):
    result = CliRunner().invoke(app, [option, target])

    assert result.exit_code == 2
    assert f"{option} {target}" in result.stderr
    assert said in result.stderr


def test_a_model_by_its_option_is_the_same_as_by_its_place(files):
    onnx_file, tflite = files
    by_place = CliRunner().invoke(app, [str(onnx_file), str(tflite), "--json"])
    by_option = CliRunner().invoke(app, [str(tflite), "--model", str(onnx_file), "--json"])
    assert by_option.exit_code == 0, by_option.output
    assert by_option.stdout == by_place.stdout


def test_the_old_name_of_an_option_is_refused_with_the_new_one():
    result = CliRunner().invoke(app, ["--torch", "team:build"])
    assert result.exit_code == 2
    assert "--torch: is called --model now" in result.stderr


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"input": np.full((2, 1, 28, 28), np.nan, np.float32)}, "holds NaN"),
        ({"input": np.zeros((2, 1, 28, 28), "U3")}, "real, finite numbers"),
        ({"input": np.zeros((0, 1, 28, 28), np.float32)}, "shape (0, 1, 28, 28)"),
        ({"input": np.zeros((2, 3, 5), np.float32)}, "takes (1, 1, 28, 28)"),
    ],
)
def test_inputs_that_do_not_fit_are_one_error(files, tmp_path, arrays, said):
    onnx_file, tflite = files
    np.savez(tmp_path / "x.npz", **arrays)

    result = CliRunner().invoke(app, [str(onnx_file), str(tflite), "--inputs", str(tmp_path / "x.npz")])

    assert result.exit_code == 2, result.output
    assert said in result.stderr.replace("\n", " ")


def test_a_truncated_npz_is_one_error(files, tmp_path):
    np.savez(tmp_path / "x.npz", input=IMAGES)
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-40])

    result = CliRunner().invoke(app, [str(files[0]), "--inputs", str(tmp_path / "x.npz")])

    assert result.exit_code == 2
    assert "not a readable .npz" in result.stderr


@pytest.mark.parametrize("option", ["--inputs", "--calibration"])
def test_an_archive_without_an_array_is_one_error(files, tmp_path, option):
    np.savez(tmp_path / "empty.npz")

    result = CliRunner().invoke(app, [*map(str, files), option, str(tmp_path / "empty.npz"), "--fail"])

    assert result.exit_code == 2
    assert "empty.npz: holds no array" in result.stderr


def test_every_truncation_of_a_tflite_is_an_answer_or_one_error(files, tmp_path):
    content = files[1].read_bytes()
    for length in range(0, len(content), len(content) // 40):
        (tmp_path / "cut.tflite").write_bytes(content[:length])

        result = CliRunner().invoke(app, [str(tmp_path / "cut.tflite")])

        assert result.exit_code in (0, 2), (length, result.output, result.exception)


def test_what_no_entry_explains_is_said_with_the_first_layer(files, tmp_path):
    onnx_file, tflite = files
    (tmp_path / "bad.tflite").write_bytes(broken(tflite.read_bytes()))
    inputs = str(onnx_file.with_name("inputs.npz"))

    result = CliRunner().invoke(app, [str(onnx_file), str(tmp_path / "bad.tflite"), "--inputs", inputs])
    as_json = CliRunner().invoke(app, [str(onnx_file), str(tmp_path / "bad.tflite"), "--inputs", inputs, "--json"])

    assert "Unexplained: first at CONV_2D" in result.stdout
    assert json.loads(as_json.stdout)["unexplained"]["op"] == "CONV_2D"
