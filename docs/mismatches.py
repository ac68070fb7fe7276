"""Writes docs/mismatches.md from the catalogue: `python docs/mismatches.py`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compare.mismatches import Mismatch

PAGE = Path(__file__).with_suffix(".md")

_HEAD = """# The catalogue of mismatches

<!-- Written by docs/mismatches.py from compare/mismatches; a test fails when this page is stale. -->

What goes wrong between training and an int8 `.tflite`, each entry with a live reproduction, a detector, a way out and
what it costs at least in its reproduction (`tests/compare/mismatches`). `python -m compare.doctor model.onnx model.tflite` looks
for all of them in your own files. Entries are numbered once and for all; gaps are entries that this kind of machine
cannot reproduce, or that turned out to be another's.

What each can mean for the files it is seen in:"""
_GATE = """Only a fault that is sure, and a difference between the files that no entry explains, make
`compare.doctor --fail` and `assert_no_mismatch` fail. A place can weigh more or less than its entry, and then says so."""


def page() -> str:
    """The whole page."""
    from compare.mismatches import SEVERITIES, catalogue

    entries = catalogue()
    rows = [
        f"| [{entry.id}](#{entry.id.lower()}) | {_cell(entry.name)} | {entry.severity} | {entry.side} |"
        for entry in entries
    ]
    table = "\n".join(["| id | name | severity | where |", "| --- | --- | --- | --- |", *rows])
    meanings = "\n".join(f"- **{severity}**: {meaning}." for severity, meaning in SEVERITIES.items())
    return "\n\n".join([_HEAD, meanings, _GATE, table, *(_section(entry) for entry in entries)]) + "\n"


def _section(entry: Mismatch) -> str:
    effect = f"{entry.effect.quantity}: at least {entry.effect.at_least:g}"
    lines = [
        f'## <a id="{entry.id.lower()}"></a>{entry.id}: {entry.name}',
        f"{entry.cause}\n\n**Way out.** {entry.way_out}",
        f"- Severity: {entry.severity}\n"
        f"- Seen when: {_sentence(entry.detect)}\n"
        f"- Reproduction: {_sentence(entry.reproduce)}\n"
        f"- Costs there: {effect}\n"
        f"- Repair: {'automatic' if entry.automatic else 'by hand; the reproduction is built again the right way'}"
        + (f"\n- Rightly seen with it: {', '.join(entry.brings)}" if entry.brings else "")
        + f"\n- With: {entry.versions}\n- Source: {entry.source}",
    ]
    return "\n\n".join(lines)


def _sentence(function: object) -> str:
    return " ".join((inspect.getdoc(function) or "").split()) or "see the module"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1]))
    PAGE.write_text(page(), encoding="utf-8")
