"""The record in a terminal of any width, plain when piped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from compare.report import placement, summary, words
from compare.report.explained import explained, sentences
from compare.report.record import ArtifactRecord, RunRecord, Verdict

_GAP = "  "
_LONGEST_COLUMN = 44
"""A longer cell, usually a list of operators, continues on the next line."""
_LEAST_NAME, _NAME_SHARE = 16, 0.42
"""Names take at least so many characters and at most this share of the width; a longer one gets its own line."""

_REASONS = 2
"""So many reasons of each target are printed, the most frequent."""

_ASCII = str.maketrans({"−": "-", "–": "-", "→": ">", "×": "x", "…": "...", "’": "'"})
_VERDICT_STYLES: dict[Verdict, str] = {
    "confirmed": "green",
    "not confirmed": "bold red",
    "not measurable here": "yellow",
}


@dataclass(frozen=True)
class _Column:
    title: str
    rank: int
    right: bool
    cells: tuple[str, ...]
    width: int


@dataclass(frozen=True)
class _Row:
    """One line of a table: its name, a style for some of its columns, or words instead of figures."""

    name: str
    styles: dict[str, str]
    instead: str = ""


class _Page:
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

    def column(self, title: str, cells: Sequence[str], rank: int, *, right: bool) -> _Column:
        """A column as wide as its cells need, and never wider than a cell may be."""
        shown = tuple(map(self.can_show, cells))
        width = max(cell_len(text) for text in (title, *shown))
        return _Column(self.can_show(title), rank, right, shown, min(width, _LONGEST_COLUMN))


def _tells_something(column: _Column) -> bool:
    return bool(set(column.cells) - {words.NOTHING, words.NOTHING.translate(_ASCII)})


def _fitting(columns: Sequence[_Column], room: int) -> list[_Column]:
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


def _aligned(text: str, column: _Column) -> str:
    missing = " " * max(0, column.width - cell_len(text))
    return missing + text if column.right else text + missing


def _table(page: _Page, groups: Sequence[tuple[str, Sequence[_Row]]], columns: Sequence[_Column]) -> list[_Column]:
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


def _figures(page: _Page, row: _Row, name_width: int, cells: Sequence[tuple[_Column, str]]) -> None:
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


def _networks(page: _Page, record: RunRecord) -> None:
    page.heading("Trained networks")
    if not record.networks:
        page.line("No network was trained.", indent=2)
        return
    about = page.column("about", [words.one_line(n.about) for n in record.networks], 9, right=False)
    figures = [
        page.column(short, [cell(n) for n in record.networks], rank, right=numeric)
        for rank, (short, _, cell, numeric) in enumerate(words.NETWORK_COLUMNS)
    ]
    _table(page, [("", [_Row(words.one_line(n.id), {}) for n in record.networks])], [*figures, about])


def _row(artifact: ArtifactRecord) -> _Row:
    name = words.short_id(artifact)
    if artifact.status != "measured":
        return _Row(name, {}, words.outcome(artifact))
    lost = artifact.accuracy_drop is not None and artifact.accuracy_drop > 0
    style = "bold red" if words.is_loss(artifact) else "yellow" if lost else ""
    return _Row(name, {"diff": style, "acc %": style} if words.is_loss(artifact) else {"diff": style})


def _artifacts(page: _Page, record: RunRecord) -> None:
    page.heading("Artifacts, by route")
    if not record.artifacts:
        page.line("This run made no artifact.", indent=2)
        return
    routes = summary.routes(record)
    groups = [(words.one_line(route.route), [_row(a) for a in route.artifacts]) for route in routes]
    measured = [a for route in routes for a in route.artifacts if a.status == "measured"]
    columns = [page.column(c.short, [c.cell(a) for a in measured], c.rank, right=c.numeric) for c in words.COLUMNS]
    hidden = _table(page, groups, columns)
    if hidden:
        names = ", ".join(column.title for column in hidden)
        page.line((f"Not shown at this width: {names}. They are in report.md and report.html.", "dim"), indent=2)


def _findings(page: _Page, record: RunRecord) -> None:
    page.heading("What the run noticed")
    for group in summary.findings(record):
        mark = ("LOSS ", "bold red") if group.loss else ("note ", "yellow")
        page.line(mark, (words.one_line(group.title), "bold"), indent=2)
        for finding in group.facts:
            page.line(words.one_line(finding.artifact), ": ", words.one_line(finding.fact), indent=7)
        if group.cause:
            page.line(("cause: ", "dim"), words.one_line(group.cause), indent=7)
        if group.remedy:
            page.line(("remedy: ", "dim"), words.one_line(group.remedy), indent=7)
    if not record.findings:
        page.line("Nothing stood out.", indent=2)


def _explanations(page: _Page, record: RunRecord) -> None:
    """Those that differ from their network; what only shows a mismatch is in the other views."""
    differing = [each for each in explained(record) if each.differs]
    page.heading("Where the differences come from")
    for each in differing:
        style = "green" if each.explained else "bold red"
        page.line((words.one_line(each.artifact), "bold"), ": ", (each.verdict, style), indent=2)
        for sentence in sentences(each):
            page.line(sentence, indent=5)
    if not differing:
        page.line("No artifact is more than 0.2 points or one LSB away from its network.", indent=2)


def _placement(page: _Page, record: RunRecord) -> None:
    """How many of a route's files are all fast on each target; file by file it is in the other views."""
    targets = placement.targets(record)
    if not targets:
        return
    page.heading("On the NPUs: files that run on the fast unit entirely, of all")
    routes = list(dict.fromkeys(words.one_line(route) for route, *_ in placement.sums(record)))
    found = {
        (words.one_line(route), target): f"{fast}/{count}" for route, target, fast, count, _ in placement.sums(record)
    }
    columns = [
        page.column(
            words.one_line(target), [found.get((route, target), words.NOTHING) for route in routes], rank, right=True
        )
        for rank, target in enumerate(targets)
    ]
    _table(page, [("", [_Row(route, {}) for route in routes])], columns)
    worst = [blame for blame in placement.blamed(record) if blame.placement != "unverified"]
    for target in targets:
        for blame in [each for each in worst if each.target == target][:_REASONS]:
            files = words.plural(len(blame.artifacts), "file")
            page.line(
                (f"{words.one_line(target)} ", "bold"),
                words.one_line(f"{blame.op} {blame.placement}, {files}: {blame.reason}"),
                indent=2,
            )


def _claims(page: _Page, record: RunRecord) -> None:
    if not summary.on_the_article(record):
        return
    page.heading("The article's claims and warnings")
    for claim in record.claims:
        verdict = (claim.verdict, _VERDICT_STYLES[claim.verdict])
        page.line((f"{words.one_line(claim.id)} ", "bold"), verdict, ": ", words.one_line(claim.statement), indent=2)
        for sentence in claim.evidence:
            page.line("- ", words.one_line(sentence), indent=5)
    if not record.claims:
        page.line("No claim was examined.", indent=2)


def show(record: RunRecord, console: Console) -> None:
    """Print the record: networks, one row per artifact under its route, findings, claims, then the sum of it."""
    page = _Page(console)
    _networks(page, record)
    _artifacts(page, record)
    _findings(page, record)
    _explanations(page, record)
    _placement(page, record)
    _claims(page, record)
    page.heading("In short")
    for sentence in (*(headline.sentence for headline in summary.headlines(record)), *record.notes):
        page.line("- ", words.one_line(sentence), indent=2)
