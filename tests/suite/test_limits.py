"""A test that never ends fails, with the stacks of all threads, and the others go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_setup import ROOT, tomllib

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]

WAITING = """
import threading, time

def another_thread():
    threading.Event().wait()

def test_waits_for_ever():
    threading.Thread(target=another_thread, daemon=True).start()
    threading.Event().wait()

def test_goes_on():
    pass
"""
STUCK = """
import ctypes

def test_is_stuck_in_native_code():
    ctypes.PyDLL(None).pause()  # holds the interpreter's lock, and takes up again after every signal
    while True:
        ctypes.PyDLL(None).pause()
"""


def run(folder: Path, text: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """pytest on one file, with the project's own settings but for these."""
    (folder / "test_one.py").write_text(text)
    chosen = {
        key: SETTINGS[key]
        for key in ("timeout", "timeout_method", "faulthandler_timeout", "faulthandler_exit_on_timeout")
    }
    lines = [f"{key} = {value}" for key, value in (chosen | settings).items()]
    (folder / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_one.py"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_test_has_a_limit_and_a_harder_one_behind_it():
    assert 0 < SETTINGS["timeout"] < SETTINGS["faulthandler_timeout"]
    assert SETTINGS["faulthandler_exit_on_timeout"] is True


def test_a_test_that_waits_for_ever_fails_with_the_stacks_of_all_threads_and_the_next_one_runs(tmp_path):
    done = run(tmp_path, WAITING, timeout=2)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "1 failed, 1 passed" in said
    assert "Timeout (>2.0s)" in said
    assert "another_thread" in said
    assert "test_waits_for_ever" in said


def test_a_test_that_is_stuck_in_native_code_ends_the_suite_with_the_stacks(tmp_path):
    done = run(tmp_path, STUCK, timeout=100, faulthandler_timeout=2)
    assert done.returncode != 0
    assert "test_is_stuck_in_native_code" in done.stdout + done.stderr
    assert "most recent call first" in done.stdout + done.stderr


def test_no_test_switches_its_limit_off():
    lifted = [
        path.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__) and "mark.timeout(0" in path.read_text()
    ]
    assert not lifted


@pytest.mark.parametrize("seconds", [1.2])
def test_the_test_that_waited_longest_is_named(tmp_path, seconds):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    text = f"import time\n\ndef test_idle():\n    time.sleep({seconds})\n\ndef test_busy():\n    pass\n"
    done = run(tmp_path, text)
    (line,) = [line for line in done.stdout.splitlines() if "without work" in line]
    assert line.endswith("test_one.py::test_idle")
