"""The record's figures as SVG charts, each drawn alone, deterministic, and None when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from compare.report import words
from compare.report.charts import (
    CHARACTER,
    COLOURS,
    FONT,
    LABEL_CHARACTERS,
    MARKERS,
    SERIES,
    WIDTH,
    Canvas,
    short,
    to_the_right,
    write,
)
from compare.report.pages.run import figures, summary
from compare.report.records.run import UNEXPLAINED_LSB, ArtifactRecord, RunRecord

_ROW = 19
_HEADING_CHARACTERS = 100


@dataclass(frozen=True)
class _Row:
    """One line of a row chart; a `heading` has no figures."""

    label: str
    artifact: ArtifactRecord | None = None


def _grouped(artifacts: Iterable[ArtifactRecord], heading: Callable[[ArtifactRecord], str]) -> list[_Row]:
    """Rows under the headings they share, in the order of first appearance."""
    groups: dict[str, list[_Row]] = {}
    for artifact in artifacts:
        groups.setdefault(heading(artifact), []).append(_Row(figures.short_id(artifact), artifact))
    return [row for title, rows in groups.items() for row in (_Row(title), *rows)]


def _row_axes(rows: Sequence[_Row], right: float) -> tuple[Canvas, Any]:
    """Axes with one line per row, labels to their left, the first row on top, and the scale above it."""
    longest = max((len(short(row.label)) for row in rows if row.artifact), default=12)
    canvas = Canvas(len(rows) * _ROW + 44)
    axes = canvas.axes(24 + longest * CHARACTER, 34, right, 10)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.grid(axis="x", color=COLOURS["line"], linewidth=0.8)
    left = {"ha": "right", "transform": axes.get_yaxis_transform()}
    for y, row in enumerate(rows):
        if row.artifact is None:
            heading = short(row.label, _HEADING_CHARACTERS)
            axes.annotate(heading, (0, y), (10, 0), xycoords=("figure pixels", "data"), textcoords="offset points",
                          va="center_baseline", fontsize=FONT, weight="bold", color=COLOURS["ink"], parse_math=False,
                          annotation_clip=False)  # fmt: skip
            axes.axhline(y - 0.5, color=COLOURS["line"], linewidth=0.8, xmin=-1, clip_on=False) if y else None
        else:
            write(axes, -0.012, y, short(row.label), "loss" if figures.is_loss(row.artifact) else "ink", **left)
    return canvas, axes


def _accuracy_rows(rows: Sequence[_Row], name: str, title: str, description: str) -> str:
    """Each artifact's accuracy as a dot, its network's as a tick, and the way from one to the other as a bar."""
    canvas, axes = _row_axes(rows, right=132)
    to_the_right(axes, -1.15, [(62, "%", "soft"), (122, "points", "soft")])
    shown: list[float] = []
    for y, row in enumerate(rows):
        artifact = row.artifact
        if artifact is None or artifact.accuracy is None:
            continue
        accuracy = 100 * artifact.accuracy
        colour = "loss" if figures.is_loss(artifact) else "blue"
        shown.append(accuracy)
        if artifact.accuracy_drop is not None:
            reference = accuracy + 100 * artifact.accuracy_drop
            shown.append(reference)
            axes.plot([accuracy, reference], [y, y], color=COLOURS[colour], linewidth=3, alpha=0.35,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot([reference] * 2, [y - 0.36, y + 0.36], color=COLOURS["ink"], linewidth=1.6)
        axes.plot([accuracy], [y], "o", color=COLOURS[colour], markersize=7, markeredgecolor=COLOURS["paper"])
        to_the_right(axes, y, [(62, words.percent(artifact.accuracy), colour if colour == "loss" else "ink"),
                                (122, words.points(artifact.accuracy_drop), colour if colour == "loss" else "soft")])  # fmt: skip
    low, high = min(shown), max(shown)
    margin = max(0.5, 0.04 * (high - low))
    axes.set_xlim(low - margin, high + margin)
    return canvas.svg(name, title, description)


def accuracy(record: RunRecord) -> str | None:
    """Every artifact's accuracy against its network's, grouped by route; poor calibration on purpose left out.

    That data (warning W3) would stretch the scale until no other loss could be seen; it has its own chart.
    """
    artifacts = [a for a in record.artifacts if a.accuracy is not None and summary.soundly_calibrated(a)]
    if not artifacts:
        return None
    lost = [words.one_line(a.id) for a in artifacts if figures.is_loss(a)]
    told = f"A point or more is lost by {', '.join(lost)}." if lost else "None loses a point or more."
    return _accuracy_rows(
        _grouped(artifacts, lambda a: words.one_line(a.route)), "chart-accuracy", "Accuracy of every artifact",
        f"Dots: accuracy of {len(artifacts)} artifacts. Ticks: accuracy of the network each came from. {told}",
    )  # fmt: skip


def calibration(record: RunRecord) -> str | None:
    """The same conversion calibrated on different data (warning W3)."""
    series: dict[str, list[ArtifactRecord]] = {}
    for artifact in record.artifacts:
        if artifact.accuracy is None:
            continue
        others = [f"{key} {value}" for key, value in artifact.settings.items() if key != "calibration"]
        series.setdefault(" · ".join([artifact.route, artifact.network, *others]), []).append(artifact)
    compared = {key: same for key, same in series.items() if len({summary.calibrated_on(a) for a in same}) > 1}
    if not compared:
        return None
    rows = [
        row for key, same in compared.items() for row in (_Row(key), *(_Row(summary.calibrated_on(a), a) for a in same))
    ]
    told = ", ".join(f"{words.one_line(row.label)} {words.percent(row.artifact.accuracy)} %"
                     for row in rows if row.artifact)  # fmt: skip
    return _accuracy_rows(rows, "chart-calibration", "Accuracy by calibration data", f"Accuracy calibrated on: {told}.")


def changed(record: RunRecord) -> str | None:
    """How many test images each artifact classifies differently from its network, most first; zeros are counted."""
    known = [a for a in record.artifacts if a.disagreements is not None]
    some = sorted((a for a in known if a.disagreements), key=lambda a: -(a.disagreements or 0))
    if not known:
        return None
    rest, noun = len(known) - len(some), summary.sample(record).rpartition(" ")[2]
    heading = f"{words.plural(rest, 'artifact')} of {len(known)}: no {noun} changes class"
    rows = [*(_Row(a.id, a) for a in some), _Row(heading)] if rest else [_Row(a.id, a) for a in some]
    canvas, axes = _row_axes(rows, right=70)
    counts = [a.disagreements or 0 for a in some]
    logarithmic = bool(counts) and max(counts) > 50 * min(counts)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(0.7, max(counts) * 1.1)
    else:
        axes.set_xlim(0, max(counts, default=1) * 1.05)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 or value == 0 else "")
    axes.minorticks_off()
    to_the_right(axes, -1.15, [(60, f"{noun}s", "soft")])
    if logarithmic:
        write(axes, -0.012, -1.15, "logarithmic scale", "soft", ha="right", transform=axes.get_yaxis_transform())
    for y, row in enumerate(rows):
        if row.artifact is None:
            continue
        colour = "loss" if figures.is_loss(row.artifact) else "blue"
        axes.barh(y, row.artifact.disagreements, height=0.62, color=COLOURS[colour])
        to_the_right(axes, y, [(60, f"{row.artifact.disagreements:,}", colour if colour == "loss" else "ink")])
    scale = " The scale is logarithmic." if logarithmic else ""
    most = f" Most: {words.one_line(some[0].id)}, {some[0].disagreements:,}." if some else ""
    return canvas.svg("chart-changed", "Images that change class", f"{heading}.{most}{scale}")


def size_and_latency(record: RunRecord) -> str | None:
    """Size against median latency, one mark per artifact, shape and colour by conversion mode."""
    points = [(a, a.size, a.latency_median_ms) for a in record.artifacts if a.size and a.latency_median_ms]
    if not points:
        return None
    modes: dict[str, list[tuple[ArtifactRecord, float, float]]] = {}
    for artifact, size, median in points:
        mode = words.one_line(artifact.settings.get("mode", artifact.route))
        modes.setdefault(mode, []).append((artifact, size / 1024, median))
    legend = 44 + min(LABEL_CHARACTERS, max(len(mode) for mode in modes) + 6) * CHARACTER
    canvas = Canvas(max(360, len(modes) * 24 + 90))
    axes = canvas.axes(74, 14, legend, 52)
    axes.grid(color=COLOURS["line"], linewidth=0.8)
    for index, (mode, marks) in enumerate(modes.items()):
        style = {"color": COLOURS[SERIES[index % len(SERIES)]], "marker": MARKERS[index % len(MARKERS)]}
        for artifact, kilobytes, median in marks:
            if artifact.latency_p90_ms:
                axes.plot([kilobytes] * 2, [median, max(median, artifact.latency_p90_ms)], color=style["color"],
                          linewidth=1, alpha=0.35)  # fmt: skip
        axes.plot([k for _, k, _ in marks], [m for _, _, m in marks], linestyle="none", markersize=8, alpha=0.85,
                  markeredgecolor=COLOURS["paper"], **style)  # fmt: skip
        y = 1 - (index * 24 + 10) / (canvas.height - 66)
        x = 1 + 26 / (WIDTH - 74 - legend)
        axes.plot([x], [y], transform=axes.transAxes, clip_on=False, markersize=8, linestyle="none", **style)
        write(axes, x + 0.022, y, f"{short(mode)} ({len(marks)})", transform=axes.transAxes)
    _log_where_it_helps(axes.set_xscale, axes.set_xlim, axes.xaxis, [size / 1024 for _, size, _ in points])
    _log_where_it_helps(axes.set_yscale, axes.set_ylim, axes.yaxis,
                        [t for a, _, m in points for t in (m, a.latency_p90_ms or m)])  # fmt: skip
    axes.set_xlabel("size of the file, KB", color=COLOURS["soft"], fontsize=FONT, labelpad=8)
    axes.set_ylabel("median latency, ms (line: up to p90)", color=COLOURS["soft"], fontsize=FONT, labelpad=8)
    small, fast = min(points, key=lambda p: p[1])[0], min(points, key=lambda p: p[2])[0]
    told = (
        f"{len(points)} artifacts. Smallest: {words.one_line(small.id)}, {figures.kilobytes(small)} KB. "
        f"Fastest: {words.one_line(fast.id)}, {words.milliseconds(fast.latency_median_ms)} ms."
    )
    return canvas.svg("chart-size", "Size and latency", told)


def _log_where_it_helps(set_scale: Any, set_limits: Any, axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with round numbers when the values span a factor of five, else one that starts at 0."""
    from matplotlib.ticker import LogLocator

    low, high = min(values), max(values)
    if high <= 5 * low:
        set_limits(0, high * 1.12)
    else:
        set_scale("log")
        set_limits(low / 1.3, high * 1.3)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(LogLocator(subs=()))
    axis.set_major_formatter(lambda value, _: f"{value:.4g}")


def trained_scales(record: RunRecord) -> str | None:
    """Each file's activation scales relative to the trained ones, one panel per place in the network."""
    artifacts = [a for a in record.artifacts if a.scales]
    if not artifacts:
        return None
    roles = list(dict.fromkeys(item.role for a in artifacts for item in a.scales))
    rows = _grouped(artifacts, lambda a: words.one_line(a.route))
    canvas, first = _row_axes(rows, right=20)
    first.set_xticks([])
    box = first.get_position()
    width = box.width / len(roles)
    away = [abs(s.file_scale / s.trained_scale - 1) for a in artifacts for s in a.scales if s.file_scale is not None]
    reach = 1.35 * max([0.05, *(min(1.0, a) for a in away)])
    again = sum(not item.kept for a in artifacts for item in a.scales)
    for column, role in enumerate(roles):
        axes = canvas.figure.add_axes((box.x0 + (column + 0.1) * width, box.y0, 0.8 * width, box.height))
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_axis_off()
        axes.axvline(0, color=COLOURS["line"], linewidth=1.2)
        write(axes, 0, -1.1, short(role), "soft", ha="center")
        for y, row in enumerate(rows):
            for item in row.artifact.scales if row.artifact else ():
                if item.role == role:
                    _scale_mark(axes, y, item.kept, item.trained_scale, item.file_scale, reach)
    total = sum(len(a.scales) for a in artifacts)
    return canvas.svg("chart-scales", "Trained activation scales: kept, or estimated again",
                      f"{total} trained scales in {len(artifacts)} artifacts: {total - again} kept, {again} not kept.")  # fmt: skip


def drift(record: RunRecord) -> str | None:
    """How far each layer is from the network's, one panel per layer, for the artifacts that leave it by more than an LSB."""
    traced = [a for a in record.artifacts if a.layers]
    away = [a for a in traced if any(layer.max_lsb > UNEXPLAINED_LSB for layer in a.layers)]
    if not traced:
        return None
    rest = len(traced) - len(away)
    rows = _grouped(away, lambda a: words.one_line(a.route))
    rows += (
        [_Row(f"{words.plural(rest, 'artifact')} of {len(traced)}: no layer is more than one LSB away")] if rest else []
    )
    canvas, first = _row_axes(rows, right=20)
    first.set_xticks([])
    names = list(dict.fromkeys(words.one_line(layer.op) for a in away for layer in a.layers))
    box, most = first.get_position(), max((layer.max_lsb for a in away for layer in a.layers), default=1.0)
    for column, name in enumerate(names):
        width = box.width / len(names)
        axes = canvas.figure.add_axes((box.x0 + (column + 0.08) * width, box.y0, 0.84 * width, box.height))
        axes.set_xscale("log")
        axes.set_xlim(0.3, most * 12)  # room for the figures
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_axis_off()
        axes.axvline(1, color=COLOURS["line"], linewidth=1.2)
        write(axes, 1, -1.1, short(name, 22), "soft", ha="left")
        for y, row in enumerate(rows):
            for index, layer in enumerate(row.artifact.layers if row.artifact else ()):
                if words.one_line(layer.op) == name and row.artifact:
                    beyond = [other.max_lsb > UNEXPLAINED_LSB for other in row.artifact.layers]
                    _drift_mark(axes, y, layer.max_lsb, guilty=beyond[index] and not any(beyond[:index]))
    guilty = [(a, next(layer for layer in a.layers if layer.max_lsb > UNEXPLAINED_LSB)) for a in away]
    told = "; ".join(f"{words.one_line(a.id)} first at {words.one_line(layer.op)}" for a, layer in guilty)
    return canvas.svg("chart-drift", "Drift along the network", f"{len(away)} of {len(traced)} leave it. {told}")


def _drift_mark(axes: Any, y: float, lsb: float, *, guilty: bool) -> None:
    colour = "loss" if guilty else "blue"
    x = max(lsb, 0.3)
    axes.plot([1, x], [y, y], color=COLOURS[colour], linewidth=3, alpha=0.3, solid_capstyle="butt")
    axes.plot([x], [y], "o", color=COLOURS[colour], markersize=6)
    write(axes, x * 1.35, y, words.number(lsb), "loss" if guilty else "soft", fontsize=FONT - 1)


def _scale_mark(axes: Any, y: float, kept: bool, trained: float, found: float | None, reach: float) -> None:
    """A dot on the line where the scale was kept; else an open diamond where it went, with the change in percent."""
    if kept:
        axes.plot([0], [y], "o", color=COLOURS["blue"], markersize=7)
        return
    change = 0.0 if found is None else found / trained - 1
    x = max(-0.95 * reach, min(0.95 * reach, change))
    axes.plot([0, x], [y, y], color=COLOURS["loss"], linewidth=3, alpha=0.3, solid_capstyle="butt")
    axes.plot([x], [y], "D", color=COLOURS["loss"], markersize=6, fillstyle="none", markeredgewidth=1.6)
    label = "none in file" if found is None else "zero point" if round(1000 * change) == 0 else _percent_change(change)
    side = -1 if x > 0 else 1  # on the empty side of the line
    write(axes, side * 0.07 * reach, y, label, "loss", ha="right" if side < 0 else "left", fontsize=FONT - 1)


def _percent_change(change: float) -> str:
    return f"{100 * change:+,.1f} %".replace("-", "−")
