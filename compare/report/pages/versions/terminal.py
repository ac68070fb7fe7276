"""The matrix on the terminal: a table of toolchains and routes, what went wrong and why, what to take."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compare.report.pages.versions import words
from compare.report.records.versions import CellRecord, VersionsRecord
from compare.report.words import duration, plural

_STYLES = {"clean": "green", "differs": "yellow", "loses": "bold red", "refused": "yellow", "failed": "red"}


def show(record: VersionsRecord, console: Console) -> None:
    """Print the record; as wide as the terminal is."""
    places = words.by_place(record)
    console.print(
        f"{record.model}: {plural(record.samples, 'sample')}, {plural(len(record.cells), 'combination')} of toolchain and "
        f"route, {plural(len(record.runtimes), 'runtime')}, {duration(record.seconds)}",
        style="bold",
        markup=False,
    )
    for route in record.routes:
        validated = "" if route.accuracy is None else f"; validated at {100 * route.accuracy:.2f} %"
        console.print(f"\n{route.name}  ({route.about}{validated})", style="bold", markup=False)
        table = Table(box=None, pad_edge=False, show_header=True)
        for title in ("toolchain", "", "%", "changed", "LSB", "runs on", "catalogue"):
            table.add_column(
                title, no_wrap=title != "catalogue", justify="right" if title in ("%", "changed", "LSB") else "left"
            )
        for toolchain in words.producers(record):
            cell = places.get((toolchain, route.name))
            if cell is not None:
                table.add_row(*_row(cell))
        console.print(table)
    for kind in ("not made", "silent", "not run"):
        found = [each for each in words.troubles(record) if each.kind == kind]
        if found:
            console.print(f"\n{kind.capitalize()}", style="bold")
        for each in found:
            names = "; ".join(f"{one} {name}" for one, name in zip(each.ids, each.names, strict=True))
            console.print(
                f"  {names or 'no entry of the catalogue explains it'}",
                style="bold" if names else "bold red",
                markup=False,
            )
            console.print(f"    {each.said}", markup=False)
            console.print(f"    {words.shortened(each.places)}", markup=False, style="dim")
            if each.remedy:
                console.print(f"    {each.remedy}", markup=False, style="green")
    console.print("\nWhat to take", style="bold")
    for recommendation in record.recommendations:
        console.print(f"  {recommendation.sentence}", markup=False)
    console.print(f"  {words.verdict(record)}", markup=False)
    for note in record.notes:
        console.print(f"  {note}", markup=False, style="dim")


def _row(cell: CellRecord) -> list[Text]:
    cells = [
        cell.toolchain, words.MARKS[cell.status], words.figure(cell), words.changed(cell), words.largest_lsb(cell),
        words.runtimes_that_run(cell), words.ids(words.sure_first(cell.causes)),
    ]  # fmt: skip
    return [Text(text, style=_STYLES[cell.status] if index == 1 else "") for index, text in enumerate(cells)]
