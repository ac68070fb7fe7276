"""The figures of a run in words, and the run in Markdown."""

from __future__ import annotations

import dataclasses
import re

import pytest

from compare.report.pages.run import figures, markdown, placement, summary
from compare.report.pages.run.markdown import render
from compare.report.records.run import OperatorRecord, RunRecord


def cells(row: str) -> list[str]:
    """A table row's cells, as GitHub splits them: at every pipe that is not escaped."""
    return re.split(r"(?<!\\)\|", row.strip())[1:-1]


def test_runs_of_one_operator_collapse(record: RunRecord) -> None:
    names = ("QUANTIZE", "QUANTIZE", "CONV_2D", "QUANTIZE")
    artifact = dataclasses.replace(record.artifacts[0], operators=tuple(OperatorRecord(n, True) for n in names))
    assert figures.operators(artifact) == "QUANTIZE×2 CONV_2D QUANTIZE"


def test_the_worst_loss_is_not_one_that_was_calibrated_badly_on_purpose(record: RunRecord) -> None:
    worst = summary.headlines(record)[0]
    assert worst.figure == "−11.10"
    assert worst.bad
    assert worst.sentence == (
        "torch-int8-onnx2tf/qat-fbgemm loses most: 85.75 %, 11.10 points below its network; "
        "311 of 2,000 test images change class."
    )


def test_the_best_route_is_the_one_whose_worst_integer_file_changes_fewest_images(record: RunRecord) -> None:
    assert summary.headlines(record)[1].sentence == (
        "torch-exact stays closest to the quantized networks: its 5 all-integer files change the class of no test image "
        "(largest difference 1 LSB)."
    )


def test_every_artifact_finding_claim_and_network_appears(record: RunRecord) -> None:
    text = render(record)
    for artifact in record.artifacts:
        assert f"`{artifact.id}`" in text
        assert f"`{artifact.sha256}`" in text or artifact.sha256 is None
    for finding in record.findings:
        assert f"`{finding.artifact}`: {finding.fact}" in text
    for claim in record.claims:
        assert f"**{claim.id}** {claim.statement} **{claim.verdict.capitalize()}.**" in text
        assert all(sentence in text for sentence in claim.evidence)
    for network in record.networks:
        assert f"| `{network.id}` |" in text
    for version in record.versions.values():
        assert f"| {version} |" in text
    assert "QUInt8 but got QInt8. Use the QDQ export." in text
    assert "skipped: no reason was recorded" in text


def test_every_table_row_has_as_many_cells_as_its_header(
    record: RunRecord, hostile_record: RunRecord, bare_record: RunRecord, empty_record: RunRecord
) -> None:
    for each in (record, hostile_record, bare_record, empty_record):
        for table in re.findall(r"(?:^\|.*\n)+", render(each), flags=re.MULTILINE):
            header, *rows = table.splitlines()
            assert {len(cells(row)) for row in rows} == {len(cells(header))}


def test_hostile_text_stays_text(hostile_record: RunRecord) -> None:
    text = render(hostile_record)
    outside_code = re.sub(r"(`+) ?.*?[^`]\1(?!`)", "", text)
    assert "<script>" not in outside_code
    assert "\\| pipe # head" in text
    assert not re.search(r"^# head", text, flags=re.MULTILINE)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_an_empty_run_says_so(empty_record: RunRecord) -> None:
    text = render(empty_record)
    for sentence in (
        "This run made no artifact",
        "No network was trained",
        "Nothing stood out",
        "No claim was examined",
    ):
        assert sentence in text


def test_nothing_unknown_leaks_as_none_or_nan(record: RunRecord, bare_record: RunRecord) -> None:
    for each in (record, bare_record):
        assert not re.search(r"\b(None|nan|NaN|inf)\b", render(each))


def test_the_same_record_gives_the_same_text(record: RunRecord) -> None:
    assert render(record) == render(record)


def test_every_explanation_is_a_table_with_what_is_left(record):
    text = markdown.render(record)
    section = text[text.index("## Where the differences come from") :]
    assert "### `torch-int8-onnx2tf/qat-fbgemm`: nothing left unexplained" in section
    assert "| M44 int32 biases in another order: undone in the file | −0.40 | 11 | 30 |" in section
    assert "M45 dequantized twice: undone in the file; the runtime refuses the file then | – |" in section
    assert "### `torch-int8-onnx2tf/qat-x86`: **unexplained: −11.05 points and 71.7 LSB**" in section


def test_the_drift_lists_each_layer_of_each_traced_artifact(record):
    assert "| `torch-int8-onnx2tf/qat-fbgemm` | CONV_2D | `conv` | 44 | 6.9 |" in markdown.render(record)


def test_each_file_has_a_cell_for_each_target_and_each_reason_is_counted(record):
    text = markdown.render(record)
    section = text[text.index("## On the NPUs") :]
    assert "imx8mp judged (rules); imx93 compiled (vela)." in section
    assert "| `torch-exact/qat-qnnpack` | 96.85 | fast | fast |" in section
    assert "| `torch-exact/qat-x86` | 96.85 | X 3/5, 20% | X 4/5, 100% |" in section
    assert "| `imx8mp` | CONV_2D | npu-slow | a scale for each channel: runs on the shader |  | 4 |" in section
    assert "a tensor is float32 | M38 | 4 |" in section


def test_a_run_that_judged_no_target_has_no_such_section(empty_record):
    assert "On the NPUs" not in markdown.render(empty_record)


@pytest.mark.parametrize(
    ("op", "reason", "entry"),
    [
        ("FULLY_CONNECTED", "Per-axis quantization is only supported for CONV_2D", "M35"),
        ("FULLY_CONNECTED", "the input is float32, the weight int8 (hybrid)", "M37"),
        ("DEQUANTIZE", "Unsupported opType", "M38"),
        ("PACK", "Operation has shapeless tensor", "M56"),
        ("CONV_2D", "a scale for each channel: runs on the shader", ""),
    ],
)
def test_a_reason_names_the_catalogues_entry_where_there_is_one(op, reason, entry):
    assert placement.Blame("imx93", op, "cpu-fallback", reason, ("a",)).entry == entry
