"""uv is called with a cache of its own, and takes packages from where pip takes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare.toolchains import uv


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_without_settings_uv_goes_its_own_way() -> None:
    assert uv.index_options() == []


def test_a_mirror_and_a_folder_of_wheels_that_pip_knows_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    assert uv.index_options() == ["--default-index", "https://mirror.example/simple", "--find-links", "/wheels"]


def test_several_indexes_are_searched_as_pip_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://one.example https://other.example")
    options = uv.index_options()
    assert options[:4] == ["--index", "https://one.example", "--index", "https://other.example"]
    assert options[4:] == ["--index-strategy", "unsafe-best-match"]


def test_no_index_stays_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "--no-index" in uv.index_options()


def test_nothing_is_kept_outside_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", "/somewhere/else")
    done = uv.run_uv(["cache", "dir"], tmp_path, 60)
    assert done.stdout.strip() == str(tmp_path / "uv")


def test_its_reason_is_one_line(tmp_path: Path) -> None:
    done = uv.run_uv(["venv", "--python", "/no/such/python", tmp_path / "x"], tmp_path, 60)
    assert done.returncode != 0
    assert "/no/such/python" in uv.said_by(done)
    assert "\n" not in uv.said_by(done)


def test_a_missing_uv_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BridgeError, match="need uv") as caught:
        uv.run_uv(["--version"], tmp_path, 60)
    assert "pip install" in caught.value.remedy
