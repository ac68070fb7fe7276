"""The three views of a matrix: everything is in them, and nothing in the data is read as code."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from compare.report.pages.versions import html, markdown, terminal, words
from compare.report.records.versions import from_json, to_json
from tests.compare.report.pages.versions.records import cause, cell, failed, matrix, ran

RECORD = matrix(
    cell("current", causes=(cause(),)),
    failed("tf-9", causes=(cause("M23", sure=False),)),
    cell("tf-9", "torch-exact", status="loses", runs=(ran("new", changed=300), ran("old", None, None, "Bad <i> at 0x7f3a5d552df0"))),
)  # fmt: skip


def shown() -> str:
    stream = io.StringIO()
    terminal.show(RECORD, Console(file=stream, width=160))
    return stream.getvalue()


def test_the_record_reads_back_as_it_was() -> None:
    assert from_json(to_json(RECORD)) == RECORD


@pytest.mark.parametrize(
    "view", [shown, lambda: markdown.render(RECORD), lambda: html.render(RECORD)], ids=["terminal", "markdown", "html"]
)
def test_every_view_has_statuses_errors_entries_and_figures(view) -> None:  # type: ignore[no-untyped-def]
    text = view()
    for needed in ("FAILED", "LOSES", "M23", "M13", "60.00", "a note", "tf-9", "torch-exact"):
        assert needed in text


def test_what_went_wrong_is_grouped_by_message_whatever_the_address() -> None:
    twice = matrix(
        cell(
            "a", runs=(ran("new", None, None, "Bad at 0x7f3a5d552df0"), ran("old", None, None, "Bad at 0x7f3a5d55ffff"))
        )
    )
    (trouble,) = words.troubles(twice)
    assert trouble.said == "Bad at 0x…"
    assert trouble.places == ("a/torch-onnx2tf on new", "a/torch-onnx2tf on old")


def test_what_no_entry_explains_is_said_to_be_that() -> None:
    assert "no entry of the catalogue explains it" in html.render(matrix(failed("a")))
    assert "not in the catalogue" in markdown.render(matrix(failed("a")))


def test_the_page_escapes_data_and_runs_no_script() -> None:
    page = html.render(RECORD)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "the whole &lt;/pre&gt; story" in page
    assert "script-src" not in page
    assert "default-src 'none'" in page


def test_every_cell_of_the_page_leads_to_its_details() -> None:
    page = html.render(RECORD)
    wanted = set(re.findall(r'href="#(cell-\d+)"', page))
    assert wanted == {"cell-1", "cell-2", "cell-3"}
    assert all(f'id="{each}"' in page for each in wanted)


def test_a_pipe_or_a_tag_in_an_error_does_not_break_the_markdown_table() -> None:
    (line,) = [line for line in markdown.render(RECORD).splitlines() if line.startswith("| `tf-9/torch-onnx2tf`")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 14
    assert "<script>" not in line


def test_the_figure_is_a_range_where_runtimes_differ() -> None:
    assert words.figure(cell("a", runs=(ran("new"), ran("old", changed=100)))) == "80.00 to 90.00"
    assert words.figure(cell("a")) == "90.00"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ((cell("new"), failed("old")), "confirmed; clean with one toolchain"),
        ((cell("new"), cell("old", status="loses")), "1 of 1 route (torch-onnx2tf)."),
        ((cell("new"), cell("old")), "not confirmed; clean with every toolchain: 1 of 1 route."),
        ((failed("new"), failed("old")), "; clean with none: 1 (torch-onnx2tf)."),
        ((cell("new"),), "not measurable, every route has one toolchain only"),
    ],
)
def test_the_warning_of_versions_that_do_not_match_is_judged(cells, said: str) -> None:  # type: ignore[no-untyped-def]
    assert said in words.verdict(matrix(*cells))
