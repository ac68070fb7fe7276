"""What a gate stops at: faults and what nothing explains; and what it says of the rest."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import bridge
from benchmarks.foreign_files import exact, reversed_bias, swapped_channels
from bridge.exact.convert import convert
from compare.doctor import app
from compare.explaining.verdict import judge
from compare.subjects.case import Case
from compare.testing import assert_bridge_exact, assert_no_mismatch
from compare.tflite.edit import with_tensors
from compare.tflite.graph import open_tflite
from torch_side import network, training
from torch_side.qconfigs import QCONFIGS

IMAGES = np.random.default_rng(0).random((4, 1, 28, 28), np.float32)


@pytest.fixture(scope="module")
def sound():
    return exact()


def broken(case, mutation, seed=0):
    return replace(case, tflite=with_tensors(case.tflite, mutation(case, np.random.default_rng(seed))))


@pytest.fixture
def files(tmp_path):
    """Writes a case and returns the arguments of the command."""

    def written(case, *, inputs=False):
        (tmp_path / "model.onnx").write_bytes(case.onnx)
        (tmp_path / "model.tflite").write_bytes(case.tflite)
        arguments = [str(tmp_path / "model.onnx"), str(tmp_path / "model.tflite")]
        if inputs:
            np.savez(tmp_path / "inputs.npz", **case.inputs)
            arguments += ["--inputs", str(tmp_path / "inputs.npz")]
        return arguments

    return written


def last_line(output):
    return output.strip().splitlines()[-1]


def test_a_sound_file_passes_and_the_last_line_says_what_was_not_checked(sound, files):
    result = CliRunner().invoke(app, [*files(sound), "--fail"])

    assert result.exit_code == 0, result.output
    assert "741 weights and biases of 4 layers" in result.stdout
    assert "0 places differ" in result.stdout
    assert last_line(result.stdout).startswith("Not checked: ")
    assert "no inputs were given" in last_line(result.stdout)


def test_with_inputs_that_is_no_longer_unchecked(sound, files):
    result = CliRunner().invoke(app, [*files(sound, inputs=True), "--fail"])

    assert result.exit_code == 0, result.output
    assert "no inputs were given" not in result.stdout


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("mutation", [reversed_bias, swapped_channels])
def test_a_broken_file_fails_with_and_without_inputs(sound, files, mutation, inputs):
    result = CliRunner().invoke(app, [*files(broken(sound, mutation), inputs=inputs), "--fail"])

    assert result.exit_code == 1, result.output
    assert "Unexplained, " in result.stdout


def test_without_fail_a_finding_is_a_result(sound, files):
    assert CliRunner().invoke(app, files(broken(sound, reversed_bias))).exit_code == 0


def test_the_record_carries_severities_differences_and_what_was_not_checked(sound, files):
    result = CliRunner().invoke(app, [*files(broken(sound, reversed_bias)), "--json"])

    record = json.loads(result.stdout)
    assert record["fails"]
    assert record["compared"]["layers"] == 4
    assert record["compared"]["same_network"]
    assert [each["kind"] for each in record["differences"]] == ["bias"]
    assert record["differences"][0]["explained_by"] == []
    assert any("no inputs" in each["why"] for each in record["unchecked"])


def test_one_file_alone_passes_and_says_that_it_was_compared_with_nothing(sound, tmp_path):
    (tmp_path / "model.tflite").write_bytes(broken(sound, reversed_bias).tflite)

    result = CliRunner().invoke(app, [str(tmp_path / "model.tflite"), "--fail"])

    assert result.exit_code == 0
    assert "no ONNX or PyTorch model was given to compare with" in last_line(result.stdout)


def test_a_difference_is_explained_only_by_a_fault_whose_repair_removes_it(sound):
    """-128 for a trained -127 is M04, a risk; that it is another code is nothing a gate may let through."""
    weight = next(node for node in sound.file.graph.nodes if node.op == "FULLY_CONNECTED").inputs[1]
    tensor = sound.file.graph.tensors[weight]
    data = tensor.values.copy()
    data.flat[int(data.argmin())] = -128

    verdict = judge(replace(sound, tflite=with_tensors(sound.tflite, {weight: replace(tensor, data=data)})))

    assert [diagnosis.mismatch.id for diagnosis in verdict.found] == ["M04"]
    assert not verdict.faults
    assert [difference.kind for difference in verdict.unexplained] == ["weights"]
    assert verdict.fails


def leaky():
    """x -> Q/DQ -> LeakyRelu -> Q/DQ: where kernel sets round differently (M30), and both are right."""
    made = [
        numpy_helper.from_array(np.array(value, dtype), name)
        for name, value, dtype in (("sx", 0.05, np.float32), ("sy", 0.037, np.float32), ("z", 0, np.int8))
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "z"], ["xc"]),
        helper.make_node("DequantizeLinear", ["xc", "sx", "z"], ["xq"]),
        helper.make_node("LeakyRelu", ["xq"], ["a"], alpha=0.2),
        helper.make_node("QuantizeLinear", ["a", "sy", "z"], ["ac"]),
        helper.make_node("DequantizeLinear", ["ac", "sy", "z"], ["y"]),
    ]
    shape = (1, 4, 8, 8)
    graph = helper.make_graph(
        nodes,
        "leaky",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        made,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_kernels_that_round_differently_are_a_note_and_pass():
    model = leaky()
    inputs = {"x": np.random.default_rng(0).uniform(-6, 6, (16, 4, 8, 8)).astype(np.float32)}
    verdict = judge(Case(onnx=model.SerializeToString(), tflite=convert(model).tflite, inputs=inputs))

    assert [(each.mismatch.id, each.severity) for each in verdict.found] == [("M30", "note")]
    assert not verdict.fails
    assert_no_mismatch(model.SerializeToString(), convert(model).tflite, inputs)


@pytest.mark.parametrize("qconfig", sorted(QCONFIGS))
def test_the_assertions_pass_on_the_bridges_own_file_of_every_qconfig(qconfig, tmp_path):
    model = training.prepare_for_qat(network.build_network(0), qconfig)
    model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    model.apply(torch.ao.quantization.disable_observer).eval()
    bridge.convert(model, IMAGES[:1], tmp_path / "model.tflite")

    verdict = assert_no_mismatch(model, tmp_path / "model.tflite")
    assert verdict.comparison.layers == 2
    assert_no_mismatch(model, tmp_path / "model.tflite", {"input": IMAGES})
    assert_bridge_exact(model, tmp_path / "model.tflite", {"input": IMAGES})

    opened = open_tflite((tmp_path / "model.tflite").read_bytes()).graph
    bias = opened.tensors[next(node for node in opened.nodes if node.op == "CONV_2D").inputs[2]]
    reverse = replace(bias, data=bias.values[::-1].copy())
    with pytest.raises(AssertionError, match="1 unexplained differences"):
        assert_no_mismatch(model, with_tensors((tmp_path / "model.tflite").read_bytes(), {bias.name: reverse}))


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_is_an_answer_or_one_error(sound, seed):
    """One bit of each of sixty copies; never an exception of ours."""
    random = np.random.default_rng(seed)
    for _ in range(60):
        content = bytearray(sound.tflite)
        content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        try:
            judge(Case(onnx=sound.onnx, tflite=bytes(content)))
        except bridge.BridgeError as error:
            assert error.remedy
