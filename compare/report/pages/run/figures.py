"""An artifact's figures as text, and the columns of its tables: one wording for all views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compare.report.records.run import ArtifactRecord, NetworkRecord, ScaleCountRecord, Verdict
from compare.report.words import NOTHING, duration, kilobytes_of, milliseconds, number, one_line, percent, points, scale

LOUD_LOSS = 0.01
"""An accuracy drop (share of the test images) from which a row is coloured as a loss: one point."""
VERDICTS: tuple[Verdict, ...] = ("confirmed", "not confirmed", "not measurable here")


def largest_difference(artifact: ArtifactRecord) -> str:
    """`37 LSB`, or `1.15 real` where the record has no LSB."""
    if artifact.max_difference_lsb is not None:
        return f"{number(artifact.max_difference_lsb)} LSB"
    return NOTHING if artifact.max_difference is None else f"{number(artifact.max_difference)} real"


def kept(artifact: ArtifactRecord) -> str:
    """Trained scales in the file, of those training decided: `0/3`."""
    counted = scale_count(artifact)
    return NOTHING if counted is None else f"{counted.kept}/{counted.decided}"


def scale_count(artifact: ArtifactRecord) -> ScaleCountRecord | None:
    """Trained scales by number; None when training decided none, or none is known."""
    if not artifact.scales:
        return artifact.scale_count
    return ScaleCountRecord(len(artifact.scales), sum(item.kept for item in artifact.scales))


def kilobytes(artifact: ArtifactRecord) -> str:
    """The file's size in KB of 1,024 bytes."""
    return kilobytes_of(artifact.size)


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
    return f"{artifact.status}: {one_line((artifact.reason or 'no reason was recorded').replace(chr(10) + '  ', '. '))}"


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
        "acc %", "Accuracy, %", "Share of the test images, or of your own samples, classified right by the .tflite.",
        lambda a: percent(a.accuracy), lambda a: a.accuracy, 0,
    ),
    Column(
        "diff", "Difference, points",
        "The artifact's accuracy minus that of the network it came from, in percentage points; negative means lost.",
        lambda a: points(a.accuracy_drop), lambda a: None if a.accuracy_drop is None else -a.accuracy_drop, 1,
    ),
    Column(
        "changed", "Changed classes",
        "Test images, or samples, whose predicted class is no longer the network's. Accuracy can hide these: "
        "errors lost and errors won cancel out.",
        lambda a: NOTHING if a.disagreements is None else f"{a.disagreements:,}", lambda a: a.disagreements, 2,
    ),
    Column(
        "max diff", "Largest difference",
        "The largest difference of any logit from the network's, in LSB: steps of the output scale that training "
        "decided, or, of a float network, 1/255 of the range of its own logits.",
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
        kept, lambda a: None if (c := scale_count(a)) is None else _ratio(c.kept, c.decided), 4,
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
