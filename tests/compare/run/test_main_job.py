"""The main job, run as a user runs it, on a few hundred digits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compare.subjects.mnist import dataset
from compare.subjects.mnist.data import idx
from tests import waiting

pytestmark = pytest.mark.slow

FEW = (
    "torch-int8-onnx2tf/qat-qnnpack",
    "keras-native/qat/integer-only/concrete",
    "keras-native/baseline/none/concrete",
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of IDX files with 600 training and 200 test digits of the embedded sample."""
    folder = tmp_path_factory.mktemp("digits")
    sample = dataset.load(None)
    for name, images, labels in (
        ("train", sample.train_images[:600], sample.train_labels[:600]),
        ("t10k", sample.test_images[:200], sample.test_labels[:200]),
    ):
        header = np.array([0x803, len(images), 28, 28], ">u4").tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = np.array([0x801, len(labels)], ">u4").tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    assert len(idx.read_images(folder / "t10k-images-idx3-ubyte")) == 200
    return folder


@pytest.fixture(scope="module")
def job(digits, tmp_path_factory):
    """Runs the job with a cache of its own: job(out name, more options) -> (completed process, report folder)."""
    base = tmp_path_factory.mktemp("runs")

    def run(name, *options):
        out = base / name
        only = [word for pattern in FEW for word in ("--only", pattern)]
        command = [sys.executable, "-m", "compare.run", "--data", str(digits), "--preset", "quick", "--json"]
        command += ["--out", str(out), "--cache", str(base / "cache"), *only, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=waiting.LONG, check=False), out

    return run


@pytest.fixture(scope="module")
def first(job):
    return job("first")


def test_it_ends_with_three_report_files_and_every_model(first):
    done, out = first
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"report.json", "report.md", "report.html", "models", "onnx"}
    report = json.loads((out / "report.json").read_text())
    assert [artifact["status"] for artifact in report["artifacts"]] == ["measured"] * len(FEW)
    for artifact in report["artifacts"]:
        assert (out / artifact["file"]).read_bytes()[4:8] == b"TFL3"


def test_stdout_is_the_report_and_nothing_else(first):
    done, out = first
    assert done.stdout == (out / "report.json").read_text()


def test_both_frameworks_start_from_the_same_float_weights(first):
    networks = {network["id"]: network for network in json.loads(first[0].stdout)["networks"]}
    assert networks["torch/float"]["accuracy"] == networks["keras/baseline"]["accuracy"]


def test_what_onnx2tf_lost_is_undone_and_measured_by_the_run_itself(first):
    report = json.loads(first[0].stdout)
    (explanation,) = [each for each in report["explanations"] if each["artifact"].startswith("torch-int8-onnx2tf")]
    (artifact,) = [each for each in report["artifacts"] if each["id"] == explanation["artifact"]]

    causes = {cause["mismatch"]: cause["without"] for cause in explanation["causes"]}
    assert {"M13", "M44"} <= set(causes)
    assert causes["M44"]["accuracy_drop"] < artifact["accuracy_drop"]
    assert explanation["explained"], explanation
    assert explanation["together"]["max_difference_lsb"] <= 1.01


def test_a_second_run_trains_nothing_and_gives_the_same_figures(first, job):
    again, _ = job("again")
    before, after = json.loads(first[0].stdout), json.loads(again.stdout)
    assert all(network["from_cache"] for network in after["networks"])
    for one, other in zip(before["artifacts"], after["artifacts"], strict=True):
        for figure in ("sha256", "accuracy", "disagreements", "max_difference", "size"):
            assert one[figure] == other[figure], (one["id"], figure)


def test_training_again_with_the_same_seed_gives_the_same_figures(first, job):
    again, _ = job("fresh", "--fresh")
    before, after = json.loads(first[0].stdout), json.loads(again.stdout)
    assert not any(network["from_cache"] for network in after["networks"])
    assert [network["accuracy"] for network in before["networks"]] == [n["accuracy"] for n in after["networks"]]
    assert [artifact["sha256"] for artifact in before["artifacts"]] == [a["sha256"] for a in after["artifacts"]]


def test_a_damaged_cache_entry_is_trained_again(first, job):
    cache = first[1].parent / "cache" / "networks"
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    again, _ = job("repaired")
    assert again.returncode == 0
    assert not any(network["from_cache"] for network in json.loads(again.stdout)["networks"])


def test_a_missed_threshold_is_exit_code_1_and_names_the_artifact(job):
    done, _ = job("threshold", "--fail-under", "101")
    assert done.returncode == 1
    assert "is under --fail-under 101 %" in done.stderr


def test_nothing_but_the_report_is_left_in_the_folder_of_runs(first):
    assert not [path for path in Path(first[1]).parent.iterdir() if path.name.startswith(".")]
