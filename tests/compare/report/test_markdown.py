"""Data in Markdown stays data."""

from __future__ import annotations

import pytest

from compare.report.markdown import code, prose


@pytest.mark.parametrize(
    ("data", "escaped"),
    [
        ("# title", "\\# title"),
        ("1. first", "1&#8203;. first"),
        ("11.1 points", "11.1 points"),
        ("- 3", "\\- 3"),
        ("CONV_2D", "CONV_2D"),
        ("_hidden_", "\\_hidden\\_"),
        ("*a* [b](c) `d` ~e~ $f$", "\\*a\\* \\[b\\](c) \\`d\\` \\~e\\~ \\$f\\$"),
        ("<b>&", "&lt;b&gt;&amp;"),
    ],
)
def test_prose_is_escaped_where_markdown_would_read_it(data: str, escaped: str) -> None:
    assert prose(data) == escaped


def test_no_backtick_ends_a_code_span() -> None:
    assert code("a ``b`` `c`") == "``` a ``b`` `c` ```"
