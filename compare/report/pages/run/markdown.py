"""The record as `report.md`: GitHub Markdown, every figure and its provenance."""

from __future__ import annotations

from compare.report.markdown import code, prose, table
from compare.report.pages.run import placement
from compare.report.pages.run.explained import HEADER, explained
from compare.report.pages.run.figures import COLUMNS, NETWORK_COLUMNS, Column, is_loss, outcome
from compare.report.pages.run.summary import (
    TITLE,
    findings,
    headlines,
    how_to_read,
    on_the_article,
    provenance,
    routes,
    warnings,
)
from compare.report.records.run import ArtifactRecord, ClaimRecord, RunRecord
from compare.report.words import NOTHING, duration, number, pairs, percent, points, scale


def _networks(record: RunRecord) -> list[str]:
    if not record.networks:
        return ["No network was trained.", ""]
    header = ("Network", *(title for _, title, _, _ in NETWORK_COLUMNS), "About")
    rows = [
        (code(n.id), *(prose(cell(n)) for _, _, cell, _ in NETWORK_COLUMNS), prose(n.about)) for n in record.networks
    ]
    return table(header, rows, (False, *(numeric for *_, numeric in NETWORK_COLUMNS), False))


def _routes(record: RunRecord) -> list[str]:
    header = ("Route", "Measured", "Failed", "Skipped", "Largest loss, points", "Most changed classes",
              "All-integer files", "Trained scales kept")  # fmt: skip
    rows = [
        (
            code(r.route), *(str(r.count(status)) for status in ("measured", "failed", "skipped")),
            points(r.worst.accuracy_drop) if r.worst else NOTHING,
            NOTHING if r.most_changed is None else f"{r.most_changed:,}", r.integer_files, r.scales_kept,
        )
        for r in routes(record)
    ]  # fmt: skip
    note = "Artifacts calibrated on poor data on purpose (W3) are left out of the last four columns."
    return [*table(header, rows, (False, *(True,) * 7)), note, ""]


def _artifacts(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for route in routes(record):
        lines += [f"### {prose(route.route)}", ""]
        measured = [a for a in route.artifacts if a.status == "measured"]
        if measured:
            rows = [(code(a.id), *(_cell(c, a) for c in COLUMNS)) for a in measured]
            lines += table(("Artifact", *(c.title for c in COLUMNS)), rows, (False, *(c.numeric for c in COLUMNS)))
        others = [a for a in route.artifacts if a.status != "measured"]
        lines += [f"- {code(a.id)} {prose(outcome(a))}" for a in others] + ([""] if others else [])
    return lines


def _cell(column: Column, artifact: ArtifactRecord) -> str:
    text = column.cell(artifact)
    if column.short == "diff" and is_loss(artifact):
        return f"**{text}**"
    return text if column.numeric else prose(text)


def _findings(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for group in findings(record):
        lines += [f"- {'**Loss:** ' if group.loss else ''}**{prose(group.title)}**"]
        lines += [f"  - {code(f.artifact)}: {prose(f.fact)}" for f in group.facts]
        lines += [f"  - Cause: {prose(group.cause)}"] if group.cause else []
        lines += [f"  - Remedy: {prose(group.remedy)}"] if group.remedy else []
    return [*(lines or ["Nothing stood out."]), ""]


def _explanations(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for each in explained(record):
        verdict = prose(each.verdict) if each.explained else f"**{prose(each.verdict)}**"
        lines += [f"### {code(each.artifact)}: {verdict}", ""]
        rows = [(prose(row.label), *map(prose, row.cells)) for row in each.rows]
        lines += table(("Undone", *HEADER), rows, (False, *(True,) * len(HEADER)))
    return lines or ["No artifact is more than 0.2 points or one LSB away from its network.", ""]


def _placement(record: RunRecord) -> list[str]:
    targets = placement.targets(record)
    if not targets:
        return []
    rows = [
        (code(a.id), percent(a.accuracy), *(prose(placement.cell(placement.of(a, t))) for t in targets))
        for a in placement.judged(record)
    ]
    reasons = [
        (code(b.target), prose(b.op), prose(b.placement), prose(b.reason), b.entry, str(len(b.artifacts)))
        for b in placement.blamed(record)
    ]
    return [
        prose(f"{placement.EXPLAINED} How each is judged: {placement.judged_by(record)}."), "",
        *table(("Artifact", "Accuracy, %", *map(code, targets)), rows, (False, True, *(False,) * len(targets))),
        *table(("Target", "Operator", "Runs as", "Why", "Entry", "Files"), reasons, (False, False, False, False, False, True)),
    ]  # fmt: skip


def _drift(record: RunRecord) -> list[str]:
    rows = [
        (code(a.id), prose(layer.op), code(layer.tensor), number(layer.max_lsb),
         "equal" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}")
        for a in record.artifacts for layer in a.layers
    ]  # fmt: skip
    header = ("Artifact", "Layer", "Tensor of the file", "Largest difference, LSB", "SQNR, dB")
    return table(header, rows, (False, False, False, True, True)) if rows else []


def _claim(claim: ClaimRecord) -> list[str]:
    lines = [f"- **{prose(claim.id)}** {prose(claim.statement)} **{claim.verdict.capitalize()}.**"]
    lines += [f"  - {prose(sentence)}" for sentence in claim.evidence]
    return lines + ([f"  - From {', '.join(map(code, claim.artifacts))}"] if claim.artifacts else [])


def _trained_scales(record: RunRecord) -> list[str]:
    header = ("Artifact", "Place", "Trained scale", "Trained zero point", "Scale in the file",
              "Zero point in the file", "Kept")  # fmt: skip
    rows = [
        (
            code(a.id), prose(s.role), scale(s.trained_scale), str(s.trained_zero_point), scale(s.file_scale),
            NOTHING if s.file_zero_point is None else str(s.file_zero_point), "yes" if s.kept else "**no**",
        )
        for a in record.artifacts for s in a.scales
    ]  # fmt: skip
    if not rows:
        return ["Training decided no activation scale that could be matched with a file.", ""]
    return table(header, rows, (False, False, True, True, True, True, False))


def _files(record: RunRecord) -> list[str]:
    rows = [
        (
            code(a.id), prose(pairs(a.settings)), duration(a.convert_seconds), code(a.file or ""),
            code(a.onnx_file or ""), code(a.sha256 or ""),
        )
        for a in record.artifacts if a.status == "measured" or a.file or a.onnx_file
    ]  # fmt: skip
    lines = table(("Artifact", "Settings", "Conversion", "File", "ONNX", "sha256"), rows, (False,) * 6) if rows else []
    lines += [f"- Warning: {prose(text)} ({', '.join(map(code, ids))})" for text, ids in warnings(record).items()]
    return [*lines, ""] if lines else ["No file was written.", ""]


def render(record: RunRecord) -> str:
    """The whole record as GitHub Markdown; the same record gives the same text."""
    sections: list[tuple[str, list[str]]] = [
        ("In short", [*(f"- {prose(h.sentence)}" for h in headlines(record)), ""]),
        ("Notes", [*(f"- {prose(note)}" for note in record.notes), ""] if record.notes else []),
        ("Routes at a glance", _routes(record) if record.artifacts else []),
        ("Trained networks", _networks(record)),
        ("Artifacts", _artifacts(record) or ["This run made no artifact.", ""]),
        ("What the run noticed", _findings(record)),
        ("Where the differences come from", _explanations(record)),
        ("The article's claims and warnings",
         [line for claim in record.claims for line in _claim(claim)] + [""] if record.claims
         else ["No claim was examined.", ""] if on_the_article(record) else []),
        ("Trained scales, and what became of them", _trained_scales(record)),
        ("On the NPUs", _placement(record)),
        ("Drift along the network", _drift(record)),
        ("Files", _files(record)),
        ("How to read the columns", [*(f"- **{title}.** {text}" for title, text in how_to_read(record)), ""]),
        ("Provenance", table(("What", "Value"), [(prose(k), prose(v)) for k, v in provenance(record)], (False, False))),
    ]  # fmt: skip
    lines = [f"# {TITLE}", ""]
    for title, body in sections:
        lines += [f"## {title}", "", *body] if body else []
    return "\n".join(lines).rstrip() + "\n"
