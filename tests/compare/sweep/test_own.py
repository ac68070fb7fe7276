"""Models that were trained elsewhere: an ONNX file with its samples beside it, under the toolchains of a sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper
from typer.testing import CliRunner

from bridge.errors import BridgeError
from compare.mismatches.parts.models import conv_relu, samples
from compare.sweep import own, store
from compare.sweep.__main__ import app
from compare.sweep.plan import Wanted, tasks

RUNNER = CliRunner()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A quantized convolution in a file called `net.onnx`, samples and labels beside it."""
    path = tmp_path / "net.onnx"
    path.write_bytes(conv_relu())
    np.savez(path.with_suffix(".npz"), x=samples(5), labels=np.arange(5))
    return path


def wanted(*models: str, **changes: tuple[str, ...]) -> Wanted:
    return Wanted(seeds=(0, 1), models=models, **changes)  # type: ignore[arg-type]


def test_seeds_do_not_multiply_a_model_that_is_trained_already(model: Path) -> None:
    found = tasks(wanted(str(model)))
    routes = ("torch-exact", "torch-fake-quant", "torch-onnx2tf", "torch-float-onnx2tf", "torch-ort-exact")
    assert [(task.network, task.seed, task.artifacts) for task in found] == [
        ("own/net", 0, (f"{route}/net",)) for route in routes
    ]


def test_globs_name_many_models_and_every_toolchain_that_takes_them_is_a_task(model: Path) -> None:
    for name in ("b.onnx", "a.onnx"):
        model.with_name(name).write_bytes(model.read_bytes())
        np.savez(model.with_name(name).with_suffix(".npz"), x=samples(5))
    found = tasks(wanted(f"{model.parent}/[ab].onnx", str(model), toolchains=("onnx2tf-1.*", "tf-2.15")))
    assert {Path(task.model).name for task in found} == {"a.onnx", "b.onnx", "net.onnx"}
    assert {task.toolchain for task in found} == {"onnx2tf-1.20", "onnx2tf-1.25", "onnx2tf-1.29-unpinned"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"toolchains": ("tf-2.15",)}, "leave nothing to do"),
        ({"routes": ("keras-qat",)}, "--routes 'keras-qat': matches nothing"),
    ],
)
def test_what_leaves_nothing_is_refused(model: Path, changes: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(BridgeError, match=said):
        tasks(wanted(str(model), **changes))


@pytest.mark.parametrize("name", [".", "/", "..", "nothing.onnx", ""])
def test_what_is_no_file_is_refused_in_a_sentence(model: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(model.parent)
    with pytest.raises(BridgeError, match="is neither 'mnist' nor a file"):
        tasks(wanted(name))


def test_a_name_with_brackets_is_a_file_first(model: Path) -> None:
    odd = model.with_name("net[1].onnx")
    odd.write_bytes(model.read_bytes())
    np.savez(odd.with_suffix(".npz"), x=samples(5))
    assert {Path(task.model).name for task in tasks(wanted(str(odd)))} == {"net[1].onnx"}


def test_a_model_without_samples_is_refused_with_how_to_save_them(model: Path) -> None:
    model.with_suffix(".npz").unlink()
    with pytest.raises(BridgeError, match=r"has no samples beside it \(net.npz\)"):
        tasks(wanted(str(model)))


@pytest.mark.parametrize("arrays", [{}, {"x": np.zeros((0, 4), np.float32)}, {"x": np.full((2, 4), np.nan)}])
def test_samples_that_are_none_are_refused_before_anything_is_done(model: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(model.with_suffix(".npz"), **arrays)
    with pytest.raises(BridgeError, match=r"net\.npz"):
        own.digest(model)


def test_another_weight_beside_the_model_is_another_work(model: Path) -> None:
    """Exporters put large weights into a file of their own; the model's own bytes stay the same then."""
    proto = onnx.load(model)
    external_data_helper.convert_model_to_external_data(proto, location="net.data", size_threshold=0)
    onnx.save(proto, model)
    before = own.digest(model)
    content = bytearray((model.parent / "net.data").read_bytes())
    content[0] ^= 1
    (model.parent / "net.data").write_bytes(content)
    assert own.digest(model) != before


@pytest.mark.slow
def test_a_model_in_two_files_is_swept_resumed_and_summarised(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    external_data_helper.convert_model_to_external_data(proto, location="net.data", size_threshold=0)
    onnx.save(proto, model)
    out = tmp_path / "sweep"
    command = ["--models", str(model), "--out", str(out), "--jobs", "1"]
    first = RUNNER.invoke(app, command)
    assert first.exit_code == 0, first.output
    rows = {row["route"]: row for row in store.read(out).to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "torch-exact": "measured",
        "torch-fake-quant": "measured",
        "torch-onnx2tf": "measured",
        "torch-float-onnx2tf": "measured",
        "torch-ort-exact": "measured",
    }
    assert rows["torch-exact"]["max_lsb"] == 0
    assert rows["torch-exact"]["disagreements"] == 0
    assert rows["torch-exact"]["accuracy"] == rows["torch-exact"]["reference_accuracy"]
    page = (out / "summary.md").read_text()
    assert "## Your own models" in page
    assert "net.onnx" in page
    again = RUNNER.invoke(app, command)
    assert "5 of 5 tasks are done already" in again.output
