"""Interpreters of other versions: found where they usually are, believed only after they were asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare.toolchains.interpreters import interpreter


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    interpreter.cache_clear()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_one_that_runs_is_its_own_version() -> None:
    assert interpreter(f"{sys.version_info.major}.{sys.version_info.minor}") == Path(sys.executable)


def test_one_on_the_path_is_asked_for_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = script(tmp_path / "python3.99", "echo 3.99")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert interpreter("3.99") == found


def test_a_shim_that_stands_for_nothing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "shims" / "python3.99", "echo 'pyenv: python3.99: command not found' >&2; exit 127")
    real = script(tmp_path / "pyenv" / "versions" / "3.99.10" / "bin" / "python", "echo 3.99")
    script(tmp_path / "pyenv" / "versions" / "3.99.9" / "bin" / "python", "echo 3.99")
    monkeypatch.setenv("PATH", str(tmp_path / "shims"), prepend=os.pathsep)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert interpreter("3.99") == real


def test_none_at_all_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(BridgeError, match="is not installed") as caught:
        interpreter("3.98")
    assert "uv python install 3.98" in caught.value.remedy


def test_one_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "python3.97", "echo 3.97")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python3.97", 30)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(BridgeError, match="is not installed"):
        interpreter("3.97")
