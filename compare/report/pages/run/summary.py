"""What a run adds up to: headlines, routes, grouped findings, warnings and provenance, in words."""

from __future__ import annotations

from dataclasses import dataclass

from compare.report.pages.run.figures import COLUMNS, VERDICTS, all_integer, is_loss, scale_count
from compare.report.records.run import ArtifactRecord, Finding, RunRecord
from compare.report.words import NOTHING, duration, number, one_line, percent, plural, points

TITLE = "From trained int8 to TFLite: what each route kept"

SOUND_CALIBRATION = "representative"
"""What calibration data is unless the `calibration` setting says otherwise: poor data, on purpose (warning W3)."""


@dataclass(frozen=True)
class Headline:
    """One thing to know first: a figure with its label, and the sentence that says it in full."""

    label: str
    figure: str
    sentence: str
    bad: bool = False


@dataclass(frozen=True)
class RouteSummary:
    """One route's artifacts together."""

    route: str
    artifacts: tuple[ArtifactRecord, ...]

    def count(self, status: str) -> int:
        """How many of them are `measured`, `failed` or `skipped`."""
        return sum(artifact.status == status for artifact in self.artifacts)

    @property
    def judged(self) -> tuple[ArtifactRecord, ...]:
        """The measured ones that were not given poor calibration data on purpose."""
        return tuple(a for a in self.artifacts if a.status == "measured" and soundly_calibrated(a))

    @property
    def worst(self) -> ArtifactRecord | None:
        """The artifact that lost most."""
        return max((a for a in self.judged if a.accuracy_drop is not None), key=_drop, default=None)

    @property
    def most_changed(self) -> int | None:
        """The largest number of changed classes."""
        return max((a.disagreements for a in self.judged if a.disagreements is not None), default=None)

    @property
    def integer_files(self) -> str:
        """Measured artifacts without a floating-point operand, of all measured ones."""
        return f"{sum(map(all_integer, self.judged))}/{len(self.judged)}" if self.judged else NOTHING

    @property
    def scales_kept(self) -> str:
        """Trained scales kept, over all its artifacts."""
        counted = [count for artifact in self.judged if (count := scale_count(artifact)) is not None]
        return f"{sum(c.kept for c in counted)}/{sum(c.decided for c in counted)}" if counted else NOTHING


def _drop(artifact: ArtifactRecord) -> float:
    return artifact.accuracy_drop or 0.0


def calibrated_on(artifact: ArtifactRecord) -> str:
    """The kind of calibration data, for those modes that calibrate at all."""
    return artifact.settings.get("calibration", SOUND_CALIBRATION)


def soundly_calibrated(artifact: ArtifactRecord) -> bool:
    """False where the calibration data was poor on purpose, as warning W3 is measured."""
    return calibrated_on(artifact).startswith(SOUND_CALIBRATION)


def routes(record: RunRecord) -> tuple[RouteSummary, ...]:
    """The artifacts grouped by route, in the order of the record."""
    names = dict.fromkeys(artifact.route for artifact in record.artifacts)
    return tuple(RouteSummary(name, tuple(a for a in record.artifacts if a.route == name)) for name in names)


def _best_route(record: RunRecord) -> Headline | None:
    """The route whose worst all-integer file of a quantized network changes fewest classes; then differs by fewest LSB."""
    quantized = {network.id for network in record.networks if network.output_scale is not None}
    candidates: list[tuple[int, float, str, int]] = []
    for route in routes(record):
        files = [a for a in route.judged if a.network in quantized and all_integer(a)]
        changed = [a.disagreements for a in files if a.disagreements is not None]
        if changed:
            lsb = max(a.max_difference_lsb or 0.0 for a in files)
            candidates.append((max(changed), lsb, one_line(route.route), len(changed)))
    if not candidates:
        return None
    most, lsb, name, count = min(candidates)
    figure = f"{most:,} of {record.data.test_images:,}"
    subject = "its only all-integer file changes" if count == 1 else f"its {count} all-integer files change"
    limit = f"no {sample(record)}" if most == 0 else f"{'' if count == 1 else 'at most '}{figure} {sample(record)}s"
    sentence = f"{name} stays closest to the quantized networks: {subject} the class of {limit}"
    return Headline(
        f"{sample(record)}s change class with {name}", figure, f"{sentence} (largest difference {number(lsb)} LSB)."
    )


def on_the_article(record: RunRecord) -> bool:
    """Whether the run is of the article's networks, and not of a team's own."""
    return any(network.framework != "own" for network in record.networks) or not record.networks


def sample(record: RunRecord) -> str:
    """What one thing is called that the files are judged on."""
    return "test image" if on_the_article(record) else "sample"


def _worst_loss(record: RunRecord) -> Headline | None:
    losers = [route.worst for route in routes(record)]
    worst = max((a for a in losers if a is not None), key=_drop, default=None)
    if worst is None:
        return None
    if _drop(worst) <= 0:
        return Headline("points lost at most", "0.00", "No artifact is less accurate than the network it came from.")
    images = record.data.test_images
    changed = (
        "" if worst.disagreements is None else f"; {worst.disagreements:,} of {images:,} {sample(record)}s change class"
    )
    return Headline(
        f"points lost by {one_line(worst.id)}",
        points(worst.accuracy_drop),
        f"{one_line(worst.id)} loses most: {percent(worst.accuracy)} %, {points(worst.accuracy_drop)[1:]} points below "
        f"its network{changed}.",
        bad=is_loss(worst),
    )


def _scales(record: RunRecord) -> Headline | None:
    carrying = [count for a in record.artifacts if (count := scale_count(a)) is not None]
    if not carrying:
        return None
    whole = sum(count.kept == count.decided for count in carrying)
    none = sum(count.kept == 0 for count in carrying)
    which = "activation scale" if any(a.scales for a in record.artifacts) else "scale"
    return Headline(
        f"files keep every trained {which}",
        f"{whole} of {len(carrying)}",
        f"Training decided {which}s for {plural(len(carrying), 'artifact')}: "
        f"{whole} of them keep all of these, {none} keep none.",
        bad=whole < len(carrying),
    )


def _claims(record: RunRecord) -> Headline | None:
    if not record.claims:
        return None
    counts = {verdict: sum(claim.verdict == verdict for claim in record.claims) for verdict in VERDICTS}
    return Headline(
        "of the article's statements confirmed",
        f"{counts['confirmed']} of {len(record.claims)}",
        f"Of the article's {plural(len(record.claims), 'statement')}, "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        + ".",
    )


def _measured(record: RunRecord) -> Headline:
    total = len(record.artifacts)
    counts = {name: sum(a.status == name for a in record.artifacts) for name in ("measured", "failed", "skipped")}
    if not total:
        return Headline("artifacts", "0", "This run made no artifact: there is nothing to compare.")
    return Headline(
        "artifacts measured",
        f"{counts['measured']} of {total}",
        f"{plural(total, 'artifact')} by {plural(len(routes(record)), 'route')} from "
        f"{plural(len(record.networks), 'network')}: "
        + ", ".join(f"{count} {name}" for name, count in counts.items())
        + f", on {plural(record.data.test_images, sample(record))}.",
    )


def headlines(record: RunRecord) -> tuple[Headline, ...]:
    """What to know first, the loudest first."""
    found = (_worst_loss(record), _best_route(record), _scales(record), _claims(record), _measured(record))
    return tuple(headline for headline in found if headline is not None)


@dataclass(frozen=True)
class FindingGroup:
    """Findings that say the same about several artifacts."""

    loss: bool
    title: str
    cause: str | None
    remedy: str | None
    facts: tuple[Finding, ...]


def findings(record: RunRecord) -> tuple[FindingGroup, ...]:
    """The findings, losses first, the largest on top and those made on purpose below; same words stand together."""
    drops = {artifact.id: _drop(artifact) for artifact in record.artifacts}
    on_purpose = {artifact.id for artifact in record.artifacts if not soundly_calibrated(artifact)}

    def loudness(finding: Finding) -> tuple[bool, bool, float]:
        loss = finding.severity == "loss"
        return not loss, finding.artifact in on_purpose, -drops.get(finding.artifact, 0.0) if loss else 0.0

    ordered = sorted(record.findings, key=loudness)
    groups: dict[tuple[bool, str, str | None, str | None], list[Finding]] = {}
    for finding in ordered:
        groups.setdefault((finding.severity == "loss", finding.title, finding.cause, finding.remedy), []).append(
            finding
        )
    return tuple(FindingGroup(*key, tuple(facts)) for key, facts in groups.items())


def how_to_read(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """Each column with its meaning, and how much one test image weighs."""
    images = record.data.test_images
    weight = f" One {sample(record)} of the {images:,} is {100 / images:.2f} points." if images > 0 else ""
    return tuple((c.title, c.explain + (weight if c.short == "diff" else "")) for c in COLUMNS)


def warnings(record: RunRecord) -> dict[str, list[str]]:
    """Each different warning of a converter, with the ids of the artifacts it was given for."""
    said: dict[str, list[str]] = {}
    for artifact in record.artifacts:
        for warning in dict.fromkeys(artifact.warnings):
            said.setdefault(warning, []).append(artifact.id)
    return said


def provenance(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """Everything needed to run it again, as pairs of name and text."""
    data = record.data
    return (
        ("Started", record.started),
        ("Took", duration(record.seconds)),
        ("Command", record.command),
        ("Preset", record.preset),
        *((f"Setting {key}", str(value)) for key, value in record.settings.items()),
        ("Data", f"{data.name}: {data.source}"),
        ("Images", f"{data.train_images:,} for training, {data.test_images:,} for testing")
        if on_the_article(record)
        else ("Samples", f"{data.train_images:,} to calibrate with, {data.test_images:,} to judge by"),
        ("Data digest", data.digest),
        *((f"Machine, {key}", value) for key, value in record.machine.items()),
        *((f"Version of {key}", value) for key, value in record.versions.items()),
        ("Record's schema version", str(record.schema_version)),
    )
