"""Where every command prints: a `Console` on which a stranger's names cannot act, and JSON on standard output."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from bridge.errors import one_line, printable


class Terminal(Console):
    """Rich's console; control characters in what is printed are spelled out, rich's own go through.

    Nothing is highlighted unless asked for: rich's patterns take seconds for a name of 10,000 characters.
    """

    def __init__(self, *, highlight: bool = False, **options: Any) -> None:
        super().__init__(highlight=highlight, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.replace("\n", "").isprintable()):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

    def print_line(self, text: str, style: str = "", end: str = "\n") -> None:
        """One line, whatever names it holds: a line break in them is spelled out, and their brackets are no markup."""
        self.print(one_line(text), style=style, end=end, markup=False)

    def on_broken_pipe(self) -> None:
        """Rich would end the process here; `exit_codes` says it in a sentence."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def write_json(record: Any, indent: int | None = None) -> None:
    """One JSON record on standard output; everything beyond ASCII is escaped."""
    write(json.dumps(record, indent=indent) + "\n")


def write(text: str) -> None:
    """Plain text on standard output, which may be closed (`>&-`)."""
    if sys.stdout is None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    sys.stdout.write(text)
