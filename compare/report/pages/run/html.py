"""The record as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from compare.report import words
from compare.report.html import environment, style
from compare.report.pages.run import charts, explained, figures, placement, summary
from compare.report.records.run import RunRecord

_FOLDER = Path(__file__).parent
_CHARTS = (
    (
        charts.accuracy,
        "Accuracy, against the network each file came from",
        (
            "A dot is a file, the upright tick the network it was made from; the bar between them is what the way cost. "
            "Files calibrated on poor data on purpose have their own chart."
        ),
    ),
    (
        charts.changed,
        "Test images, or samples, that change class",
        (
            "Accuracy alone hides these, because errors won make up for errors lost. Orange: a point of accuracy or more is "
            "gone."
        ),
    ),
    (
        charts.trained_scales,
        "Trained activation scales: kept, or estimated again",
        (
            "A dot on the line carries the scale that training decided, unchanged. A diamond was estimated again; its "
            "distance and figure say by how much."
        ),
    ),
    (
        charts.drift,
        "Where along the network a file leaves its network",
        (
            "The largest difference of each layer's output on the same samples, in LSB of the trained scale, on a logarithmic "
            "scale; the line is one LSB. Orange: the first layer beyond it, where the search begins."
        ),
    ),
    (
        charts.calibration,
        "One conversion, calibrated on different data",
        "The same network by the same way; only the images shown to the converter differ (warning W3).",
    ),
    (
        charts.size_and_latency,
        "Size and latency, by mode",
        "Down and to the left is better. Batch 1 on this machine's CPU; the line reaches up to the 90th percentile.",
    ),
)


def render(record: RunRecord) -> str:
    """The whole record as one self-contained page; the same record gives the same text.

    Data is escaped by the template. Should any of it ever slip through, the page's policy still runs no script but
    the one below, and loads nothing.
    """
    templates = environment(_FOLDER)
    templates.globals.update(
        words=words,
        figures=figures,
        summary=summary,
        placement=placement,
        explained=explained.explained,
        explained_header=explained.HEADER,
    )
    script = templates.get_template("page.js.j2").render()
    drawn = [(chart(record), title, caption) for chart, title, caption in _CHARTS]
    anchors = {artifact.id: f"artifact-{index}" for index, artifact in reversed(list(enumerate(record.artifacts, 1)))}
    anchors |= {network.id: f"network-{index}" for index, network in reversed(list(enumerate(record.networks, 1)))}
    return templates.get_template("page.html.j2").render(
        record=record,
        title=summary.TITLE,
        style=style(),
        script=Markup(script),  # noqa: S704  ours, not data
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        charts=[(Markup(svg), *about) for svg, *about in drawn if svg is not None],  # noqa: S704  escaped by charts.py
        anchors=anchors,
    )
