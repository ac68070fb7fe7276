"""Figures as text: one wording for all pages and all views."""

from __future__ import annotations

import re

NOTHING = "–"
"""Stands where a figure was not measured or does not apply."""

# ANSI escapes (onnx2tf colours its log), other control characters, and the marks that reverse the reading direction.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def clean(text: str) -> str:
    """The text without colour codes and control characters; line ends stay, a progress bar's rewrites become lines."""
    return _CONTROL.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def one_line(text: str) -> str:
    """The text cleaned and on one line."""
    return " ".join(clean(text).split())


def percent(share: float | None, digits: int = 2) -> str:
    """0.9685 as `96.85`, without the sign."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}"


def points(drop: float | None) -> str:
    """An accuracy drop of 0.111 as `−11.10`: the difference from the network, in percentage points, signed."""
    if drop is None:
        return NOTHING
    text = f"{-100 * drop:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "−")


def number(value: float | None) -> str:
    """Three significant figures, thousands grouped, no exponent where a reader would stumble over it."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def scale(value: float | None) -> str:
    """A quantization scale with the six figures that tell two float32 scales apart to the eye."""
    return NOTHING if value is None else f"{value:.6g}"


def milliseconds(value: float | None) -> str:
    """`0.0068`, `0.021`, `1.53`: down to a tenth of a microsecond, where small networks live."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}" if value < 1 else number(value)


def duration(seconds: float | None) -> str:
    """`0.4 s`, `41 s`, `2 min 3 s`."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plural(count: int, noun: str) -> str:
    """`1 class`, `2,000 classes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def pairs(settings: dict[str, str] | dict[str, str | int | float]) -> str:
    """`mode=integer-only, entry=concrete`."""
    return ", ".join(f"{one_line(key)}={one_line(str(value))}" for key, value in settings.items()) or NOTHING


def kilobytes_of(size: int | None) -> str:
    """Bytes in KB of 1,024."""
    return NOTHING if size is None else f"{size / 1024:,.1f}"
