"""What a sweep consists of, and when two tasks are the same work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare.run.matrix import plan
from compare.sweep.plan import Task, Wanted, tasks
from compare.toolchains import Toolchain, toolchains

QUICK = Wanted(seeds=(0, 1), networks=("fbgemm", "qnnpack"), presets=("quick",))


def test_without_globs_a_seed_makes_every_artifact_of_the_main_job_once() -> None:
    found = tasks(Wanted(seeds=(3,)))
    assert sorted(artifact for task in found for artifact in task.artifacts) == sorted(item.id for item in plan())
    assert {task.seed for task in found} == {3}


def test_seeds_presets_and_networks_multiply_and_whole_seeds_come_first() -> None:
    found = tasks(replace(QUICK, presets=("quick", "article")))
    assert len(found) == 2 * 2 * 2
    assert [(task.preset, task.seed) for task in found[:4]] == [("quick", 0), ("quick", 0), ("quick", 1), ("quick", 1)]


@pytest.mark.parametrize("name", ["qnnpack", "qat-qnnpack", "torch/qat-qnnpack", "*qnnpack"])
def test_a_network_has_several_names(name: str) -> None:
    assert {task.network for task in tasks(replace(QUICK, networks=(name,)))} == {"torch/qat-qnnpack"}


def test_routes_leave_out_artifacts_and_tasks_without_any() -> None:
    found = tasks(replace(QUICK, networks=("qnnpack", "keras/qat"), routes=("torch-exact",), seeds=(0,)))
    assert [(task.network, task.artifacts) for task in found] == [("torch/qat-qnnpack", ("torch-exact/qat-qnnpack",))]


def test_other_toolchains_go_their_own_routes() -> None:
    found = tasks(replace(QUICK, networks=("qnnpack", "keras/qat"), seeds=(0,), toolchains=("onnx2tf-1.25", "tf-2.17")))
    assert [(task.toolchain, task.network, task.artifacts) for task in found] == [
        ("onnx2tf-1.25", "torch/qat-qnnpack", ("torch-onnx2tf/qat-qnnpack", "torch-int8-onnx2tf/qat-qnnpack")),
        ("tf-2.17", "keras/qat", ("keras-qat/qat", "keras-qat-legacy/qat")),
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"networks": ("fbgem",)}, r"--qconfigs 'fbgem': matches nothing"),
        ({"routes": ("keras-*",)}, r"--routes 'keras-\*': matches nothing"),
        ({"presets": ("slow",)}, "--presets 'slow': matches nothing"),
        ({"models": ("resnet50",)}, "--models 'resnet50': is neither 'mnist' nor a file"),
        ({"toolchains": ("tf-1*",)}, "matches no toolchain"),
    ],
)
def test_what_matches_nothing_is_refused_with_what_there_is(wrong: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(BridgeError, match=said) as caught:
        tasks(replace(QUICK, **wrong))  # type: ignore[arg-type]
    assert "There " in caught.value.remedy


def test_the_same_work_has_the_same_address_and_any_difference_another() -> None:
    task = tasks(QUICK)[0]
    others = [replace(task, seed=5), replace(task, preset="article"), replace(task, artifacts=task.artifacts[:1])]
    assert task.identity("a" * 64) == Task(**vars(task)).identity("a" * 64)
    assert len({each.identity("a" * 64) for each in (task, *others)} | {task.identity("b" * 64)}) == 5


def test_a_changed_package_is_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from compare.sweep import plan as planning

    task = tasks(QUICK)[0]
    before = task.identity("a" * 64)
    planning.made_with.cache_clear()
    monkeypatch.setattr(planning, "version", lambda _: "9.9")
    try:
        assert task.identity("a" * 64) != before
    finally:
        planning.made_with.cache_clear()


@pytest.mark.parametrize("toolchain", toolchains(), ids=lambda each: each.id)
def test_every_toolchain_has_an_address_that_follows_its_lock_and_not_where_that_lies(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compare.sweep import plan as planning

    task = replace(tasks(QUICK)[0], toolchain=toolchain.id)
    before = task.identity("a" * 64)
    if toolchain.environment() is None:
        return
    moved = replace(toolchain, lock=tmp_path / "elsewhere.txt")
    monkeypatch.setattr(planning, "matching", lambda _: (moved,))
    moved.lock.write_bytes(toolchain.lock.read_bytes())
    assert task.identity("a" * 64) == before
    moved.lock.write_text("another==1.0 --hash=sha256:00\n")
    assert task.identity("a" * 64) != before
