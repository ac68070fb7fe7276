"""The record as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compare.report import charts, explained, placement, summary, words
from compare.report.record import RunRecord

_FOLDER = Path(__file__).parent
_LOG_HEAD, _LOG_TAIL = 2_000, 10_000
"""Characters of a converter's log on the page: its start and, where failures are, its end. All of it: report.json."""

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


def excerpt(log: str) -> str:
    """The start and the end of a long log, with a word about what is missing."""
    text = words.clean(log).strip()
    missing = len(text) - _LOG_HEAD - _LOG_TAIL
    if missing <= 0:
        return text
    return f"{text[:_LOG_HEAD]}\n\n… {missing:,} characters are left out here; report.json has all …\n\n{text[-_LOG_TAIL:]}"


def _link(path: str) -> str:
    """A file in the report's folder as a relative address that cannot name another scheme."""
    return "./" + quote(words.clean(path))


def shown(value: object) -> object:
    """What the template prints: nothing unknown, no control characters."""
    if value is None:
        return words.NOTHING
    return words.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.globals["words"] = words
    environment.globals["summary"] = summary
    environment.globals["placement"] = placement
    environment.globals["explained"] = explained.explained
    environment.globals["explained_header"] = explained.HEADER
    environment.filters.update(excerpt=excerpt, link=_link)
    return environment


def render(record: RunRecord) -> str:
    """The whole record as one self-contained page; the same record gives the same text.

    Data is escaped by the template. Should any of it ever slip through, the page's policy still runs no script but
    the one below, and loads nothing.
    """
    environment = _environment()
    script = environment.get_template("report.js.j2").render()
    drawn = [(chart(record), title, caption) for chart, title, caption in _CHARTS]
    anchors = {artifact.id: f"artifact-{index}" for index, artifact in reversed(list(enumerate(record.artifacts, 1)))}
    anchors |= {network.id: f"network-{index}" for index, network in reversed(list(enumerate(record.networks, 1)))}
    return environment.get_template("report.html.j2").render(
        record=record,
        title=summary.TITLE,
        style=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),  # noqa: S704  ours, not data
        script=Markup(script),  # noqa: S704  ours, not data
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        charts=[(Markup(svg), *about) for svg, *about in drawn if svg is not None],  # noqa: S704  escaped by charts.py
        anchors=anchors,
    )
