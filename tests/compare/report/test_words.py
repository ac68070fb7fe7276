"""Figures as a reader sees them."""

from __future__ import annotations

import pytest

from compare.report import words


@pytest.mark.parametrize(
    ("drop", "text"),
    [(0.111, "−11.10"), (-0.0005, "+0.05"), (0.0, "0.00"), (-0.0, "0.00"), (1e-9, "0.00"), (None, "–")],
)
def test_a_drop_reads_as_a_signed_difference(drop: float | None, text: str) -> None:
    assert words.points(drop) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.5"), (12.34, "12.3"), (1234.5, "1,234"), (1e9, "1,000,000,000"), (None, "–")],
)
def test_numbers_have_three_figures_and_no_needless_exponent(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.00684, "0.0068"), (0.0213, "0.021"), (1.534, "1.53"), (None, "–")])
def test_milliseconds_reach_down_to_where_small_networks_live(value: float | None, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (41.4, "41 s"), (119.6, "2 min 0 s"), (123, "2 min 3 s"), (None, "–")]
)
def test_durations_are_read_aloud(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_colour_codes_control_characters_and_progress_bars_leave_plain_lines() -> None:
    assert words.clean("\x1b[31mred\x1b[0m\r 10 %\r\n\x00\x1b]0;title\x07done\u202e") == "red\n 10 %\ndone"
