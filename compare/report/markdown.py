"""The record as `report.md`: GitHub Markdown, every figure and its provenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compare.report import placement
from compare.report.explained import HEADER, explained
from compare.report.record import ArtifactRecord, ClaimRecord, RunRecord
from compare.report.summary import TITLE, findings, headlines, how_to_read, provenance, routes, warnings
from compare.report.words import (
    COLUMNS,
    NETWORK_COLUMNS,
    NOTHING,
    Column,
    duration,
    is_loss,
    number,
    one_line,
    outcome,
    pairs,
    percent,
    points,
    scale,
)


def _text(data: str) -> str:
    """Data as prose: on one line, and nothing in it read as Markdown, HTML or the end of a table cell."""
    escaped = re.sub(r"([\\`*\[\]|~$])", r"\\\1", one_line(data)).replace("&", "&amp;")
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped.replace("<", "&lt;").replace(">", "&gt;"))
    return re.sub(r"^([#+-]|\d+(?=[.)](?:\s|$)))", _escape_list_mark, escaped)


def _escape_list_mark(match: re.Match[str]) -> str:
    mark = match.group(1)
    return f"{mark}&#8203;" if mark.isdigit() else f"\\{mark}"


def _code(data: str) -> str:
    """Data as a code span that no backtick in it can end."""
    content = one_line(data).replace("|", "\\|")
    if not content:
        return NOTHING
    fence = "`" * (max(map(len, re.findall("`+", content)), default=0) + 1)
    padding = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{padding}{content}{padding}{fence}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool]) -> list[str]:
    marks = ["---:" if right else "---" for right in numeric]
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)] + [""]


def _networks(record: RunRecord) -> list[str]:
    if not record.networks:
        return ["No network was trained.", ""]
    header = ("Network", *(title for _, title, _, _ in NETWORK_COLUMNS), "About")
    rows = [
        (_code(n.id), *(_text(cell(n)) for _, _, cell, _ in NETWORK_COLUMNS), _text(n.about)) for n in record.networks
    ]
    return _table(header, rows, (False, *(numeric for *_, numeric in NETWORK_COLUMNS), False))


def _routes(record: RunRecord) -> list[str]:
    header = ("Route", "Measured", "Failed", "Skipped", "Largest loss, points", "Most changed classes",
              "All-integer files", "Trained scales kept")  # fmt: skip
    rows = [
        (
            _code(r.route), *(str(r.count(status)) for status in ("measured", "failed", "skipped")),
            points(r.worst.accuracy_drop) if r.worst else NOTHING,
            NOTHING if r.most_changed is None else f"{r.most_changed:,}", r.integer_files, r.scales_kept,
        )
        for r in routes(record)
    ]  # fmt: skip
    note = "Artifacts calibrated on poor data on purpose (W3) are left out of the last four columns."
    return [*_table(header, rows, (False, *(True,) * 7)), note, ""]


def _artifacts(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for route in routes(record):
        lines += [f"### {_text(route.route)}", ""]
        measured = [a for a in route.artifacts if a.status == "measured"]
        if measured:
            rows = [(_code(a.id), *(_cell(c, a) for c in COLUMNS)) for a in measured]
            lines += _table(("Artifact", *(c.title for c in COLUMNS)), rows, (False, *(c.numeric for c in COLUMNS)))
        others = [a for a in route.artifacts if a.status != "measured"]
        lines += [f"- {_code(a.id)} {_text(outcome(a))}" for a in others] + ([""] if others else [])
    return lines


def _cell(column: Column, artifact: ArtifactRecord) -> str:
    text = column.cell(artifact)
    if column.short == "diff" and is_loss(artifact):
        return f"**{text}**"
    return text if column.numeric else _text(text)


def _findings(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for group in findings(record):
        lines += [f"- {'**Loss:** ' if group.loss else ''}**{_text(group.title)}**"]
        lines += [f"  - {_code(f.artifact)}: {_text(f.fact)}" for f in group.facts]
        lines += [f"  - Cause: {_text(group.cause)}"] if group.cause else []
        lines += [f"  - Remedy: {_text(group.remedy)}"] if group.remedy else []
    return [*(lines or ["Nothing stood out."]), ""]


def _explanations(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for each in explained(record):
        verdict = _text(each.verdict) if each.explained else f"**{_text(each.verdict)}**"
        lines += [f"### {_code(each.artifact)}: {verdict}", ""]
        rows = [(_text(row.label), *map(_text, row.cells)) for row in each.rows]
        lines += _table(("Undone", *HEADER), rows, (False, *(True,) * len(HEADER)))
    return lines or ["No artifact is more than 0.2 points or one LSB away from its network.", ""]


def _placement(record: RunRecord) -> list[str]:
    targets = placement.targets(record)
    if not targets:
        return []
    rows = [
        (_code(a.id), percent(a.accuracy), *(_text(placement.cell(placement.of(a, t))) for t in targets))
        for a in placement.judged(record)
    ]
    reasons = [
        (_code(b.target), _text(b.op), _text(b.placement), _text(b.reason), b.entry, str(len(b.artifacts)))
        for b in placement.blamed(record)
    ]
    return [
        _text(placement.EXPLAINED), "",
        *_table(("Artifact", "Accuracy, %", *map(_code, targets)), rows, (False, True, *(False,) * len(targets))),
        *_table(("Target", "Operator", "Runs as", "Why", "Entry", "Files"), reasons, (False, False, False, False, False, True)),
    ]  # fmt: skip


def _drift(record: RunRecord) -> list[str]:
    rows = [
        (_code(a.id), _text(layer.op), _code(layer.tensor), number(layer.max_lsb),
         "equal" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}")
        for a in record.artifacts for layer in a.layers
    ]  # fmt: skip
    header = ("Artifact", "Layer", "Tensor of the file", "Largest difference, LSB", "SQNR, dB")
    return _table(header, rows, (False, False, False, True, True)) if rows else []


def _claim(claim: ClaimRecord) -> list[str]:
    lines = [f"- **{_text(claim.id)}** {_text(claim.statement)} **{claim.verdict.capitalize()}.**"]
    lines += [f"  - {_text(sentence)}" for sentence in claim.evidence]
    return lines + ([f"  - From {', '.join(map(_code, claim.artifacts))}"] if claim.artifacts else [])


def _trained_scales(record: RunRecord) -> list[str]:
    header = ("Artifact", "Place", "Trained scale", "Trained zero point", "Scale in the file",
              "Zero point in the file", "Kept")  # fmt: skip
    rows = [
        (
            _code(a.id), _text(s.role), scale(s.trained_scale), str(s.trained_zero_point), scale(s.file_scale),
            NOTHING if s.file_zero_point is None else str(s.file_zero_point), "yes" if s.kept else "**no**",
        )
        for a in record.artifacts for s in a.scales
    ]  # fmt: skip
    if not rows:
        return ["Training decided no activation scale that could be matched with a file.", ""]
    return _table(header, rows, (False, False, True, True, True, True, False))


def _files(record: RunRecord) -> list[str]:
    rows = [
        (
            _code(a.id), _text(pairs(a.settings)), duration(a.convert_seconds), _code(a.file or ""),
            _code(a.onnx_file or ""), _code(a.sha256 or ""),
        )
        for a in record.artifacts if a.status == "measured" or a.file or a.onnx_file
    ]  # fmt: skip
    lines = _table(("Artifact", "Settings", "Conversion", "File", "ONNX", "sha256"), rows, (False,) * 6) if rows else []
    lines += [f"- Warning: {_text(text)} ({', '.join(map(_code, ids))})" for text, ids in warnings(record).items()]
    return [*lines, ""] if lines else ["No file was written.", ""]


def render(record: RunRecord) -> str:
    """The whole record as GitHub Markdown; the same record gives the same text."""
    sections: list[tuple[str, list[str]]] = [
        ("In short", [*(f"- {_text(h.sentence)}" for h in headlines(record)), ""]),
        ("Notes", [*(f"- {_text(note)}" for note in record.notes), ""] if record.notes else []),
        ("Routes at a glance", _routes(record) if record.artifacts else []),
        ("Trained networks", _networks(record)),
        ("Artifacts", _artifacts(record) or ["This run made no artifact.", ""]),
        ("What the run noticed", _findings(record)),
        ("Where the differences come from", _explanations(record)),
        ("The article's claims and warnings",
         [line for claim in record.claims for line in _claim(claim)] + [""] if record.claims
         else ["No claim was examined.", ""]),
        ("Trained scales, and what became of them", _trained_scales(record)),
        ("On the NPUs", _placement(record)),
        ("Drift along the network", _drift(record)),
        ("Files", _files(record)),
        ("How to read the columns", [*(f"- **{title}.** {text}" for title, text in how_to_read(record)), ""]),
        ("Provenance", _table(("What", "Value"), [(_text(k), _text(v)) for k, v in provenance(record)], (False, False))),
    ]  # fmt: skip
    lines = [f"# {TITLE}", ""]
    for title, body in sections:
        lines += [f"## {title}", "", *body] if body else []
    return "\n".join(lines).rstrip() + "\n"
