"""The doctor on files it did not make: what was planted, what it found, and the confusion matrix.

    python -m benchmarks.doctor > docs/doctor.md        two seeds for each mutation, as the page has it; minutes
    python -m benchmarks.doctor --seeds 20              more

Writes the page to standard output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from typing import Annotated

import typer

from benchmarks.foreign_files import Planted, planted
from compare.explaining.verdict import Verdict, judge
from compare.mismatches import catalogue

SEVERITY = {entry.id: entry.severity for entry in catalogue()}


@dataclass(frozen=True)
class Answer:
    """What the doctor said of one file, beside the truth."""

    file: Planted
    inputs: bool
    """Whether it was given inputs to run the files on."""
    verdict: Verdict

    @property
    def found(self) -> tuple[str, ...]:
        """Ids, in order; `?` behind one that it is not sure of."""
        return tuple(each.mismatch.id + ("" if each.sure else "?") for each in self.verdict.found)

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
        left = self.verdict.left
        return bool(self.verdict.unexplained) or (left is not None and not left.not_undone)

    @property
    def another(self) -> bool:
        """It says that the two files are not the same network."""
        return self.verdict.comparison is not None and self.verdict.comparison.another_network

    @property
    def must_fail(self) -> bool:
        """Whether a gate has to stop this file."""
        return self.file.unknown or any(SEVERITY[fault] == "fault" for fault in self.file.faults)

    @property
    def right(self) -> bool:
        """Everything planted was found, nothing else was, and the gate stops what it has to stop and nothing else."""
        return (
            not self.missed
            and not self.false_alarms
            and self.unexplained == self.file.unknown
            and self.another == self.file.another
            and self.verdict.fails == self.must_fail
            and (not self.file.unfindable or bool(self.verdict.unchecked))
        )


def answers(file: Planted) -> tuple[Answer, Answer]:
    """Ask the doctor without inputs and with them; what the tools print on the way is dropped."""
    with redirect_stdout(StringIO()):
        case = file.case()
        return Answer(file, False, judge(replace(case, inputs=None))), Answer(file, True, judge(case))


HEAD = """# The doctor on files it did not make

<!-- Written by benchmarks/doctor.py; tests/compare/test_doctor_on_foreign_files.py asks the same. -->

`python -m compare.doctor` on {count} files, each without inputs and with them: {tools} made by other tools (TensorFlow's
converter, ONNX Runtime's quantizer, onnx2tf, and two sound ones by the exact bridge), the others sound files in which a
seeded random choice broke exactly one thing. What is truly wrong with each is known (`benchmarks/foreign_files.py`).
{unknown} have numbers that are not the model's in a way that the catalogue does not know: the doctor must say that
something is unexplained. {unfindable} have a fault that nothing in the doctor's hands can show (a reversed bias, and no
model beside it): the doctor must say what it did not check.

"Stopped" is what `--fail` and `assert_no_mismatch` do: a fault that is sure, or a difference that nothing explains.

| planted | inputs | files | entries found | missed | false alarms | stopped | of those to stop |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def page(asked: Sequence[Answer]) -> str:
    """The whole page."""
    once = [each for each in asked if not each.inputs]
    head = HEAD.format(
        count=len(once),
        tools=sum(each.file.by_a_tool for each in once),
        unknown=sum(each.file.unknown for each in once),
        unfindable=sum(each.file.unfindable for each in once),
    )
    return head + "\n".join([*_counts(asked), "", *_matrix(asked), "", *_files(asked)]) + "\n"


def _counts(asked: Sequence[Answer]) -> Iterator[str]:
    for label, chosen in (
        ("nothing", [each for each in asked if not (each.file.faults or each.file.unknown or each.file.unfindable)]),
        ("one or more entries of the catalogue", [each for each in asked if each.file.faults]),
        (
            "other numbers, unknown to the catalogue",
            [each for each in asked if each.file.unknown and not each.file.faults],
        ),
        ("a reversed bias, no model given", [each for each in asked if each.file.unfindable]),
    ):
        for inputs in (False, True):
            rows = [each for each in chosen if each.inputs == inputs]
            entries = sum(len(each.file.faults) for each in rows)
            missed, alarms = (sum(len(getattr(each, name)) for each in rows) for name in ("missed", "false_alarms"))
            yield (
                f"| {label} | {'yes' if inputs else 'no'} | {len(rows)} | {entries - missed} | {missed} | {alarms} "
                f"| {sum(each.verdict.fails for each in rows)} | {sum(each.must_fail for each in rows)} |"
            )


def _kind(file: Planted) -> str:
    """The name without its seed."""
    name, _, seed = file.name.rpartition("-")
    return name if seed.isdigit() else file.name


def _matrix(asked: Sequence[Answer]) -> Iterator[str]:
    """Rows: what is there; columns: what was found; a fault that came with others counts in each of its rows."""
    yield "## Confusion matrix"
    yield ""
    yield (
        "Without and with inputs, as `2/2`. A file with several faults counts in the row of each. M55 beside M33, M68 and "
        "changed activation scales is a consequence: a scale that is changed leaves the bias of the next layer at the old "
        "one. A `-128` that was `-127` in training is M04 and an unexplained difference: the code is not the trained one."
    )
    yield ""
    columns = [*sorted({found for each in asked for found in each.ids}), "unexplained", "another network", "nothing"]
    cells: dict[bool, Counter[tuple[str, str]]] = {False: Counter(), True: Counter()}
    rows: dict[str, None] = {}
    for each in asked:
        truths = each.file.faults or (
            (_kind(each.file),) if each.file.unknown or each.file.unfindable else ("nothing",)
        )
        said = sorted(each.ids) + ["unexplained"] * each.unexplained + ["another network"] * each.another
        for row in truths:
            rows[row] = None
            cells[each.inputs].update((row, column) for column in said or ["nothing"])
    ordered = sorted(rows, key=lambda row: (row == "nothing", row[:1] != "M", row))
    yield f"| there \\ found | {' | '.join(columns)} |"
    yield f"| --- | {' | '.join('---:' for _ in columns)} |"
    for row in ordered:
        shown = []
        for column in columns:
            without, beside = (cells[inputs][row, column] for inputs in (False, True))
            shown.append(f"{without}/{beside}" if without or beside else "")
        yield f"| {row} | {' | '.join(shown)} |"


def _files(asked: Sequence[Answer]) -> Iterator[str]:
    yield "## Every file"
    yield ""
    yield "| file | how it was made | planted | found | not explained, without inputs | with inputs | stopped |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for without, beside in zip(asked[::2], asked[1::2], strict=True):
        file = without.file
        entries = ", ".join(without.found) or "nothing"
        if beside.found != without.found:
            entries += f"; with inputs {', '.join(beside.found) or 'nothing'}"
        truth = ", ".join((*file.faults, *(["other numbers"] if file.unknown else []))) or "nothing"
        if file.unfindable:
            truth = "a reversed bias"
        stopped = "yes" if without.verdict.fails and beside.verdict.fails else "no"
        if without.verdict.fails != beside.verdict.fails:
            stopped = "only with inputs" if beside.verdict.fails else "only without inputs"
        yield (
            f"| {file.name} | {file.made} | {truth} | {entries} | {_differences(without)} | {_drift(beside)} | {stopped} |"
        )


def _differences(answer: Answer) -> str:
    if answer.another:
        return "not the same network"
    kinds = Counter(difference.kind for difference in answer.verdict.unexplained)
    if not kinds and answer.verdict.comparison is None:
        return "not checked: no model"
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _drift(answer: Answer) -> str:
    left = answer.verdict.left
    if left is None:
        return ""
    reason = f" ({', '.join(left.not_undone)} cannot be undone in the file)" if left.not_undone else ""
    return f"{left.layer.op}, {left.layer.max_lsb:.0f} LSB{reason}"


def main(seeds: Annotated[int, typer.Option(help="Random choices for each mutation.", min=1)] = 2) -> None:
    """Ask the doctor about every file and write the page."""
    asked = [answer for file in planted(seeds) for answer in answers(file)]
    typer.echo(page(asked), nl=False)
    wrong = [f"{each.file.name}{' with inputs' if each.inputs else ''}" for each in asked if not each.right]
    if wrong:
        typer.echo(f"wrong: {', '.join(wrong)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
