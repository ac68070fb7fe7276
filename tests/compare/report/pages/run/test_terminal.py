"""What the terminal shows, at every width."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from compare.report.pages.run import figures
from compare.report.pages.run.terminal import show
from compare.report.records.run import RunRecord

WIDTHS = (40, 80, 120, 200)


def shown(record: RunRecord, width: int = 200, *, colour: bool = False) -> str:
    out = io.StringIO()
    show(record, Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None))
    return out.getvalue()


def test_a_row_has_every_figure_of_its_artifact(record: RunRecord) -> None:
    text = shown(record, 220)
    after_the_route = text[text.index("torch-int8-onnx2tf\n") :]
    line = next(line for line in after_the_route.splitlines() if line.strip().startswith("qat-fbgemm"))
    assert line.split() == [
        "qat-fbgemm", "85.75", "−11.10", "311", "311", "LSB", "0.0", "1/3", "23.6", "0.021", "/", "0.030", "4/4", "int8",
        "torch/qat-fbgemm", "CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED",
    ]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_every_artifact_finding_claim_and_network_appears_at_every_width(record: RunRecord, width: int) -> None:
    together = "".join(shown(record, width).split())
    for artifact in record.artifacts:
        assert "".join(figures.short_id(artifact).split()) in together
    for reason in ("Expected activation data type QUInt8", "needs litert-torch", "no reason was recorded"):
        assert "".join(reason.split()) in together
    for finding in record.findings:
        assert "".join((finding.artifact + ": " + finding.fact).split()) in together
    for claim in record.claims:
        assert "".join(f"{claim.id} {claim.verdict}: {claim.statement}".split()) in together
    for network in record.networks:
        assert network.id in together


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_none_ends_in_blanks(record: RunRecord, width: int) -> None:
    for line in shown(record, width).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


def test_a_narrow_terminal_keeps_whole_figures_and_says_where_the_others_are(record: RunRecord) -> None:
    text = shown(record, 80)
    assert "…" not in text
    assert "Not shown at this width:" in text
    assert "report.md" in text
    assert ["qat-qnnpack", "96.90", "+0.05", "1", "1", "LSB", "1/3"] in [line.split() for line in text.splitlines()]
    assert "Not shown" not in shown(record, 260)


def test_a_column_without_a_single_figure_is_neither_shown_nor_called_hidden(bare_record: RunRecord) -> None:
    text = shown(bare_record, 80)
    assert "max diff" not in text
    assert "engine" not in text


def test_a_piped_report_has_no_colour_codes_and_a_terminal_has_them(record: RunRecord) -> None:
    assert "\x1b" not in shown(record)
    assert "\x1b[1;31m−11.10" in shown(record, colour=True).replace("  ", "")


def test_a_terminal_without_unicode_gets_ascii(record: RunRecord, hostile_record: RunRecord) -> None:
    def as_bytes(each: RunRecord) -> bytes:
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding="ascii")  # raises at the first character it lacks
        show(each, Console(file=out, width=100))
        out.flush()
        return raw.getvalue()

    assert b"-11.10" in as_bytes(record)
    assert b"<script>" in as_bytes(hostile_record)


def test_markup_in_data_is_shown_and_not_obeyed(hostile_record: RunRecord) -> None:
    text = shown(hostile_record, 300, colour=True)
    assert "[red]bold[/red]" in text
    assert "\x1b[31mred" not in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_an_empty_run_says_so(empty_record: RunRecord) -> None:
    text = shown(empty_record)
    for sentence in (
        "No network was trained.",
        "This run made no artifact.",
        "Nothing stood out.",
        "No claim was examined.",
    ):
        assert sentence in text
    assert "made no artifact" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_unknown_leaks_as_none_or_nan(bare_record: RunRecord, record: RunRecord, width: int) -> None:
    for each in (bare_record, record):
        assert not re.search(r"\b(None|nan|NaN|inf)\b", shown(each, width))


def test_the_same_record_gives_the_same_text(record: RunRecord) -> None:
    assert shown(record, 120) == shown(record, 120)


def test_losses_come_first_and_the_largest_before_the_others(record: RunRecord) -> None:
    text = shown(record)
    assert text.index("11.1 points lost") < text.index("11.05 points lost") < text.index("trained scales thrown away")


def test_differences_are_listed_with_their_causes_and_the_unexplained_one_first(record):
    text = shown(record, width=120)
    section = text[text.index("Where the differences come from") :]
    first, second = section.index("qat-x86: unexplained"), section.index("qat-fbgemm: nothing left unexplained")
    assert first < second
    assert "M44 int32 biases in another order: undone in the file: −0.40 points, 11 changed, 30 LSB" in section


def test_files_that_are_fast_everywhere_are_counted_by_route_and_target(record):
    text = shown(record, width=120)
    section = text[text.index("On the NPUs") :]
    assert re.search(r"torch-exact\s+1/5\s+1/5", section)
    assert "imx8mp CONV_2D npu-slow, 4 files: a scale for each channel: runs on the shader" in section
