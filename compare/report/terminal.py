"""A page in a terminal of any width, plain when piped: paragraphs, and tables that drop what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from compare.report.words import NOTHING

_GAP = "  "
_LONGEST_COLUMN = 44
"""A longer cell, usually a list of operators, continues on the next line."""
_LEAST_NAME, _NAME_SHARE = 16, 0.42
"""Names take at least so many characters and at most this share of the width; a longer one gets its own line."""

_ASCII = str.maketrans({"−": "-", "–": "-", "→": ">", "×": "x", "…": "...", "’": "'"})


@dataclass(frozen=True)
class Column:
    """A column of a table; the highest rank is dropped first where the window is narrow."""

    title: str
    rank: int
    right: bool
    cells: tuple[str, ...]
    width: int


@dataclass(frozen=True)
class Row:
    """One line of a table: its name, a style for some of its columns, or words instead of figures."""

    name: str
    styles: dict[str, str]
    instead: str = ""


class Page:
    """A console that takes data, never markup, and only characters its encoding has."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.width = console.width
        self._encoding = console.encoding or "ascii"

    def can_show(self, text: str) -> str:
        """The text with what the encoding lacks replaced."""
        if self._encoding.lower().startswith("utf"):
            return text
        return text.translate(_ASCII).encode(self._encoding, "replace").decode(self._encoding)

    def line(self, *parts: str | tuple[str, str], indent: int = 0) -> None:
        """One paragraph of plain and (text, style) parts, wrapped by words under its own indent."""
        pairs = ((part, "") if isinstance(part, str) else part for part in parts)
        text = Text.assemble(*((self.can_show(content), style) for content, style in pairs))
        for wrapped in text.wrap(self._console, max(1, self.width - indent)):
            self.exactly(Text(" " * indent).append_text(wrapped))

    def heading(self, text: str) -> None:
        """A section starts."""
        self.exactly(Text())
        self.line((text, "bold"))

    def exactly(self, text: Text) -> None:
        """One line that is laid out already."""
        text.rstrip()
        self._console.print(text, highlight=False, no_wrap=True, overflow="ignore", crop=False)

    def column(self, title: str, cells: Sequence[str], rank: int, *, right: bool) -> Column:
        """A column as wide as its cells need, and never wider than a cell may be."""
        shown = tuple(map(self.can_show, cells))
        width = max(cell_len(text) for text in (title, *shown))
        return Column(self.can_show(title), rank, right, shown, min(width, _LONGEST_COLUMN))


def _tells_something(column: Column) -> bool:
    return bool(set(column.cells) - {NOTHING, NOTHING.translate(_ASCII)})


def _fitting(columns: Sequence[Column], room: int) -> list[Column]:
    """The columns that fit, in their order, the highest rank dropped first; one that tells nothing is dropped, too."""
    left = [column for column in columns if _tells_something(column)]
    while left and sum(len(_GAP) + column.width for column in left) > room:
        left.remove(max(left, key=lambda column: column.rank))
    return left


def _wrapped(text: str, width: int) -> list[str]:
    """The words in lines of at most `width`; a longer word stays whole, and is never cut."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and cell_len(joined) > width:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def _aligned(text: str, column: Column) -> str:
    missing = " " * max(0, column.width - cell_len(text))
    return missing + text if column.right else text + missing


def table(page: Page, groups: Sequence[tuple[str, Sequence[Row]]], columns: Sequence[Column]) -> list[Column]:
    """Print rows under their groups' names, all groups in the same columns; gives the columns that found no room.

    The cells of a column belong to the rows that have figures, in the order of the groups.
    """
    names = [page.can_show(row.name) for _, rows in groups for row in rows if not row.instead]
    longest = max(map(cell_len, names), default=0)
    name_width = min(longest, max(_LEAST_NAME, int(page.width * _NAME_SHARE)))
    fitting = _fitting(columns, page.width - 2 - name_width)
    if not fitting:  # not even one: the names go above, and leave the whole width to the figures
        fitting = _fitting(columns, page.width - 2)
        name_width = 0
    titles = Text("  " + " " * name_width)
    for column in fitting:
        titles.append(_GAP + _aligned(column.title, column))
    titles.stylize("dim")
    page.exactly(titles)
    index = 0
    for title, rows in groups:
        if title:
            page.line((title, "bold cyan"))
        for row in rows:
            if row.instead:
                page.line(row.name, _GAP, (row.instead, "yellow"), indent=2)
                continue
            _figures(page, row, name_width, [(column, column.cells[index]) for column in fitting])
            index += 1
    return [column for column in columns if column not in fitting and _tells_something(column)]


def _figures(page: Page, row: Row, name_width: int, cells: Sequence[tuple[Column, str]]) -> None:
    name = page.can_show(row.name)
    if cell_len(name) > name_width:
        page.line(name, indent=2)
        name = ""
    split = [(column, _wrapped(text, column.width)) for column, text in cells]
    for index in range(max((len(lines) for _, lines in split), default=0)):
        line = Text("  " + set_cell_size(name if index == 0 else "", name_width))
        for column, lines in split:
            text = lines[index] if index < len(lines) else ""
            line.append(_GAP)
            line.append(_aligned(text, column), style=row.styles.get(column.title))
        page.exactly(line)
