"""A sweep's summary on the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from compare.report.markdown import code, prose, table
from compare.report.records.sweep import Interval, Line, OwnLine, Summary
from compare.report.words import number, percent, plural

HEADER = (
    "accuracy, %", "against its network, points", "against the exact bridge, points", "lost", "gained", "worst LSB",
    "seeds", "failed",
)  # fmt: skip
OWN_HEADER = ("accuracy, %", "its network's, %", "changed", "worst LSB", "equal, %", "failed because")
_SHOWN = ("%", "network", "exact", "lost", "gained", "LSB", "seeds", "failed")
"""HEADER on a terminal."""
_NARROW = (0, 1, 5)
"""Which of them fit where lines have no more than _WIDE characters."""
_WIDE = 120
_MIXED = "Code or package versions changed on the way: run the whole sweep again before comparing seeds."


def render(summary: Summary, digest: str) -> str:
    """The two tables and the failures; `±` is half a 95 % confidence interval over seeds."""
    lines = [
        "# Sweep",
        "",
        f"{summary.rows:,} rows, {summary.seeds} seeds; digest of the figures `{digest}`.",
        "",
        "± is half of a 95 % Student-t interval over seeds; differences are paired, seed by seed, on the same images. Lost and",
        "gained: test images that the network has right and the file wrong, and the other way round, on average.",
        "",
        "## By route",
        "",
        "Without the artifacts that are given wrong calibration data on purpose.",
        "",
        *table(("route", *HEADER), [_cells(line, summary.routes) for line in summary.routes], [False] + [True] * 8),
        "## By artifact",
        "",
        *table(
            ("artifact", *HEADER), [_cells(line, summary.artifacts) for line in summary.artifacts], [False] + [True] * 8
        ),
    ]
    if summary.own:
        own = [(code(line.model), code(line.route), code(line.toolchain), *_own(line)) for line in summary.own]
        numeric = [False] * 3 + [True] * 5 + [False]
        lines += ["## Your own models", "", *table(("model", "route", "toolchain", *OWN_HEADER), own, numeric)]
    if len(summary.made_with) > 1:
        lines += [f"**{_MIXED}**", ""]
    if summary.failures:
        rows = [(str(count), prose(reason)) for reason, count in summary.failures.items()]
        lines += ["## What failed", "", *table(("rows", "reason"), rows, (True, False))]
    return "\n".join(lines).rstrip() + "\n"


def _cells(line: Line, lines: Sequence[Line]) -> list[str]:
    return [code(_name(line, lines)), *_figures(line)]


def _name(line: Line, lines: Sequence[Line]) -> str:
    """With toolchain and preset where there are several."""
    parts = [line.name]
    parts += [line.toolchain] if len({each.toolchain for each in lines}) > 1 else []
    parts += [line.preset] if len({each.preset for each in lines}) > 1 else []
    return " · ".join(parts)


def _figures(line: Line) -> list[str]:
    return [
        _percent(line.accuracy, signed=False), _percent(line.against_network, signed=True),
        "–" if line.against_exact is None else _percent(line.against_exact, signed=True),
        f"{line.lost:.1f}", f"{line.gained:.1f}", number(line.worst_lsb), str(line.seeds), str(line.failed or ""),
    ]  # fmt: skip


def _own(line: OwnLine) -> list[str]:
    return [
        percent(line.accuracy), percent(line.reference_accuracy), "" if line.changed is None else f"{line.changed:,}",
        "" if line.max_lsb is None else number(line.max_lsb), percent(line.equal), prose(line.reason or ""),
    ]  # fmt: skip


def _percent(value: Interval, *, signed: bool) -> str:
    """`95.95 ± 0.21`; without the interval where one seed says nothing of others."""
    mean = f"{100 * value.mean:{'+' if signed else ''}.2f}".replace("-", "−")
    mean = "0.00" if mean in ("+0.00", "−0.00") else mean
    return mean if value.half_width is None else f"{mean} ± {100 * value.half_width:.2f}"


def show(summary: Summary, digest: str, console: Console) -> None:
    """Print the summary: accuracy, points against the network and against the exact bridge, and more where it fits."""
    columns = range(len(_SHOWN)) if console.width > _WIDE else _NARROW
    for title, lines in (("By route", summary.routes), ("By artifact", summary.artifacts)):
        if lines:
            rows = [(_name(line, lines), *(_figures(line)[column] for column in columns)) for line in lines]
            _print(console, title, [_SHOWN[column] for column in columns], rows)
    for model in dict.fromkeys(line.model for line in summary.own):
        own = [line for line in summary.own if line.model == model]
        rows = [(f"{line.route} · {line.toolchain}", *_own(line)[:5]) for line in own]
        _print(console, model, ("%", "network", "changed", "LSB", "equal %"), rows)
        for line in own:
            if line.reason is not None:
                console.print(f"  {line.route} · {line.toolchain}: {line.reason}"[:300], markup=False, style="yellow")
    if any(line.accuracy.half_width is None for line in summary.artifacts):
        console.print("One seed has no interval: add seeds.", style="dim")
    if len(summary.made_with) > 1:
        console.print(_MIXED, style="yellow", soft_wrap=True)
    for reason, count in summary.failures.items():
        console.print(f"{count} rows failed: {reason}", markup=False, style="yellow", soft_wrap=True)
    console.print(f"\n{plural(summary.rows, 'row')}, {plural(summary.seeds, 'seed')}; figures {digest}", soft_wrap=True)


def _print(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    grid = Table(box=None, pad_edge=False)
    grid.add_column("", overflow="fold")
    for heading in headings:
        grid.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console.print(f"\n{title}", style="bold", markup=False)
    console.print(grid)
