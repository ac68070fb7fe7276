"""The charts: valid SVG, the right figures in it, and nothing where there is nothing to draw."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest

from compare.report.pages.run import charts, summary
from compare.report.records.run import RunRecord

Chart = Callable[[RunRecord], str | None]
CHARTS = (charts.accuracy, charts.calibration, charts.changed, charts.size_and_latency, charts.trained_scales)
each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.__name__)


def drawn(chart: Chart, record: RunRecord) -> str:
    svg = chart(record)
    assert svg is not None
    return svg


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314


@each_chart
def test_a_chart_is_one_well_formed_element_with_a_title_and_a_description(chart: Chart, record: RunRecord) -> None:
    root = ET.fromstring(drawn(chart, record))  # noqa: S314  our own text
    title, description = list(root)[:2]
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text
    assert description.text


@each_chart
def test_a_chart_draws_the_same_bytes_again(chart: Chart, record: RunRecord) -> None:
    assert chart(record) == chart(record)


@each_chart
def test_nothing_is_drawn_of_an_empty_run_or_of_unknown_figures(
    chart: Chart, empty_record: RunRecord, bare_record: RunRecord
) -> None:
    assert chart(empty_record) is None
    assert chart(bare_record) is None


@each_chart
def test_hostile_names_are_drawn_as_text(chart: Chart, hostile_record: RunRecord) -> None:
    svg = chart(hostile_record)
    if svg is not None:
        assert "<script" not in svg
        ET.fromstring(svg)  # noqa: S314  our own text


@each_chart
def test_every_colour_follows_the_page_and_nothing_is_fetched(chart: Chart, record: RunRecord) -> None:
    svg = drawn(chart, record)
    assert not set(re.findall(r"(?<!, )#[0-9a-f]{6}\b", svg))
    assert set(re.findall(r"https?://[^\"]+", svg)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_identifiers_are_unique_over_all_charts(record: RunRecord) -> None:
    page = "".join(drawn(chart, record) for chart in CHARTS)
    found = re.findall(r' id="([^"]+)"', page)
    assert len(found) == len(set(found))
    assert set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page)) <= {(i, "") for i in found} | {
        ("", i) for i in found
    }


def test_the_accuracy_chart_labels_every_artifact_and_the_losses_with_their_points(record: RunRecord) -> None:
    found = texts(drawn(charts.accuracy, record))
    assert {"−11.10", "−11.05", "+0.05", "85.75", "torch-int8-onnx2tf", "qat-symmetric-per-channel"} <= set(found)
    assert "−59.35" not in found  # calibrated badly on purpose: in the other chart


def test_the_calibration_chart_compares_the_same_conversion_only(record: RunRecord) -> None:
    found = texts(drawn(charts.calibration, record))
    assert {"representative", "unnormalised", "noise", "one-image", "37.50"} <= set(found)
    assert not any("onnx2tf" in text for text in found)  # calibrated in one way: nothing to compare
    alone = dataclasses.replace(record, artifacts=tuple(a for a in record.artifacts if summary.soundly_calibrated(a)))
    assert charts.calibration(alone) is None


def test_the_changed_chart_counts_those_that_change_nothing(record: RunRecord) -> None:
    found = texts(drawn(charts.changed, record))
    assert {"1,424", "311", "17 artifacts of 51: no image changes class", "logarithmic scale"} <= set(found)


def test_the_changed_chart_says_so_when_no_image_changes(record: RunRecord) -> None:
    exact = dataclasses.replace(record, artifacts=tuple(a for a in record.artifacts if a.route == "torch-exact"))
    assert "5 artifacts of 5: no image changes class" in texts(drawn(charts.changed, exact))


def test_the_scales_chart_says_by_how_much_a_scale_moved_and_why_a_kept_size_is_not_kept(record: RunRecord) -> None:
    found = texts(drawn(charts.trained_scales, record))
    assert found.count("−6.9 %") == found.count("+12.7 %") == 15
    first = next(a for a in record.artifacts if a.scales)
    moved, gone = (dataclasses.replace(first.scales[0], kept=False, **change) for change in (
        {"file_zero_point": 3}, {"file_scale": None, "file_zero_point": None}))  # fmt: skip
    odd = dataclasses.replace(
        record, artifacts=(dataclasses.replace(first, scales=(moved, dataclasses.replace(gone, role="b"))),)
    )
    assert {"zero point", "none in file"} <= set(texts(drawn(charts.trained_scales, odd)))


def test_the_size_chart_names_every_mode_with_its_count(record: RunRecord) -> None:
    assert {"none (6)", "dynamic-range (6)", "float16 (6)", "full-integer (6)", "integer-only (27)"} <= set(
        texts(drawn(charts.size_and_latency, record))
    )


def test_drawing_leaves_matplotlib_as_it_was(record: RunRecord) -> None:
    before = mpl.rcParams.copy()
    charts.accuracy(record)
    assert mpl.rcParams.copy() == before


def test_drawing_does_without_pyplot_and_its_global_figures() -> None:
    source = Path(charts.__file__).read_text()
    assert "pyplot" not in source


def test_the_drift_chart_tells_the_first_layer_that_leaves_its_network(record):
    svg = charts.drift(record)
    assert "torch-int8-onnx2tf/qat-fbgemm first at CONV_2D" in svg


def test_there_is_no_drift_chart_when_nothing_was_traced(empty_record):
    assert charts.drift(empty_record) is None
