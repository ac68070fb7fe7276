"""The matrix as one HTML page that needs nothing but itself, and runs no script."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compare.report.html import excerpt, shown
from compare.report.pages.versions import words
from compare.report.records.versions import VersionsRecord
from compare.report.words import duration, number, percent, plural

_FOLDER = Path(__file__).parent
_STYLES = (_FOLDER.parents[1] / "report.css", _FOLDER / "page.css")


def render(record: VersionsRecord) -> str:
    """The whole record as one self-contained page; the same record gives the same text. Data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters["excerpt"] = excerpt
    statuses = Counter(cell.status for cell in record.cells)
    return environment.get_template("page.html.j2").render(
        record=record,
        words=words,
        percent=percent,
        number=number,
        plural=plural,
        duration=duration,
        places=words.by_place(record),
        about={each.id: each.about for each in record.toolchains},
        counts={status: statuses[status] for status in words.MARKS},
        runs={cell.id: {run.runtime: run for run in cell.runs} for cell in record.cells},
        allowed=record.max_changed * record.samples,
        anchors={cell.id: f"cell-{index}" for index, cell in enumerate(record.cells, 1)},
        style=Markup("".join(path.read_text(encoding="utf-8") for path in _STYLES)),  # noqa: S704  ours, not data
    )
