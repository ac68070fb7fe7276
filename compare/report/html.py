"""A page of HTML that needs nothing but itself: its environment, in which data is escaped, and its style."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compare.report import words

_LOG_HEAD, _LOG_TAIL = 2_000, 10_000
"""Characters of a converter's log on the page: its start and, where failures are, its end. All of it: report.json."""


def excerpt(log: str) -> str:
    """The start and the end of a long log, with a word about what is missing."""
    text = words.clean(log).strip()
    missing = len(text) - _LOG_HEAD - _LOG_TAIL
    if missing <= 0:
        return text
    return f"{text[:_LOG_HEAD]}\n\n… {missing:,} characters are left out here; report.json has all …\n\n{text[-_LOG_TAIL:]}"


def link(path: str) -> str:
    """A file in the report's folder as a relative address that cannot name another scheme."""
    return "./" + quote(words.clean(path))


def shown(value: object) -> object:
    """What the template prints: nothing unknown, no control characters."""
    if value is None:
        return words.NOTHING
    return words.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def environment(folder: Path) -> Environment:
    """Templates of a page's folder. Data is escaped; the filters `excerpt` and `link` are for logs and files."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    made.filters.update(excerpt=excerpt, link=link)
    return made


def style(*more: Path) -> Markup:
    """The style of every page, and what a page has of its own."""
    sheets = (Path(__file__).with_name("page.css"), *more)
    return Markup("".join(sheet.read_text(encoding="utf-8") for sheet in sheets))  # noqa: S704  ours, not data
