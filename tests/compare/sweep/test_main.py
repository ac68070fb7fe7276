"""The command: what it plans, refuses and prints, and that it can be killed at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from compare.sweep import store
from compare.sweep.__main__ import app
from tests import interrupts, waiting
from tests.compare.sweep.stand_ins import answers, asked

RUNNER = CliRunner()
DRIVER = """
import sys
from pathlib import Path
from rich.console import Console
from compare.sweep.__main__ import _sweep
from tests.compare.sweep.stand_ins import order
orders = [order(({program!r},), seed) for seed in range({count})]
_sweep(orders, Path({out!r}), 2, 500, None, Console())
"""


def driver(folder: Path, out: Path, count: int = 12) -> list[str]:
    """A sweep of stand-ins, as a command of its own."""
    (program,) = answers(folder, seconds=0.15)
    path = folder / "driver.py"
    path.write_text(DRIVER.format(program=program, out=str(out), count=count))
    return [sys.executable, str(path)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.mark.slow
def test_killed_at_five_moments_and_gone_on_with_it_ends_with_the_same_figures(tmp_path: Path) -> None:
    command, out = driver(tmp_path, tmp_path / "killed"), tmp_path / "killed"
    killed = []
    for more in (0, 1, 2, 0, 1):  # tasks that a run gets further than the one before
        before = len(asked(tmp_path))
        process = subprocess.Popen(command, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL)
        waiting.until(lambda: process.poll() is not None or len(asked(tmp_path)) >= before + more)  # noqa: B023
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        killed.append(process.wait() == -signal.SIGKILL)
    subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert killed[0]  # before its first task; how many more there were to kill depends on the machine

    at_once = driver(tmp_path, tmp_path / "at-once")
    subprocess.run(at_once, env=environment(), check=True, stdout=subprocess.DEVNULL)

    digests = [store.figures_digest(store.read(folder)) for folder in (out, tmp_path / "at-once")]
    assert digests[0] == digests[1]
    assert store.read(out).num_rows == 12 * 2


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    command = driver(tmp_path, tmp_path / "out", count=3)
    for _ in range(2):
        subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert len(asked(tmp_path)) == 3


@pytest.mark.slow
def test_a_real_sweep_has_intervals_and_its_figures_do_not_change_when_it_is_done_again(tmp_path: Path) -> None:
    options = ["--seeds", "0-1", "--presets", "quick", "--qconfigs", "qnnpack", "--routes", "torch-exact"]
    options += ["--cache", str(tmp_path / "cache")]
    first = RUNNER.invoke(app, [*options, "--out", str(tmp_path / "a")])
    assert first.exit_code == 0, first.output
    again = RUNNER.invoke(app, [*options, "--out", str(tmp_path / "a")])
    assert "2 of 2 tasks are done already" in again.output
    assert RUNNER.invoke(app, [*options, "--out", str(tmp_path / "b"), "--jobs", "1"]).exit_code == 0
    one, other = (store.read(tmp_path / name) for name in "ab")
    assert store.figures_digest(one) == store.figures_digest(other)
    rows = one.to_pylist()
    assert [row["status"] for row in rows] == ["measured"] * 2
    assert all(row["max_lsb"] <= 1.01 and row["accuracy"] > 0.9 for row in rows)
    assert "±" in (tmp_path / "a" / "summary.md").read_text()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_leaves_no_process_behind(tmp_path: Path) -> None:
    folders = ("--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"))
    process = interrupts.start("compare.sweep", "--seeds", "0-9", "--presets", "quick", *folders)
    own = psutil.Process(process.pid)
    started = []

    def at_work():
        started[:] = own.children(recursive=True)
        return process.poll() is not None or any("compare.sweep.job" in " ".join(_words(each)) for each in started)

    waiting.until(at_work)
    interrupts.interrupt(process)
    said, _ = process.communicate(timeout=waiting.LONG)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(started, timeout=waiting.LONG)
    assert [_words(each) for each in alive if "compare.sweep" in " ".join(_words(each))] == []


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_dry_run_counts_what_is_done_and_what_is_not(tmp_path: Path) -> None:
    arguments = ["--dry-run", "--out", str(tmp_path / "new"), "--seeds", "0,2", "--qconfigs", "qnnpack,fbgemm"]
    said = RUNNER.invoke(app, arguments).output
    assert "4 tasks, 20 rows; 0 tasks are done, 4 to do" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "3-1"], "'3-1' is no seed"),
        (["--seeds", "one"], "'one' is no seed"),
        (["--seeds", ""], "names no seed"),
        (["--qconfigs", "fbgem"], "matches nothing"),
        (["--data", "nowhere"], "nowhere"),
        (["--summary"], "is no sweep's folder"),
    ],
)
def test_a_wrong_word_is_refused_in_a_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    refused = RUNNER.invoke(app, ["--out", str(tmp_path / "new"), *arguments])
    assert refused.exit_code == 2
    assert said in refused.output
    assert not (tmp_path / "new").exists()


def test_the_summary_of_a_folder_is_printed_and_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(driver(tmp_path, out, count=3), env=environment(), check=True, stdout=subprocess.DEVNULL)
    said = RUNNER.invoke(app, ["--summary", "--out", str(out)], terminal_width=200).output
    assert "6 rows, 3 seeds" in said
    assert store.figures_digest(store.read(out)) in said.replace("\n", "")
    assert (out / "summary.json").exists()


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "joblib" else object())
    refused = RUNNER.invoke(app, ["--out", str(tmp_path / "new")])
    assert refused.exit_code == 2
    assert "needs joblib, not installed" in refused.output
