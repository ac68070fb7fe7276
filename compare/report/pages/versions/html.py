"""The matrix as one HTML page that needs nothing but itself, and runs no script."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from compare.report.html import environment, style
from compare.report.pages.versions import words
from compare.report.records.versions import VersionsRecord
from compare.report.words import duration, number, percent, plural

_FOLDER = Path(__file__).parent


def render(record: VersionsRecord) -> str:
    """The whole record as one self-contained page; the same record gives the same text. Data is escaped."""
    statuses = Counter(cell.status for cell in record.cells)
    return (
        environment(_FOLDER)
        .get_template("page.html.j2")
        .render(
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
            style=style(_FOLDER / "page.css"),
        )
    )
