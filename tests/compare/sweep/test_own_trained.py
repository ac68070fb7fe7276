"""A team's own network in a sweep: every seed and qconfig by its own loop, held against what it says itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bridge.errors import BridgeError
from compare.sweep import own_trained, store
from compare.sweep.__main__ import app
from compare.sweep.plan import OWN_LOOP, Wanted, tasks
from compare.sweep.summary import summarise

RUNNER = CliRunner()
NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
"""
LOOP = """
import torch
from torch import nn

def fit(model):
    images, labels = torch.randn(24, 1, 8, 8), torch.arange(24) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
"""


@pytest.fixture(autouse=True)
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("swept_net.py").write_text(NET)
    Path("swept_loop.py").write_text(LOOP)
    images = np.random.default_rng(0).standard_normal((9, 1, 8, 8)).astype(np.float32)
    np.savez("samples.npz", input=images, labels=np.arange(9) % 3)
    return tmp_path


def wanted(**changes: object) -> Wanted:
    facts = {"model": "swept_net:make", "inputs": "samples.npz", "train": "swept_loop:fit", "routes": ("*exact",)}
    return Wanted(seeds=(0, 1), **(facts | changes))  # type: ignore[arg-type]


def test_a_seed_and_a_qconfig_are_a_task_and_the_float_network_is_one() -> None:
    planned = tasks(wanted(networks=("fbgemm",)))
    assert [(task.seed, task.network, task.artifacts) for task in planned] == [
        (seed, *each)
        for seed in (0, 1)
        for each in (
            ("own/float", ("torch-ort-exact/float",)),
            ("own/fbgemm", ("torch-exact/fbgemm", "torch-int8-exact/fbgemm")),
        )
    ]
    assert {task.preset for task in planned} == {OWN_LOOP}
    assert len({task.identity("digest") for task in planned}) == len(planned)


def test_other_samples_or_another_loop_are_other_work() -> None:
    first = own_trained.digest("swept_net:make", "swept_loop:fit", Path("samples.npz"))
    Path("swept_loop.py").write_text(LOOP + "\n# longer\n")
    second = own_trained.digest("swept_net:make", "swept_loop:fit", Path("samples.npz"))
    np.savez("samples.npz", input=np.ones((9, 1, 8, 8)), labels=np.arange(9) % 3)
    assert len({first, second, own_trained.digest("swept_net:make", "swept_loop:fit", Path("samples.npz"))}) == 3


def test_a_module_that_is_not_there_and_samples_without_labels_are_refused() -> None:
    with pytest.raises(BridgeError, match="has no module 'no_such_loop' here"):
        own_trained.digest("swept_net:make", "no_such_loop:fit", Path("samples.npz"))
    np.savez("bare.npz", input=np.ones((9, 1, 8, 8)))
    with pytest.raises(BridgeError, match="has no labels"):
        own_trained.digest("swept_net:make", "swept_loop:fit", Path("bare.npz"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "swept_net:make"], "belong together"),
        (["--train", "swept_loop:fit"], "belong together"),
        (["--model", "swept_net:make", "--inputs", "samples.npz"], "a sweep is over trainings"),
        (["--model", "swept_net:make", "--inputs", "samples.npz", "--models", "a.onnx"], "both name models"),
        (
            ["--model", "swept_net:make", "--inputs", "samples.npz", "--train", "swept_loop:fit", "--qconfigs", "nope"],
            "matches no qconfig",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], said: str) -> None:
    done = RUNNER.invoke(app, [*options, "--dry-run"])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


@pytest.mark.slow
def test_a_real_sweep_imports_from_where_it_was_started_and_has_intervals() -> None:
    options = ["--model", "swept_net:make", "--inputs", "samples.npz", "--train", "swept_loop:fit", "--seeds", "0-1"]
    done = RUNNER.invoke(app, [*options, "--qconfigs", "tflite", "--routes", "torch-exact", "--out", "swept"])
    assert done.exit_code == 0, done.output
    assert [row["status"] for row in store.read(Path("swept")).to_pylist()] == ["measured", "measured"], done.output
    assert "torch-exact/tflite" in Path("swept/summary.md").read_text()


@pytest.mark.slow
def test_rows_have_the_figures_that_intervals_are_made_of(tmp_path: Path) -> None:
    digest = own_trained.digest("swept_net:make", "swept_loop:fit", Path("samples.npz"))
    rows = []
    for task in tasks(wanted(networks=("tflite",), routes=("torch-exact",))):
        for row in own_trained.rows_of(task, digest, tmp_path / "cache"):
            facts = {"model": task.model, "preset": task.preset, "seed": task.seed, "network": task.network}
            rows.append({**row, **facts, "toolchain": task.toolchain, "route": "torch-exact", "made_with": "it"})
    assert [row["status"] for row in rows] == ["measured", "measured"]
    (line,) = summarise(rows).artifacts
    assert (line.name, line.preset, line.seeds) == ("torch-exact/tflite", OWN_LOOP, 2)
    assert line.worst_lsb <= 1.01
    assert summarise(rows).own == ()
