"""One task in its own process: it may do what it likes, the sweep gets rows or a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compare.sweep.limits import execute
from tests.compare.sweep.stand_ins import answers, order, program


def test_a_task_that_answers_has_its_rows_its_time_and_its_memory(tmp_path: Path) -> None:
    finished = execute(order(answers(tmp_path, seconds=0.6)))
    assert finished.problem is None
    assert [row["artifact"] for row in finished.rows] == ["torch-exact/qat-qnnpack", "other/qat-qnnpack"]
    assert finished.seconds > 0.6
    assert 5_000_000 < finished.peak_bytes < 100_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os; print('so far so good', flush=True); os.abort()", "crashed with SIGABRT: so far so good"),
        ("import ctypes; ctypes.string_at(0)", "crashed with SIGSEGV"),
        ("import sys; sys.exit('no network')", "ended with exit code 1: no network"),
        ("", "ended without an answer"),
        ("import sys; open(sys.argv[2], 'w').write('[{')", "answered with garbage"),
        ("import sys; open(sys.argv[2], 'w').write('[1]')", "no list of rows"),
        (
            "import sys; sys.exit('net.npz: holds no array\\n  Save one.')",
            "ended with exit code 1: net.npz: holds no array. Save one.",
        ),
        ("raise ValueError('inside')", "ended with exit code 1: ValueError: inside"),
    ],
)
def test_one_that_does_not_has_the_reason(tmp_path: Path, text: str, said: str) -> None:
    finished = execute(order(program(tmp_path, text)))
    assert finished.rows == ()
    assert finished.problem is not None
    assert said in finished.problem


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    finished = execute(order(program(tmp_path, "import time; time.sleep(3600)"), seconds=0.5))
    assert finished.problem == "did not finish within 0.5 s (--time-limit)"


def test_one_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    greedy = "import time; kept = b'x' * (300 << 20); time.sleep(3600)"
    finished = execute(order(program(tmp_path, greedy), megabytes=200))
    assert finished.problem == "took more than its 200 MB of memory and was ended (--memory-per-job)"
    assert finished.peak_bytes > 200_000_000


def test_what_its_children_hold_counts_too(tmp_path: Path) -> None:
    greedy = (
        "import subprocess\n"
        f"subprocess.run([{sys.executable!r}, '-c', 'import time; k = b\"x\" * (300 << 20); time.sleep(3600)'])"
    )
    finished = execute(order(program(tmp_path, greedy), megabytes=200))
    assert finished.problem == "took more than its 200 MB of memory and was ended (--memory-per-job)"


def test_a_machine_with_other_versions_refuses_the_task() -> None:
    """The real program, asked by a sweep that was started elsewhere."""
    finished = execute(order(("-m", "compare.sweep.job")))
    assert finished.problem is not None
    assert "ended with exit code 2" in finished.problem
    assert "Install the same on every machine" in finished.problem
