"""The doctor on files it did not make: what was planted, what it found, and the confusion matrix.

    python -m benchmarks.doctor > docs/doctor.md        two seeds for each mutation, as the page has it; a minute
    python -m benchmarks.doctor --seeds 20              more

Writes the page to standard output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Annotated

import typer

from benchmarks.foreign_files import Planted, planted
from compare.diagnosis import Diagnosis, Remainder, examine, remainder


@dataclass(frozen=True)
class Answer:
    """What the doctor said of one file, beside the truth."""

    file: Planted
    found: tuple[str, ...]
    """Ids, in order; `?` behind one that it is not sure of."""
    left: Remainder | None

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(found.rstrip("?") for found in self.found)

    @property
    def missed(self) -> frozenset[str]:
        return frozenset(self.file.faults) - self.ids

    @property
    def false_alarms(self) -> frozenset[str]:
        return self.ids - frozenset(self.file.faults) - frozenset(self.file.consequences)

    @property
    def unexplained(self) -> bool:
        """It says that something is wrong which nothing that was found can be the reason of."""
        return self.left is not None and not self.left.not_undone

    @property
    def right(self) -> bool:
        """Everything planted was found, nothing else was, and unexplained is what nobody can know."""
        return not self.missed and not self.false_alarms and self.unexplained == self.file.unknown


def answer(file: Planted) -> Answer:
    """Ask the doctor; what the tools print on the way is dropped."""
    with redirect_stdout(StringIO()):
        case = file.case()
        found: Sequence[Diagnosis] = examine(case)
        left = remainder(case, found)
    return Answer(file, tuple(each.mismatch.id + ("" if each.sure else "?") for each in found), left)


HEAD = """# The doctor on files it did not make

<!-- Written by benchmarks/doctor.py; tests/compare/test_doctor_on_foreign_files.py asks the same. -->

`python -m compare.doctor` on {count} files: {tools} made by other tools (TensorFlow's converter, ONNX Runtime's
quantizer, onnx2tf, and two sound ones by the exact bridge), the others sound files in which a seeded random choice broke
exactly one thing. What is truly wrong with each is known (`benchmarks/foreign_files.py`). {unknown} were broken in a way
that the catalogue does not know: there nothing may be blamed, and the doctor must say that something is unexplained.

| planted | files | found | missed | false alarms | unexplained, as it should be |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


def page(answers: Sequence[Answer]) -> str:
    """The whole page."""
    head = HEAD.format(
        count=len(answers),
        tools=sum(each.file.by_a_tool for each in answers),
        unknown=sum(each.file.unknown for each in answers),
    )
    return head + "\n".join([*_counts(answers), "", *_matrix(answers), "", *_files(answers)]) + "\n"


def _counts(answers: Sequence[Answer]) -> Iterator[str]:
    for label, chosen in (
        ("nothing", [each for each in answers if not each.file.faults and not each.file.unknown]),
        ("one or more mismatches", [each for each in answers if each.file.faults]),
        ("a fault the catalogue does not know", [each for each in answers if each.file.unknown]),
    ):
        planted_here = sum(len(each.file.faults) for each in chosen)
        missed, alarms = (sum(len(getattr(each, name)) for each in chosen) for name in ("missed", "false_alarms"))
        judged = sum(each.unexplained == each.file.unknown for each in chosen)
        yield f"| {label} | {len(chosen)} | {planted_here - missed} | {missed} | {alarms} | {judged} of {len(chosen)} |"


def _matrix(answers: Sequence[Answer]) -> Iterator[str]:
    """Rows: what is there; columns: what was found; a fault that came with others counts in each of its rows."""
    truths = [*sorted({fault for each in answers for fault in each.file.faults}), "unknown", "nothing"]
    columns = [*sorted({found for each in answers for found in each.ids}), "unexplained", "nothing"]
    cells: Counter[tuple[str, str]] = Counter()
    for each in answers:
        rows = each.file.faults or (("unknown",) if each.file.unknown else ("nothing",))
        said = sorted(each.ids) + (["unexplained"] if each.unexplained else []) or ["nothing"]
        cells.update((row, column) for row in rows for column in said)
    yield "## Confusion matrix"
    yield ""
    yield (
        "A file with several faults counts in the row of each. M55 beside M33 and M68 is a consequence: a scale that is "
        "changed leaves the bias of the next layer at the old one."
    )
    yield ""
    yield f"| there \\ found | {' | '.join(columns)} |"
    yield f"| --- | {' | '.join('---:' for _ in columns)} |"
    for row in truths:
        yield f"| {row} | {' | '.join(str(cells[row, column] or '') for column in columns)} |"


def _files(answers: Sequence[Answer]) -> Iterator[str]:
    yield "## Every file"
    yield ""
    yield "| file | how it was made | planted | found | unexplained |"
    yield "| --- | --- | --- | --- | --- |"
    for each in answers:
        left = "" if each.left is None else f"{each.left.layer.op}, {each.left.layer.max_lsb:.0f} LSB"
        if each.left is not None and each.left.not_undone:
            left += f" ({', '.join(each.left.not_undone)} cannot be undone in the file)"
        planted_here = "unknown to the catalogue" if each.file.unknown else ", ".join(each.file.faults) or "nothing"
        yield f"| {each.file.name} | {each.file.made} | {planted_here} | {', '.join(each.found) or 'nothing'} | {left} |"


def main(seeds: Annotated[int, typer.Option(help="Random choices for each mutation.", min=1)] = 2) -> None:
    """Ask the doctor about every file and write the page."""
    answers = [answer(file) for file in planted(seeds)]
    typer.echo(page(answers), nl=False)
    wrong = [each.file.name for each in answers if not each.right]
    if wrong:
        typer.echo(f"wrong: {', '.join(wrong)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
