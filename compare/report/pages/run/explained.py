"""What each difference comes from, as rows of one table that every view shows alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compare.report.records.run import (
    UNEXPLAINED_LSB,
    UNEXPLAINED_POINTS,
    ArtifactRecord,
    CauseRecord,
    ExplanationRecord,
    FiguresRecord,
    RunRecord,
    figures_of,
)
from compare.report.words import NOTHING, kilobytes_of, milliseconds, number, one_line, points

HEADER = ("Points", "Changed classes", "Largest difference, LSB", "Size, KB", "Latency, ms", "Float operators")
NOT_RUNNING = "the runtime refuses the file then"


@dataclass(frozen=True)
class Row:
    """The artifact itself, or what it would be without one cause, or without all of them."""

    label: str
    figures: FiguresRecord | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The figures under `HEADER`."""
        if self.figures is None:
            return (NOTHING,) * len(HEADER)
        return (
            points(self.figures.accuracy_drop),
            f"{self.figures.disagreements:,}",
            number(self.figures.max_difference_lsb),
            kilobytes_of(self.figures.size),
            milliseconds(self.figures.latency_median_ms),
            str(self.figures.float_operators),
        )


@dataclass(frozen=True)
class Explained:
    """One artifact with its causes."""

    artifact: str
    rows: tuple[Row, ...]
    verdict: str
    explained: bool
    differs: bool
    """More than 0.2 points or one LSB away from its network, before anything is undone."""


def explained(record: RunRecord) -> tuple[Explained, ...]:
    """The artifacts that differ from their network first, unexplained ones on top; then those that only show a mismatch."""
    artifacts = {artifact.id: artifact for artifact in record.artifacts}
    found = [_of(artifacts[each.artifact], each) for each in record.explanations if each.artifact in artifacts]
    return tuple(sorted(found, key=lambda each: (each.explained, not each.differs)))


def _of(artifact: ArtifactRecord, explanation: ExplanationRecord) -> Explained:
    own = Row("as converted", figures_of(artifact))
    together = explanation.together
    rows = [own, *(Row(_label(cause), cause.without) for cause in explanation.causes)]
    if together is not None and len(explanation.causes) > 1:
        rows.append(Row("all of them undone", together))
    left = f"{points(explanation.points_left)} points and {number(explanation.lsb_left)} LSB"
    return Explained(
        artifact=artifact.id,
        rows=tuple(rows),
        verdict="nothing left unexplained" if explanation.explained else f"unexplained: {left}",
        explained=explanation.explained,
        differs=(artifact.accuracy_drop or 0.0) > UNEXPLAINED_POINTS
        or (artifact.max_difference_lsb or 0.0) > UNEXPLAINED_LSB,
    )


def _label(cause: CauseRecord) -> str:
    name = one_line(" ".join(filter(None, (cause.mismatch, cause.name))))
    where = "undone in the file" if cause.row is None else f"see {one_line(cause.row)}"
    return f"{name}: {where}" + (f"; {NOT_RUNNING}" if cause.without is None else "")


def sentences(each: Explained) -> Iterator[str]:
    """One line for each row, for a terminal: the label, then points and LSB."""
    for row in each.rows:
        if row.figures is None:
            yield row.label
        else:
            yield f"{row.label}: {row.cells[0]} points, {row.cells[1]} changed, {row.cells[2]} LSB"
