"""The command line: usage, exit codes, and what is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from compare.report.records.run import from_json, to_json
from compare.run import __main__ as run
from tests import interrupts, waiting


def job(*options, cwd=None):
    command = [sys.executable, "-m", "compare.run", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(run.__file__).parents[2])}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=waiting.LONG, check=False, cwd=cwd, env=environment
    )


def refused(*options, cwd=None):
    done = job(*options, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_help_is_instant_and_imports_no_framework():
    code = "import sys; import compare.run.__main__; print({'torch', 'tensorflow', 'matplotlib', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert job("--help").returncode == 0


def test_the_list_names_every_artifact():
    lines = job("--list").stdout.splitlines()
    assert "torch-int8-onnx2tf/qat-fbgemm" in lines
    assert "keras-native/qat-dense/float16/keras" in lines


@pytest.mark.parametrize("options", [("--preset", "fast"), ("--init", "jax"), ("--seed", "-1"), ("--nonsense",)])
def test_wrong_usage_is_exit_code_2(options):
    refused(*options)


def test_a_glob_without_a_match_is_refused(tmp_path):
    assert "matches no artifact" in refused("--only", "nothing", cwd=tmp_path)


def test_an_existing_folder_is_never_written_over(tmp_path):
    (tmp_path / "old").mkdir()
    assert "exists already" in refused("--out", str(tmp_path / "old"), "--quick")


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("--out", str(tmp_path / "file" / "report"), "--quick")


def test_a_damaged_data_folder_is_refused_by_file_name_before_any_training(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x01")
    message = refused("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert str(tmp_path) in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_folder_and_says_so(tmp_path):
    options = ("--quick", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    process = interrupts.start("compare.run", *options, stderr=subprocess.PIPE)
    own = psutil.Process(process.pid)
    waiting.until(lambda: process.poll() is not None or (list(tmp_path.glob(".out.*.part")) and own.children()))
    interrupts.interrupt(process)
    output, errors = process.communicate(timeout=waiting.LONG)
    assert process.returncode == 130, errors
    assert "Interrupted: no report was written." in output
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_ended_leaves_no_worker_behind(tmp_path, number, code):
    options = ("--quick", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    process = interrupts.start("compare.run", *options, stderr=subprocess.PIPE)
    own, started = psutil.Process(process.pid), []

    def at_work():
        started[:] = own.children(recursive=True)
        return process.poll() is not None or len(started) >= 3  # a lane each for torch, Keras and onnx2tf

    waiting.until(at_work)
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=waiting.LONG)
    assert process.returncode == code
    waiting.until(lambda: not [each for each in started if _is_alive(each)])


def _is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cache_that_cannot_be_used_is_refused_before_any_training(tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("--cache", str(tmp_path / "file" / "cache"), "--out", str(tmp_path / "out"), "--quick")
    assert "cannot be used (Not a directory)" in message
    assert "Name another one with --cache" in message
    assert not (tmp_path / "out").exists()


def test_only_measured_artifacts_can_miss_the_threshold(realistic):
    assert run._missed(realistic, None) == []
    assert run._missed(realistic, 0) == []
    missed = run._missed(realistic, 101)
    assert len(missed) == sum(artifact.accuracy is not None for artifact in realistic.artifacts)


def test_a_record_survives_json_and_one_of_another_version_is_refused(realistic):
    assert from_json(to_json(realistic)) == realistic
    with pytest.raises(ValueError, match="schema_version"):
        from_json(to_json(realistic).replace('"schema_version": 1', '"schema_version": 2'))


@pytest.fixture
def realistic():
    from dataclasses import replace

    from compare.report.records.run import DataRecord, RunRecord
    from tests.compare.explaining.test_claims_and_findings import NETWORKS, artifact

    failed = replace(artifact("a/failed", "keras/qat"), status="failed", accuracy=None)
    return RunRecord(
        schema_version=1,
        started="2026-01-01T00:00:00Z",
        seconds=1.0,
        command="python -m compare.run",
        preset="quick",
        settings={"seed": 0},
        versions={},
        machine={},
        data=DataRecord("tiny", "made up", "0", 1, 1),
        networks=tuple(NETWORKS),
        artifacts=(artifact("a/b", "keras/qat"), failed),
        findings=(),
        claims=(),
    )
