"""Data in Markdown: nothing in it is read as anything but text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compare.report.words import NOTHING, one_line


def prose(data: str) -> str:
    """Data as prose: on one line, and nothing in it read as Markdown, HTML or the end of a table cell."""
    escaped = re.sub(r"([\\`*\[\]|~$])", r"\\\1", one_line(data)).replace("&", "&amp;")
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped.replace("<", "&lt;").replace(">", "&gt;"))
    return re.sub(r"^([#+-]|\d+(?=[.)](?:\s|$)))", _escape_list_mark, escaped)


def _escape_list_mark(match: re.Match[str]) -> str:
    mark = match.group(1)
    return f"{mark}&#8203;" if mark.isdigit() else f"\\{mark}"


def code(data: str) -> str:
    """Data as a code span that no backtick in it can end."""
    content = one_line(data).replace("|", "\\|")
    if not content:
        return NOTHING
    fence = "`" * (max(map(len, re.findall("`+", content)), default=0) + 1)
    padding = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{padding}{content}{padding}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool]) -> list[str]:
    """A table, ready cells in, lines out; `numeric` columns are set right."""
    marks = ["---:" if right else "---" for right in numeric]
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)] + [""]
