"""The command, on a small model of one's own and with the toolchain that is here anyway."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from compare.mismatches.parts.models import conv_relu, samples
from compare.report.records.versions import VersionsRecord, from_json
from compare.toolchains import environments
from compare.toolchains.environments import Environment
from compare.versions.__main__ import app
from tests import interrupts, waiting

RUNNER = CliRunner()


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """The options that name a small QDQ model and its samples."""
    (tmp_path / "model.onnx").write_bytes(conv_relu())
    np.savez(tmp_path / "samples.npz", x=samples(8))
    return ["--model", str(tmp_path / "model.onnx"), "--inputs", str(tmp_path / "samples.npz")]


def read(out: Path) -> VersionsRecord:
    return from_json((out / "versions.json").read_text())


def test_a_model_of_ones_own_goes_its_routes_and_leaves_three_reports(tmp_path: Path, model: list[str]) -> None:
    out = tmp_path / "out"
    done = RUNNER.invoke(
        app, [*model, "--toolchains", "current", "--routes", "torch-exact", "--target", "edgetpu", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    (cell,) = read(out).cells
    assert (cell.id, cell.status) == ("current/torch-exact", "clean")
    assert [run.runtime for run in cell.runs] == ["current"]
    assert cell.runs[0].max_lsb == 0  # it is the reference itself
    assert cell.placements[0].target == "edgetpu"
    assert (out / cell.file).read_bytes()[4:8] == b"TFL3"  # type: ignore[operator]
    views = ["versions.html", "versions.json", "versions.md"]
    assert sorted(path.name for path in out.iterdir()) == ["model", "models", *views]
    assert "What to take" in done.output


def test_labels_among_the_samples_give_accuracies_by_the_metric_that_says_how(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's output is a map: without a metric nothing in it is right or wrong."""
    monkeypatch.chdir(tmp_path)
    Path("task_of_labels.py").write_text("def some(outputs, labels):\n    return 0.25 + labels.mean()\n")
    np.savez(tmp_path / "samples.npz", x=samples(8), labels=np.zeros(8, np.int64))
    arguments = [*model, "--toolchains", "current", "--routes", "torch-exact"]
    for options, accuracy in (([], None), (["--metric", "task_of_labels:some"], 0.25)):
        out = tmp_path / f"out-{len(options)}"
        done = RUNNER.invoke(app, [*arguments, *options, "--out", str(out)])
        assert done.exit_code == 0, done.output
        record = read(out)
        assert record.cells[0].runs[0].accuracy == accuracy
        assert record.routes[0].accuracy == accuracy


@pytest.mark.slow
def test_runtimes_of_several_years_are_asked_and_refusals_explained(tmp_path: Path, model: list[str]) -> None:
    """Two small environments, built for real: one of which has a NumPy that its runtime does not know."""
    arguments = [*model, "--toolchains", "current", "--toolchains", "tflite-runtime-*", "--routes", "torch-exact"]
    done = RUNNER.invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    (cell,) = read(tmp_path / "out").cells
    by_runtime = {run.runtime: run for run in cell.runs}
    assert by_runtime["tflite-runtime-2.14"].problem is None
    refused = by_runtime["tflite-runtime-2.14-unpinned"]
    assert [cause.id for cause in refused.causes] == ["M71"]
    assert cell.status == "clean"  # a runtime that runs nothing says nothing about a file
    assert "runs none of the files" in read(tmp_path / "out").notes[-1]


def test_a_toolchain_that_cannot_be_built_is_a_row_with_the_resolvers_reason(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(environment: Environment, *_: object) -> None:
        raise environments._not_built(environment, "tensorflow==2.15.0 was not found")

    monkeypatch.setattr(environments, "_build", no_network)
    arguments = [*model, "--toolchains", "current", "--toolchains", "onnx2tf-1.20", "--routes", "torch-*"]
    done = RUNNER.invoke(
        app, [*arguments, "--cache", str(tmp_path / "cache"), "--routes", "torch-exact", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    record = read(tmp_path / "out")
    assert "tensorflow==2.15.0 was not found" in str(record.toolchains[1].problem)
    by_id = {cell.id: cell for cell in record.cells}
    assert by_id["onnx2tf-1.20/torch-onnx2tf"].problem == "its toolchain could not be built"
    assert by_id["current/torch-exact"].status == "clean"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--toolchains", "caffe"], "matches no toolchain"),
        (["--routes", "torch-magic"], "matches no route"),
        (["--model", "model.onnx"], "belong together"),
        (["--target", "tpu-v9"], "is not a known target"),
        (["--qconfig", "fbgem"], "is not known"),
    ],
)
def test_a_wrong_word_is_refused_in_a_sentence_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    refused = RUNNER.invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert said in refused.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 7), np.float32)}, "ONNX Runtime on model.onnx"),
        ({"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}, "has no array 'x'"),
        ({"x": samples(4), "labels": np.zeros(3)}, "different numbers of samples"),
        ({"x": np.full((4, 2, 6, 6), np.nan, np.float32)}, "NaN"),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused(
    tmp_path: Path, model: list[str], arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "samples.npz", **arrays)  # type: ignore[arg-type]
    refused = RUNNER.invoke(app, [*model, "--toolchains", "current", "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert said in refused.output
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, model: list[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    refused = RUNNER.invoke(app, [*model, "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert "model.onnx" in refused.output


def test_a_report_is_never_overwritten(tmp_path: Path, model: list[str]) -> None:
    (tmp_path / "out").mkdir()
    refused = RUNNER.invoke(app, [*model, "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert "exists already" in refused.output


def test_the_list_says_what_is_built_and_what_it_takes(tmp_path: Path) -> None:
    said = RUNNER.invoke(app, ["--list", "--cache", str(tmp_path)], terminal_width=200).output
    assert "onnx2tf-1.20" in said
    assert "not built" in said
    assert "0 MB on the disk" in said


def test_pruning_removes_what_nothing_uses_and_keeps_the_rest(tmp_path: Path) -> None:
    old = tmp_path / "environments" / "tf-1.0-0123456789ab"
    (old / "bin").mkdir(parents=True)
    (old / "bin" / "tool").write_bytes(b"x" * 3_000_000)
    said = RUNNER.invoke(app, ["--prune", "--cache", str(tmp_path)]).output
    assert "removed tf-1.0-0123456789ab (3 MB)" in said
    assert not old.exists()


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_ctrl_c_ends_quietly_and_leaves_no_process_and_no_report(tmp_path: Path, model: list[str]) -> None:
    process = interrupts.start("compare.versions", *model, "--toolchains", "current", "--out", str(tmp_path / "out"))
    own, started = psutil.Process(process.pid), []

    def at_work():
        started[:] = own.children(recursive=True)
        return process.poll() is not None or any("worker.py" in " ".join(_words(each)) for each in started)

    waiting.until(at_work)
    interrupts.interrupt(process)
    said, _ = process.communicate(timeout=waiting.LONG)
    assert process.returncode == 130
    assert "no report was written" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    _, alive = psutil.wait_procs(started, timeout=waiting.LONG)
    assert alive == []
