"""The record in words: every figure as text, for all three views, and the whole as `report.md`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from compare.report.record import ArtifactRecord, ClaimRecord, Finding, NetworkRecord, RunRecord, Verdict

NOTHING = "–"
"""Stands where a figure was not measured or does not apply."""

LOUD_LOSS = 0.01
"""An accuracy drop (share of the test images) from which a row is coloured as a loss: one point."""

SOUND_CALIBRATION = "representative"
"""What calibration data is unless the `calibration` setting says otherwise: poor data, on purpose (warning W3)."""

VERDICTS: tuple[Verdict, ...] = ("confirmed", "not confirmed", "not measurable here")

# ANSI escapes (onnx2tf colours its log), other control characters, and the marks that reverse the reading direction.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


# ------------------------------------------------------------------------------------------------ figures as text


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


def largest_difference(artifact: ArtifactRecord) -> str:
    """`37 LSB`, or `1.15 real` where neither the network nor the file has an output scale."""
    if artifact.max_difference_lsb is not None:
        return f"{number(artifact.max_difference_lsb)} LSB"
    return NOTHING if artifact.max_difference is None else f"{number(artifact.max_difference)} real"


def kept(artifact: ArtifactRecord) -> str:
    """Trained scales in the file, of those training decided: `0/3`."""
    if not artifact.scales:
        return NOTHING
    return f"{sum(item.kept for item in artifact.scales)}/{len(artifact.scales)}"


def kilobytes(artifact: ArtifactRecord) -> str:
    """The file's size in KB of 1,024 bytes."""
    return NOTHING if artifact.size is None else f"{artifact.size / 1024:,.1f}"


def latency(artifact: ArtifactRecord) -> str:
    """Median and 90th percentile in milliseconds."""
    if artifact.latency_median_ms is None and artifact.latency_p90_ms is None:
        return NOTHING
    return f"{milliseconds(artifact.latency_median_ms)} / {milliseconds(artifact.latency_p90_ms)}"


def integer_operators(artifact: ArtifactRecord) -> str:
    """Operators without a floating-point operand, of all: `5/5`."""
    if not artifact.operators:
        return NOTHING
    return f"{sum(operator.integer for operator in artifact.operators)}/{len(artifact.operators)}"


def input_and_output(artifact: ArtifactRecord) -> str:
    """`int8 → int8`, or one name when both are the same."""
    if artifact.input_dtype is None and artifact.output_dtype is None:
        return NOTHING
    ends = (one_line(artifact.input_dtype or NOTHING), one_line(artifact.output_dtype or NOTHING))
    return ends[0] if ends[0] == ends[1] else " → ".join(ends)


def operators(artifact: ArtifactRecord) -> str:
    """The operators in execution order, runs of the same one collapsed: `QUANTIZE×2 CONV_2D`."""
    runs: list[tuple[str, int]] = []
    for operator in artifact.operators:
        if runs and runs[-1][0] == operator.name:
            runs[-1] = (operator.name, runs[-1][1] + 1)
        else:
            runs.append((operator.name, 1))
    return " ".join(one_line(name) + (f"×{count}" if count > 1 else "") for name, count in runs) or NOTHING


def all_integer(artifact: ArtifactRecord) -> bool:
    """Whether no operator of the file has a floating-point operand."""
    return bool(artifact.operators) and all(operator.integer for operator in artifact.operators)


def is_loss(artifact: ArtifactRecord) -> bool:
    """Whether the artifact lost a point or more."""
    return artifact.accuracy_drop is not None and artifact.accuracy_drop >= LOUD_LOSS


def short_id(artifact: ArtifactRecord) -> str:
    """The id without its route, for rows that stand under the route's name."""
    return one_line(artifact.id.removeprefix(f"{artifact.route}/"))


def outcome(artifact: ArtifactRecord) -> str:
    """Why there is nothing to measure: `failed: …`, `skipped: …`."""
    return f"{artifact.status}: {one_line(artifact.reason or 'no reason was recorded')}"


# ------------------------------------------------------------------------------------------- the columns of a row


@dataclass(frozen=True)
class Column:
    """One figure of an artifact: its names, its text, and what a reader should make of it."""

    short: str
    title: str
    explain: str
    cell: Callable[[ArtifactRecord], str]
    value: Callable[[ArtifactRecord], float | str | None]
    """What the HTML table sorts by."""
    rank: int
    """The terminal drops the highest first when the window is narrow."""
    numeric: bool = True


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


COLUMNS = (
    Column(
        "acc %", "Accuracy, %", "Share of the test images classified right by the .tflite.",
        lambda a: percent(a.accuracy), lambda a: a.accuracy, 0,
    ),
    Column(
        "diff", "Difference, points",
        "The artifact's accuracy minus that of the network it came from, in percentage points; negative means lost.",
        lambda a: points(a.accuracy_drop), lambda a: None if a.accuracy_drop is None else -a.accuracy_drop, 1,
    ),
    Column(
        "changed", "Changed classes",
        "Test images whose predicted class is no longer the network's. Accuracy can hide these: "
        "errors lost and errors won cancel out.",
        lambda a: NOTHING if a.disagreements is None else f"{a.disagreements:,}", lambda a: a.disagreements, 2,
    ),
    Column(
        "max diff", "Largest difference",
        "The largest difference of any logit from the network's, in LSB (steps of the output scale that training "
        "decided, else of the file's own); in real units where there is no output scale.",
        largest_difference,
        lambda a: a.max_difference_lsb if a.max_difference_lsb is not None else a.max_difference, 3,
    ),
    Column(
        "equal %", "Equal outputs, %", "Share of logits less than half an LSB away from the network's.",
        lambda a: percent(a.equal_outputs, 1), lambda a: a.equal_outputs, 8,
    ),
    Column(
        "kept", "Trained scales kept",
        "Activation scales that training decided and the file still carries unchanged, of those that were decided; "
        f"{NOTHING} when training decided none.",
        kept, lambda a: _ratio(sum(item.kept for item in a.scales), len(a.scales)), 4,
    ),
    Column(
        "KB", "Size, KB", "Size of the .tflite, 1 KB = 1,024 bytes.",
        kilobytes, lambda a: a.size, 5,
    ),
    Column(
        "ms med / p90", "Latency, ms (median / p90)",
        "Time of one inference on this machine's CPU, batch 1: the median, and what nine out of ten stay under.",
        latency, lambda a: a.latency_median_ms, 6,
    ),
    Column(
        "int ops", "Integer operators",
        "Operators without a floating-point operand, of all. An integer-only accelerator needs all of them.",
        integer_operators, lambda a: _ratio(sum(o.integer for o in a.operators), len(a.operators)), 7,
    ),
    Column(
        "I/O", "Input → output", "Data types at the two ends of the file; one name when they are the same.",
        input_and_output, input_and_output, 9, numeric=False,
    ),
    Column(
        "network", "Network", "The trained network it came from, against which it is judged.",
        lambda a: one_line(a.network), lambda a: a.network, 11, numeric=False,
    ),
    Column(
        "operators", "Operators", "In execution order; ×2 is a run of two.",
        operators, operators, 10, numeric=False,
    ),
)  # fmt: skip  # one column is one paragraph

NETWORK_COLUMNS: tuple[tuple[str, str, Callable[[NetworkRecord], str], bool], ...] = (
    ("acc %", "Accuracy, %", lambda n: percent(n.accuracy), True),
    ("engine", "int8 engine", lambda n: one_line(n.int8_engine or NOTHING), False),
    ("engine %", "Engine's accuracy, %", lambda n: percent(n.int8_engine_accuracy), True),
    ("max LSB", "Engine's largest difference, LSB", lambda n: number(n.int8_engine_max_lsb), True),
    ("out scale", "Output scale", lambda n: scale(n.output_scale), True),
    ("time", "Training", lambda n: "cached" if n.from_cache else duration(n.seconds), True),
)
"""Of a trained network: short and full title, its text, and whether that is a figure."""


# -------------------------------------------------------------------------------------- what the run adds up to


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
        scales = [item for artifact in self.judged for item in artifact.scales]
        return f"{sum(item.kept for item in scales)}/{len(scales)}" if scales else NOTHING


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
    limit = "no test image" if most == 0 else f"{'' if count == 1 else 'at most '}{figure} test images"
    sentence = f"{name} stays closest to the quantized networks: {subject} the class of {limit}"
    return Headline(f"images change class with {name}", figure, f"{sentence} (largest difference {number(lsb)} LSB).")


def _worst_loss(record: RunRecord) -> Headline | None:
    losers = [route.worst for route in routes(record)]
    worst = max((a for a in losers if a is not None), key=_drop, default=None)
    if worst is None:
        return None
    if _drop(worst) <= 0:
        return Headline("points lost at most", "0.00", "No artifact is less accurate than the network it came from.")
    images = record.data.test_images
    changed = "" if worst.disagreements is None else f"; {worst.disagreements:,} of {images:,} test images change class"
    return Headline(
        f"points lost by {one_line(worst.id)}",
        points(worst.accuracy_drop),
        f"{one_line(worst.id)} loses most: {percent(worst.accuracy)} %, {points(worst.accuracy_drop)[1:]} points below "
        f"its network{changed}.",
        bad=is_loss(worst),
    )


def _scales(record: RunRecord) -> Headline | None:
    carrying = [a for a in record.artifacts if a.scales]
    if not carrying:
        return None
    whole = sum(all(item.kept for item in a.scales) for a in carrying)
    none = sum(not any(item.kept for item in a.scales) for a in carrying)
    return Headline(
        "files keep every trained activation scale",
        f"{whole} of {len(carrying)}",
        f"Training decided activation scales for {plural(len(carrying), 'artifact')}: "
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
        + f", on {plural(record.data.test_images, 'test image')}.",
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
    weight = f" One test image of the {images:,} is {100 / images:.2f} points." if images > 0 else ""
    return tuple((c.title, c.explain + (weight if c.short == "diff" else "")) for c in COLUMNS)


# ------------------------------------------------------------------------------------------------- as Markdown


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
        ("Images", f"{data.train_images:,} for training, {data.test_images:,} for testing"),
        ("Data digest", data.digest),
        *((f"Machine, {key}", value) for key, value in record.machine.items()),
        *((f"Version of {key}", value) for key, value in record.versions.items()),
        ("Record's schema version", str(record.schema_version)),
    )


def render(record: RunRecord) -> str:
    """The whole record as GitHub Markdown; the same record gives the same text."""
    sections: list[tuple[str, list[str]]] = [
        ("In short", [*(f"- {_text(h.sentence)}" for h in headlines(record)), ""]),
        ("Notes", [*(f"- {_text(note)}" for note in record.notes), ""] if record.notes else []),
        ("Routes at a glance", _routes(record) if record.artifacts else []),
        ("Trained networks", _networks(record)),
        ("Artifacts", _artifacts(record) or ["This run made no artifact.", ""]),
        ("What the run noticed", _findings(record)),
        ("The article's claims and warnings",
         [line for claim in record.claims for line in _claim(claim)] + [""] if record.claims
         else ["No claim was examined.", ""]),
        ("Trained scales, and what became of them", _trained_scales(record)),
        ("Files", _files(record)),
        ("How to read the columns", [*(f"- **{title}.** {text}" for title, text in how_to_read(record)), ""]),
        ("Provenance", _table(("What", "Value"), [(_text(k), _text(v)) for k, v in provenance(record)], (False, False))),
    ]  # fmt: skip
    lines = [f"# {TITLE}", ""]
    for title, body in sections:
        lines += [f"## {title}", "", *body] if body else []
    return "\n".join(lines).rstrip() + "\n"


TITLE = "From trained int8 to TFLite: what each route kept"
