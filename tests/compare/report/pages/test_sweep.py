"""A sweep's page: means with intervals, what failed, and a terminal of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from compare.report.pages.sweep import render, show
from compare.sweep.summary import summarise
from tests.compare.sweep.test_summary import row


def test_the_page_says_when_code_changed_on_the_way() -> None:
    rows = [row(0, "r/a", 0.5), row(1, "r/a", 0.5, made_with="def")]
    assert "changed on the way" in render(summarise(rows), "0" * 64)
    assert "changed on the way" not in render(summarise(rows[:1]), "0" * 64)


def test_the_page_has_means_with_intervals_and_escapes_what_failed() -> None:
    rows = [row(seed, "r/a", value) for seed, value in enumerate((0.5, 0.52, 0.54))]
    rows.append(row(3, "r/a", 0.0, status="failed", reason="<b>|bad"))
    page = render(summarise(rows), "0" * 64)
    assert "| `r/a` | 52.00 ± 4.97 | −38.00 ± 4.97 |" in page
    assert "&lt;b&gt;\\|bad" in page


def test_a_model_that_was_trained_elsewhere_has_a_table_of_its_own() -> None:
    nothing = {
        "accuracy": None,
        "reference_accuracy": None,
        "disagreements": None,
        "max_lsb": None,
        "equal_outputs": None,
    }
    own = {"model": "/m/net|1.onnx", "network": "own/net", "preset": "–"}
    failed = row(0, "r/net", 0.0, status="failed", reason="ValueError: <b>\nmore")
    rows = [row(0, "r/a", 0.9), failed | own | nothing]
    found = summarise(rows)
    page = render(found, "digest")
    assert r"net\|1.onnx" in page
    assert "ValueError: &lt;b&gt;" in page
    assert "more" not in page


@pytest.mark.parametrize(("width", "columns"), [(80, 3), (160, 8)])
def test_on_a_narrow_terminal_there_are_fewer_columns_and_no_figure_is_cut(width: int, columns: int) -> None:
    stream = io.StringIO()
    rows = [row(seed, "keras-native/baseline/integer-only/concrete/unnormalised", 0.95) for seed in (0, 1)]
    show(summarise(rows), "digest", Console(file=stream, width=width))
    shown = stream.getvalue()
    assert "…" not in shown
    (line, *_) = [line for line in shown.splitlines() if line.startswith("keras-native/baseline")]
    assert len(line.replace(" ± ", "±").split()) == 1 + columns - (columns == 8)  # nothing failed: an empty cell
