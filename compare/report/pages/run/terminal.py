"""The record in a terminal of any width, plain when piped."""

from __future__ import annotations

from rich.console import Console

from compare.report import words
from compare.report.pages.run import figures, placement, summary
from compare.report.pages.run.explained import explained, sentences
from compare.report.records.run import ArtifactRecord, RunRecord, Verdict
from compare.report.terminal import Page, Row, table

_REASONS = 2
"""So many reasons of each target are printed, the most frequent."""

_VERDICT_STYLES: dict[Verdict, str] = {
    "confirmed": "green",
    "not confirmed": "bold red",
    "not measurable here": "yellow",
}


def _networks(page: Page, record: RunRecord) -> None:
    page.heading("Trained networks")
    if not record.networks:
        page.line("No network was trained.", indent=2)
        return
    about = page.column("about", [words.one_line(n.about) for n in record.networks], 9, right=False)
    columns = [
        page.column(short, [cell(n) for n in record.networks], rank, right=numeric)
        for rank, (short, _, cell, numeric) in enumerate(figures.NETWORK_COLUMNS)
    ]
    table(page, [("", [Row(words.one_line(n.id), {}) for n in record.networks])], [*columns, about])


def _row(artifact: ArtifactRecord) -> Row:
    name = figures.short_id(artifact)
    if artifact.status != "measured":
        return Row(name, {}, figures.outcome(artifact))
    lost = artifact.accuracy_drop is not None and artifact.accuracy_drop > 0
    style = "bold red" if figures.is_loss(artifact) else "yellow" if lost else ""
    return Row(name, {"diff": style, "acc %": style} if figures.is_loss(artifact) else {"diff": style})


def _artifacts(page: Page, record: RunRecord) -> None:
    page.heading("Artifacts, by route")
    if not record.artifacts:
        page.line("This run made no artifact.", indent=2)
        return
    routes = summary.routes(record)
    groups = [(words.one_line(route.route), [_row(a) for a in route.artifacts]) for route in routes]
    measured = [a for route in routes for a in route.artifacts if a.status == "measured"]
    columns = [page.column(c.short, [c.cell(a) for a in measured], c.rank, right=c.numeric) for c in figures.COLUMNS]
    hidden = table(page, groups, columns)
    if hidden:
        names = ", ".join(column.title for column in hidden)
        page.line((f"Not shown at this width: {names}. They are in report.md and report.html.", "dim"), indent=2)


def _findings(page: Page, record: RunRecord) -> None:
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


def _explanations(page: Page, record: RunRecord) -> None:
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


def _placement(page: Page, record: RunRecord) -> None:
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
    table(page, [("", [Row(route, {}) for route in routes])], columns)
    worst = [blame for blame in placement.blamed(record) if blame.placement != "unverified"]
    for target in targets:
        for blame in [each for each in worst if each.target == target][:_REASONS]:
            files = words.plural(len(blame.artifacts), "file")
            page.line(
                (f"{words.one_line(target)} ", "bold"),
                words.one_line(f"{blame.op} {blame.placement}, {files}: {blame.reason}"),
                indent=2,
            )


def _claims(page: Page, record: RunRecord) -> None:
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
    page = Page(console)
    _networks(page, record)
    _artifacts(page, record)
    _findings(page, record)
    _explanations(page, record)
    _placement(page, record)
    _claims(page, record)
    page.heading("In short")
    for sentence in (*(headline.sentence for headline in summary.headlines(record)), *record.notes):
        page.line("- ", words.one_line(sentence), indent=2)
