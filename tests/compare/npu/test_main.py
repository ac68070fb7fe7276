"""python -m compare.npu: verdicts for a person, for a script, and as a gate; bad files and targets are one error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bridge.errors import BridgeError
from compare.mismatches.parts.models import conv_relu
from compare.npu import Target, targets
from compare.npu.__main__ import app
from tests.compare.npu import vela_files as files

RULES = ("--target", "imx8mp", "--target", "edgetpu")


@pytest.fixture
def run(tmp_path):
    """Runs the command on a file with these bytes."""

    def go(content, *options):
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        return CliRunner().invoke(app, [str(path), "--cache", str(tmp_path / "cache"), *options])

    return go


def test_a_file_that_is_fast_passes_the_gate(run):
    done = run(files.conv(), *RULES)

    assert done.exit_code == 0, done.output
    assert "1 of 1 operators and 100% of the MACs on the fast unit, 0 crossings" in done.stdout
    assert "not confirmed on a board" in done.stdout


def test_a_file_that_is_slow_fails_the_gate_and_says_why(run):
    done = run(files.conv(batch=3), *RULES)

    assert done.exit_code == 1
    assert "cpu-fallback CONV_2D 'y': 'x' has shape (3, 9, 9, 4)" in done.stdout


def test_the_record_is_json_and_nothing_else(run):
    done = run(files.dense(scales=4), "--target", "imx8mp", "--json")

    (record,) = json.loads(done.stdout)
    assert (record["target"], record["passes"], record["operators"][0]["placement"]) == ("imx8mp", False, "npu-slow")
    assert done.exit_code == 1


def test_without_a_target_nothing_is_a_gate(run, monkeypatch):
    monkeypatch.setattr("compare.npu.targets", lambda: tuple(each for each in targets() if each.basis == "rules"))
    done = run(files.dense(scales=4))

    assert done.exit_code == 0
    assert "Google Coral" in done.stdout
    assert "i.MX 8M Plus" in done.stdout


def test_a_target_without_its_software_is_one_line_and_exit_code_2(run, monkeypatch):
    def missing(*_):
        raise BridgeError(
            where="environment 'vela'", problem="cannot be built", remedy="Try again with network access."
        )

    broken = Target("imx93", "i.MX 93", "", "compiled", missing)
    monkeypatch.setattr("compare.npu.target", lambda _: broken)
    done = run(files.conv(), "--target", "imx93")

    assert done.exit_code == 2
    assert "environment 'vela': cannot be built" in done.stderr


def test_the_list_names_every_target():
    done = CliRunner().invoke(app, ["--list"])

    assert done.exit_code == 0
    assert {line.split()[0] for line in done.stdout.splitlines()} == {each.id for each in targets()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "was given no file"),
        (["no-such.tflite"], "cannot be read"),
        (["."], "cannot be read"),
    ],
)
def test_a_missing_file_is_one_error(options, said):
    done = CliRunner().invoke(app, options)

    assert done.exit_code == 2
    assert said in done.stderr


def test_an_unknown_target_lists_the_known_ones(run):
    done = run(files.conv(), "--target", "imx94")

    assert done.exit_code == 2
    assert "is not a known target" in done.stderr
    assert "imx93-lf6.6.3" in done.stderr


def test_damaged_files_are_an_answer_or_one_error_for_every_rule_target(run):
    random, content = np.random.default_rng(0), files.small_network()
    damaged = [content[: random.integers(len(content))] for _ in range(40)]
    for _ in range(80):
        flipped = bytearray(content)
        for place in random.integers(len(content), size=random.integers(1, 9)):
            flipped[place] = random.integers(256)
        damaged.append(bytes(flipped))
    for each in damaged:
        done = run(each, *RULES)
        assert done.exit_code in (0, 1, 2), (done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception


def test_a_model_is_converted_by_the_exact_bridge_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(conv_relu())
    done = CliRunner().invoke(app, ["--model", "model.onnx", "--target", "edgetpu", "--json"])
    assert done.exit_code == 0, done.output
    (verdict,) = json.loads(done.stdout)
    assert [each["op"] for each in verdict["operators"]] == ["CONV_2D"]


def test_a_models_problem_is_one_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    for options in (["--model", "model.onnx"], ["--model", "gone:make"], ["model.tflite", "--model", "model.onnx"]):
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
