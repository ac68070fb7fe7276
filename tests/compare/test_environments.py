"""Environments of other tools: built once, never half, with the resolver's own reason when they cannot be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare import environments
from compare.environments import Environment, ensure

TOOL = Environment("tool", ("tool==1.0",))


def wheel(folder: Path) -> Path:
    """A package of one line, installable without any index."""
    path = folder / "trivial-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("trivial.py", "ANSWER = 42\n")
        file.writestr("trivial-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: trivial\nVersion: 1.0\n")
        file.writestr("trivial-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("trivial-1.0.dist-info/RECORD", "")
    return path


def builds(monkeypatch: pytest.MonkeyPatch, seconds: float = 0) -> list[Path]:
    """Builds in name only; the list grows by one folder with each."""
    done: list[Path] = []

    def build(_: Environment, folder: Path, cache: Path) -> None:  # noqa: ARG001 - as it is called
        done.append(folder)
        python = folder / "bin" / "python"
        python.parent.mkdir(parents=True)
        threading.Event().wait(seconds)
        python.touch()

    monkeypatch.setattr(environments, "_build", build)
    return done


@pytest.mark.slow
def test_an_environment_has_its_packages_and_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "trivial.py").write_text("ANSWER = 0\n")  # what lies on our path does not count

    python = ensure(Environment("trivial", (str(wheel(tmp_path)),)), tmp_path / "cache")

    said = subprocess.run(
        [python, "-I", "-c", "import trivial; print(trivial.ANSWER)"], capture_output=True, check=True
    )
    assert said.stdout.strip() == b"42"
    assert subprocess.run([python, "-I", "-c", "import numpy"], capture_output=True, check=False).returncode == 1


@pytest.mark.slow
def test_without_a_network_the_error_has_the_resolvers_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)

    with pytest.raises(BridgeError, match=r"127\.0\.0\.1:9/simple/tool") as caught:
        ensure(TOOL, tmp_path)

    assert "tool==1.0" in caught.value.where
    assert "network" in caught.value.remedy


def test_an_environment_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = builds(monkeypatch)
    assert ensure(TOOL, tmp_path) == ensure(TOOL, tmp_path)
    assert len(done) == 1


def test_other_pins_are_another_environment_and_their_order_is_none(tmp_path: Path) -> None:
    folders = [
        Environment("tool", pins).folder(tmp_path) for pins in (("a==1", "b==2"), ("b==2", "a==1"), ("a==2", "b==2"))
    ]
    assert folders[0] == folders[1] != folders[2]


def test_what_was_left_half_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = builds(monkeypatch)
    half = TOOL.folder(tmp_path)
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    (half / "rubbish").touch()

    ensure(TOOL, tmp_path)

    assert len(done) == 1
    assert not (half / "rubbish").exists()


def test_one_whose_interpreter_is_gone_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = builds(monkeypatch)
    python = ensure(TOOL, tmp_path)
    python.unlink()
    python.symlink_to(tmp_path / "an interpreter that was removed")

    assert ensure(TOOL, tmp_path).exists()
    assert len(done) == 2


def test_two_at_once_build_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = builds(monkeypatch, seconds=0.2)
    both = [threading.Thread(target=ensure, args=(TOOL, tmp_path)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(done) == 1


def test_a_full_disk_is_said_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = builds(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(BridgeError, match="needs 500 MB of disk, 1 MB are free"):
        ensure(TOOL, tmp_path)
    assert not done


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "environments").touch()  # a file where the folder should be
    with pytest.raises(BridgeError, match="cannot be written"):
        ensure(TOOL, tmp_path)


def test_a_build_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "BUILD_SECONDS", 0.01)
    with pytest.raises(BridgeError, match=r"took longer than 0\.01 s"):
        ensure(TOOL, tmp_path)


def test_another_python_and_another_date_are_other_environments(tmp_path: Path) -> None:
    pins = ("a==1",)
    folders = {
        Environment("tool", pins, python, as_of).folder(tmp_path)
        for python in ("3.10", "3.11")
        for as_of in (None, "2024-01-01")
    }
    assert len(folders) == 4


def test_what_is_kept_is_listed_with_its_size_and_whether_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds(monkeypatch)
    folder = ensure(TOOL, tmp_path).parents[1]
    (folder / "package").write_bytes(b"x" * 1000)
    (tmp_path / "environments" / "half-made").mkdir()

    found = {each.folder.name: each for each in environments.kept(tmp_path)}

    assert found[folder.name].complete
    assert found[folder.name].bytes == 1000
    assert not found["half-made"].complete


def test_a_file_with_two_names_takes_its_place_once(tmp_path: Path) -> None:
    wheels, package = tmp_path / "uv" / "wheel", tmp_path / "environments" / "tool" / "package"
    for path in (wheels, package):
        path.parent.mkdir(parents=True)
    wheels.write_bytes(b"x" * 100_000)
    os.link(wheels, package)
    assert 100_000 <= environments.disk_bytes(tmp_path) < 150_000


def test_pruning_keeps_what_is_wanted_and_what_is_being_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds(monkeypatch)
    other, building = Environment("other", ("b==1",)), Environment("building", ("c==1",))
    for each in (TOOL, other):
        ensure(each, tmp_path)
    with environments._alone(building.folder(tmp_path), 0):
        building.folder(tmp_path).mkdir()
        removed = environments.prune([TOOL], tmp_path)
        assert [each.folder for each in removed] == [other.folder(tmp_path)]
        assert building.folder(tmp_path).exists()
    assert environments.is_built(TOOL, tmp_path)


@pytest.mark.slow
def test_the_versions_are_those_of_the_date(tmp_path: Path) -> None:
    """By the index: numpy 1.26.4 was the newest on that day."""
    python = ensure(Environment("dated", ("numpy",), as_of="2024-03-01"), tmp_path)
    said = subprocess.run(
        [python, "-I", "-c", "import numpy; print(numpy.__version__)"], capture_output=True, check=True
    )
    assert said.stdout.strip() == b"1.26.4"
