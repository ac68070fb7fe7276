"""What every chart is drawn with: a canvas measured in pixels, colours a page can darken, text that is only text."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from compare.report.words import one_line

# Okabe and Ito's palette, which colour-blind readers tell apart; page.css lightens it on a dark page. Every colour
# becomes a CSS variable with itself as the fallback, so that a chart also stands alone.
COLOURS = {
    "ink": "#1c2127", "soft": "#5c6670", "line": "#d5dae0", "blue": "#0072b2", "loss": "#c84a00", "green": "#009e73",
    "orange": "#d18f00", "sky": "#3d9fd6", "pink": "#b9658f", "brown": "#7a5c3e", "paper": "#fffffe",
}  # fmt: skip
SERIES = ("blue", "orange", "green", "pink", "sky", "brown", "loss", "ink")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""As many as are coprime with the colours: 56 modes before one repeats."""

WIDTH = 880
FONT = 12
LABEL_CHARACTERS = 56
CHARACTER = 6.6
"""Generous width of a character at 12 px: no text is measured, the reader's font is not known."""


class Canvas:
    """A matplotlib figure measured in pixels."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self.figure: Any = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)

    def axes(self, left: float, top: float, right: float, bottom: float) -> Any:
        """Axes inside the given margins, without a frame."""
        box = (left / WIDTH, bottom / self.height, (WIDTH - left - right) / WIDTH, 1 - (top + bottom) / self.height)
        axes = self.figure.add_axes(box)
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=FONT - 1, labelcolor=COLOURS["soft"], pad=5)
        axes.set_axisbelow(True)
        return axes

    def svg(self, name: str, title: str, description: str) -> str:
        """The figure as an <svg> element that scales, names itself, and holds nothing of the day it was made."""
        import matplotlib as mpl

        settings = {"svg.hashsalt": name, "svg.fonttype": "none", "font.size": FONT, "path.simplify": False}
        out = io.StringIO()
        with mpl.rc_context(settings), warnings.catch_warnings():
            # The reader's font draws the text, so what matplotlib's own font lacks does not matter.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            self.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _embeddable(out.getvalue(), name, title, description, self.height)


def _embeddable(svg: str, name: str, title: str, description: str, height: float) -> str:
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index(">", svg.index("<svg")) + 1 :], flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", " ".join(re.findall(r'(?:url\([^)]*\)|href="[^"]*")', body))))
    body = re.sub(r' id="([^"]*)"', lambda match: match.group(0) if match.group(1) in used else "", body)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r" ?font-family: [^;\"]*;?", "", body)
    for colour, value in COLOURS.items():
        body = body.replace(value, f"var(--chart-{colour}, {value})")
    body = re.sub(r">\s*\n\s*<", ">\n<", body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="chart" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'font-family="system-ui, sans-serif">\n'
        f'<title id="{name}-title">{html.escape(title)}</title>\n'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>{body.strip()}\n'
    )


def short(label: str, limit: int = LABEL_CHARACTERS) -> str:
    """The label, its middle left out where it is too long: the ends tell artifacts apart."""
    text = one_line(label)
    half = limit // 2 - 1
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def write(axes: Any, x: float, y: float, text: str, colour: str = "ink", **more: Any) -> None:
    """Data as text, never read as a formula."""
    axes.text(x, y, text, color=COLOURS[colour], va="center_baseline", parse_math=False, **{"fontsize": FONT, **more})


def to_the_right(axes: Any, y: float, figures: Sequence[tuple[float, str, str]]) -> None:
    """Figures in columns right of the axes: (pixels from the edge, text, colour)."""
    for offset, text, colour in figures:
        axes.annotate(
            text, (1, y), (offset, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha="right",
            va="center_baseline", fontsize=FONT, color=COLOURS[colour], parse_math=False, annotation_clip=False,
        )  # fmt: skip
