"""Environments of other tools: built once, never half, with the resolver's own reason when they cannot be built."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare.running import locks
from compare.toolchains import environments
from compare.toolchains.environments import _CUDA, Environment, ensure

AS_OF = "2026-01-01"
HERE = environments.this_python()


def locked(folder: Path, name: str, pins: tuple[str, ...], packages: tuple[locks.Package, ...] = ()) -> Environment:
    """An environment of these pins with a lock of these packages; without any, with a lock that is not to be installed."""
    path = folder / f"{name}.lock.txt"
    lines = "".join(f"{each.line}\n" for each in packages)
    path.write_text(locks.head(name, pins, HERE, AS_OF) + lines)
    return Environment(name, pins, path, HERE, AS_OF)


@pytest.fixture
def tool(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    package = locks.Package("tool", "1.0", (f"sha256:{'0' * 64}",))
    return locked(tmp_path_factory.mktemp("locks"), "tool", ("tool==1.0",), (package,))


def wheel(folder: Path, name: str = "trivial", version: str = "1.0", needs: str = "") -> locks.Package:
    """A package of one line, installable without any index."""
    folder.mkdir(exist_ok=True)
    path, facts = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "ANSWER = 42\n")
        file.writestr(f"{facts}/METADATA", metadata + (f"Requires-Dist: {needs}\n" if needs else ""))
        file.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{facts}/RECORD", "")
    return package(path, name, version)


BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    import tool_that_builds
    name = "sourced-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as file:
        file.writestr("sourced.py", f"ANSWER = {tool_that_builds.ANSWER}\\n")
        file.writestr("sourced-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: sourced\\nVersion: 1.0\\n")
        file.writestr("sourced-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr("sourced-1.0.dist-info/RECORD", "")
    return name
"""
SOURCE = {
    "pyproject.toml": '[project]\nname = "sourced"\nversion = "1.0"\n'
    '[build-system]\nrequires = ["tool_that_builds"]\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "PKG-INFO": "Metadata-Version: 2.2\nName: sourced\nVersion: 1.0\n",
}


def source(folder: Path) -> locks.Package:
    """A package that has no wheel and needs another to be built."""
    path = folder / "sourced-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name, text in SOURCE.items():
            entry = tarfile.TarInfo(f"sourced-1.0/{name}")
            entry.size = len(text.encode())
            file.addfile(entry, io.BytesIO(text.encode()))
    return package(path, "sourced", "1.0")


def package(path: Path, name: str, version: str) -> locks.Package:
    return locks.Package(name.replace("_", "-"), version, (f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows of packages."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def packages_in(python: Path) -> set[str]:
    return {path.name.split("-")[0] for path in python.parents[1].glob("lib/*/site-packages/*.dist-info")}


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


def test_an_environment_has_its_packages_and_nothing_of_ours(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "trivial.py").write_text("ANSWER = 0\n")  # what lies on our path does not count

    python = ensure(locked(tmp_path, "tool", ("trivial",), (wheel(index),)), tmp_path / "cache")

    said = subprocess.run(
        [python, "-I", "-c", "import trivial; print(trivial.ANSWER)"], capture_output=True, check=True
    )
    assert said.stdout.strip() == b"42"
    assert subprocess.run([python, "-I", "-c", "import numpy"], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(("position", "variable"), [(0, None), (1, "UV_NO_VERIFY_HASHES"), (2, None)])
def test_a_file_with_another_hash_stops_the_build_with_a_sentence(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch, position: int, variable: str | None
) -> None:
    """Whichever package it is, its wheel already in uv's cache or not, whatever uv's own variables say."""
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    real = [wheel(index, name) for name in ("one", "two", "three")]
    pins = tuple(map(str, real))
    ensure(locked(tmp_path, "good", pins, tuple(real)), tmp_path / "cache")
    real[position] = replace(real[position], hashes=("sha256:" + "ab" * 32,))

    for cache in (tmp_path / "cache", tmp_path / "empty"):
        environment = locked(tmp_path, "bad", pins, tuple(real))
        with pytest.raises(BridgeError, match=rf"package {real[position]}: is not installed: the file that came has"):
            ensure(environment, cache)
        assert not environments.is_built(environment, cache)


def test_a_package_that_the_lock_does_not_have_is_not_installed_and_its_absence_is_said(
    tmp_path: Path, index: Path
) -> None:
    wheel(index, "behind")
    environment = locked(tmp_path, "tool", ("front",), (wheel(index, "front", needs="behind"),))
    with pytest.raises(BridgeError, match=r"is incomplete: .*requires `behind`"):
        ensure(environment, tmp_path / "cache")


def test_nothing_is_built_but_what_has_no_wheel_and_that_with_the_locks_own_tools(tmp_path: Path, index: Path) -> None:
    packages = (source(index), wheel(index, "tool_that_builds"))
    named = locked(tmp_path, "tool", ("sourced", "tool-that-builds"), packages)

    with pytest.raises(BridgeError, match=r"sourced==1\.0 has no (usable )?wheels"):
        ensure(named, tmp_path / "cache")

    python = ensure(replace(named, from_source=("sourced",)), tmp_path / "cache")
    said = subprocess.run(
        [python, "-I", "-c", "import sourced; print(sourced.ANSWER)"], capture_output=True, check=True
    )
    assert said.stdout.strip() == b"42"


def test_a_source_with_another_hash_is_not_built(tmp_path: Path, index: Path) -> None:
    packages = (replace(source(index), hashes=("sha256:" + "cd" * 32,)), wheel(index, "tool_that_builds"))
    environment = replace(locked(tmp_path, "tool", ("sourced",), packages), from_source=("sourced",))
    with pytest.raises(BridgeError, match=r"package sourced==1\.0: is not installed"):
        ensure(environment, tmp_path / "cache")


def test_the_public_build_of_torch_is_held_against_its_hash(tmp_path: Path, index: Path) -> None:
    packages = (wheel(index, "torch", "2.0"), wheel(index, "nvidia_cudnn"), wheel(index, "trivial"))
    environment = locked(tmp_path, "tool", ("torch==2.0",), packages)
    assert packages_in(ensure(environment, tmp_path / "cache")) == {"torch", "nvidia_cudnn", "trivial"}
    wrong = (replace(packages[0], hashes=("sha256:" + "ef" * 32,)), *packages[1:])
    with pytest.raises(BridgeError, match=r"package torch==2\.0: is not installed"):
        ensure(locked(tmp_path, "tool", ("torch==2.0",), wrong), tmp_path / "cache")


def test_a_build_of_torch_of_the_machines_own_has_no_hash_and_everything_else_has(tmp_path: Path, index: Path) -> None:
    public = locks.Package("torch", "2.0", ("sha256:" + "12" * 32,))
    cuda = locks.Package("nvidia-cudnn", "1.0", ("sha256:" + "34" * 32,))  # not to be had here, and not needed
    wheel(index, "torch", "2.0+cpu", needs="trivial")
    trivial = wheel(index, "trivial")

    python = ensure(locked(tmp_path, "tool", ("torch==2.0",), (public, cuda, trivial)), tmp_path / "cache")

    assert packages_in(python) == {"torch", "trivial"}
    wrong = (public, cuda, replace(trivial, hashes=("sha256:" + "56" * 32,)))
    with pytest.raises(BridgeError, match=r"package trivial==1\.0: is not installed"):
        ensure(locked(tmp_path, "tool", ("torch==2.0",), wrong), tmp_path / "cache")


def test_beside_torchvision_it_is_the_public_build_that_torchvision_was_made_for(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = tmp_path / "main"
    packages = (wheel(main, "torch", "2.0"), wheel(main, "torchvision"))
    wheel(index, "torch", "2.0+cpu")
    monkeypatch.setattr(environments.uv, "main_index", lambda: ["--no-index", "--find-links", str(main)])

    python = ensure(locked(tmp_path, "tool", ("torch==2.0", "torchvision"), packages), tmp_path / "cache")

    found = {path.name for path in python.parents[1].glob("lib/*/site-packages/*.dist-info")}
    assert found == {"torch-2.0.dist-info", "torchvision-1.0.dist-info"}


def test_what_the_cuda_build_of_torch_needs_is_told_from_other_packages_of_its_maker():
    pinned = (Path(__file__).parents[3] / "requirements" / "cuda.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in pinned if not line.startswith("#")}
    assert names
    assert all(_CUDA.match(name) for name in names)
    assert not any(
        _CUDA.match(name) for name in ("nvidia-modelopt", "nvidia-ml-py", "torch", "cudart-free", "tritonclient")
    )


def test_another_hash_is_another_environment(tmp_path: Path) -> None:
    folders = [
        locked(tmp_path, "tool", ("a==1",), (locks.Package("a", "1", (f"sha256:{digit * 64}",)),)).folder(tmp_path)
        for digit in "aba"
    ]
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.slow
def test_without_a_network_the_error_has_the_resolvers_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)

    with pytest.raises(BridgeError, match=r"127\.0\.0\.1:9/simple/tool") as caught:
        ensure(tool, tmp_path)

    assert "tool==1.0" in caught.value.where
    assert "network" in caught.value.remedy


def test_an_environment_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment) -> None:
    done = builds(monkeypatch)
    assert ensure(tool, tmp_path) == ensure(tool, tmp_path)
    assert len(done) == 1


def test_other_pins_are_another_environment_and_their_order_is_none(tmp_path: Path) -> None:
    folders = [
        locked(tmp_path, "tool", pins).folder(tmp_path)
        for pins in (("a==1", "b==2"), ("b==2", "a==1"), ("a==2", "b==2"))
    ]
    assert folders[1] != folders[2]
    one = locked(tmp_path, "tool", ("a==1", "b==2"))
    assert one.folder(tmp_path) == replace(one, requirements=("b==2", "a==1")).folder(tmp_path)


def test_what_was_left_half_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    done = builds(monkeypatch)
    half = tool.folder(tmp_path)
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    (half / "rubbish").touch()

    ensure(tool, tmp_path)

    assert len(done) == 1
    assert not (half / "rubbish").exists()


def test_one_whose_interpreter_is_gone_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    done = builds(monkeypatch)
    python = ensure(tool, tmp_path)
    python.unlink()
    python.symlink_to(tmp_path / "an interpreter that was removed")

    assert ensure(tool, tmp_path).exists()
    assert len(done) == 2


def test_two_at_once_build_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment) -> None:
    done = builds(monkeypatch, seconds=0.2)
    both = [threading.Thread(target=ensure, args=(tool, tmp_path)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(done) == 1


def test_a_full_disk_is_said_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    done = builds(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(BridgeError, match="needs 500 MB of disk, 1 MB are free"):
        ensure(tool, tmp_path)
    assert not done


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, tool: Environment) -> None:
    (tmp_path / "environments").touch()  # a file where the folder should be
    with pytest.raises(BridgeError, match="cannot be written"):
        ensure(tool, tmp_path)


def test_a_build_that_takes_too_long_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    monkeypatch.setattr(environments, "BUILD_SECONDS", 0.01)
    with pytest.raises(BridgeError, match=r"took longer than 0\.01 s"):
        ensure(tool, tmp_path)


def test_another_python_and_another_date_are_other_environments(tmp_path: Path, tool: Environment) -> None:
    folders = {
        replace(tool, python=python, as_of=as_of).folder(tmp_path)
        for python in ("3.10", "3.11")
        for as_of in ("2024-01-01", "2024-01-02")
    }
    assert len(folders) == 4


def test_what_is_kept_is_listed_with_its_size_and_whether_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    builds(monkeypatch)
    folder = ensure(tool, tmp_path).parents[1]
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


def test_pruning_keeps_what_is_wanted_and_what_is_being_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Environment
) -> None:
    builds(monkeypatch)
    other, building = locked(tmp_path, "other", ("b==1",)), locked(tmp_path, "building", ("c==1",))
    for each in (tool, other):
        ensure(each, tmp_path)
    with environments._alone(building.folder(tmp_path), 0):
        building.folder(tmp_path).mkdir()
        removed = environments.prune([tool], tmp_path)
        assert [each.folder for each in removed] == [other.folder(tmp_path)]
        assert building.folder(tmp_path).exists()
    assert environments.is_built(tool, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full: Linux")
def test_a_full_disk_is_no_cache_but_one_to_list_and_to_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    with pytest.raises(BridgeError, match="cannot be used"):
        environments.usable(tmp_path)
    assert environments.usable(tmp_path, to_write=False) == tmp_path
