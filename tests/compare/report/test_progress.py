"""How far a command is, on a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest

from bridge.terminal import Terminal
from compare.report.progress import progress

LONG = "a/" + "very-long-name/" * 20


def shown(*, terminal: bool, width: int = 80) -> str:
    """What two jobs and a problem leave on a screen, or in a log."""
    written = io.StringIO()
    console = Terminal(file=written, force_terminal=terminal, width=width, color_system=None)
    with progress(console, {"convert": 3, "measure": None}, loud=("convert",)) as heard:
        heard.started("convert", LONG)
        heard.finished("convert", LONG, None, "97.05 %", 1.24)
        heard.started("convert", "other")
        heard.finished("convert", "other", "onnx2tf gave up\nbecause", "", 0.4)
        heard.expect("measure", 1)
        heard.started("measure", LONG)
        heard.finished("measure", LONG, "the runtime refuses it", "", None)
    return written.getvalue()


def test_a_log_has_a_line_for_each_job_with_count_name_figure_and_seconds() -> None:
    first, second, third = shown(terminal=False).splitlines()
    assert re.fullmatch(rf"convert 1/3 {LONG} 97\.05 % 1\.2 s", first)
    assert re.fullmatch(r"convert 2/3 other 0\.4 s: onnx2tf gave up", second)
    assert re.fullmatch(rf"measure 1/1 {LONG}: failed", third)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_bar_count_and_clock_stay_whatever_names_are_long(width: int) -> None:
    screen = shown(terminal=True, width=width)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", screen)]
    last = [line for line in lines if line.strip().startswith(("convert", "⠋ convert")) or " convert " in line][-1]
    assert re.search(r"2/3", last)
    assert re.search(r"\d:\d\d:\d\d", last)
    assert "━" in last
    assert len(last.rstrip()) <= width
    assert "other: onnx2tf gave up" in screen


@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_no_markup_and_no_escape_sequences(terminal: bool) -> None:
    written = io.StringIO()
    console = Terminal(file=written, force_terminal=terminal, width=120, color_system=None)
    with progress(console, {"convert": 1}, loud=("convert",)) as heard:
        heard.started("convert", "[bold]x\x1b[31m")
        heard.finished("convert", "[bold]x\x1b[31m", "[/red] broke", "", 1.0)
    assert "[bold]x" in written.getvalue()
    assert "[/red] broke" in written.getvalue()
    assert "\x1b[31m" not in written.getvalue()
