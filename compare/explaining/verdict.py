"""What a gate decides about a team's files: faults, differences that nothing explains, and what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bridge.errors import BridgeError
from compare.explaining.attribution import repaired
from compare.explaining.diagnosis import (
    Diagnosis,
    Remainder,
    drift_of,
    examine,
    ordered,
    refuse_inputs,
    refuse_no_samples,
    remainder,
)
from compare.explaining.side_by_side import Comparison, Difference, Unchecked, compare_files
from compare.measuring.drift import Drift, trace_tflite
from compare.measuring.feeding import ambiguous, arranged, said
from compare.measuring.kernel_sets import disagreement
from compare.measuring.operands import other_operands
from compare.mismatches import catalogue
from compare.running.trying import tried
from compare.subjects.case import Case

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Judged:
    """A difference between the files, and the fault of the catalogue that it comes from."""

    difference: Difference
    explained_by: tuple[str, ...] = ()
    """Ids; empty where no entry explains it."""
    repaired: bool = False
    """It is gone when these are repaired. Otherwise they are seen at the same tensor, and may be the reason."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Everything the doctor knows of one case."""

    faulty: tuple[str, ...]
    """Why the .tflite does not run as it is written, or is none of the model's: a sentence each."""
    found: tuple[Diagnosis, ...]
    comparison: Comparison | None
    """None without a model and a .tflite."""
    judged: tuple[Judged, ...]
    traced: Drift | None
    left: Remainder | None
    unchecked: tuple[Unchecked, ...]

    @cached_property
    def faults(self) -> tuple[Diagnosis, ...]:
        """What a gate stops at, of the catalogue."""
        return tuple(diagnosis for diagnosis in self.found if diagnosis.fails)

    @cached_property
    def unexplained(self) -> tuple[Difference, ...]:
        """Differences that no fault of the catalogue explains."""
        return tuple(each.difference for each in self.judged if not each.explained_by)

    @property
    def fails(self) -> bool:
        """Whether a gate stops: a file that does not run, a fault that is sure, or a difference that nothing explains."""
        return bool(self.faulty or self.faults or self.unexplained) or self.left is not None


def judge(case: Case) -> Verdict:
    """Look for every mismatch, compare number by number, and run both where there are inputs.

    Raises `BridgeError` for files that cannot be read and inputs that do not fit.
    """
    refuse_no_samples(case)
    unchecked: list[Unchecked] = []
    runs, faulty = _tried(case, unchecked)
    found = examine(case) if runs else _examined(case, unchecked)
    comparison = _compared(case, unchecked) if runs else _compared_as_it_is(case, unchecked)
    if comparison is not None and comparison.another_network:
        found = _of_each_alone(case, found)
    judged = tuple(_judged(case, comparison, found)) if comparison is not None else ()
    traced, left = (None, None) if faulty else _run(case, found, unchecked)
    faulty = faulty or (_two_networks(case) if runs else ())
    if comparison is not None:
        unchecked += comparison.unchecked
    return Verdict(faulty, found, comparison, judged, traced, left, tuple(unchecked))


# ---------------------------------------------------------------------------------------------- whether it runs


def _tried(case: Case, unchecked: list[Unchecked]) -> tuple[bool, tuple[str, ...]]:
    """Whether LiteRT runs the .tflite as it is written, and every reason why a gate stops before anything is compared."""
    if case.tflite is None:
        return True, ()
    _ = case.file, case.onnx_model  # a file that cannot be read is another error than a package that is missing
    try:
        trial = tried(case.tflite)
    except BridgeError as error:
        unchecked.append(Unchecked("whether LiteRT runs the file", error.problem))
        return True, ()
    if trial.only_prepared:
        unchecked.append(
            Unchecked("a run on the reference kernels", "it would take long; the file was prepared on them")
        )
    if trial.unknown_to_reference:
        unchecked.append(Unchecked("a run on the reference kernels", f"they refuse it: {trial.unknown_to_reference}"))
    if trial.problems:
        unchecked.append(Unchecked("what the kernels compute", "the file does not run as it is written"))
        return False, trial.problems
    return True, tuple(other_operands(case.onnx_model, trial)) if case.onnx_model is not None else ()


_DOES_NOT_FIT = (IndexError, KeyError, ValueError, ZeroDivisionError, OverflowError, TypeError)
"""What Python and numpy say of operands that an operator cannot have. A file that LiteRT runs has no such ones, and none
of these is let past for it."""


def _examined(case: Case, unchecked: list[Unchecked]) -> tuple[Diagnosis, ...]:
    """The catalogue, looked through in a file that does not run: an entry whose operands do not fit is left out."""
    found: list[Diagnosis] = []
    unfit: list[str] = []
    for mismatch in catalogue():
        try:
            found += examine(case, (mismatch,), costs=False)
        except _DOES_NOT_FIT:
            unfit.append(mismatch.id)
    if unfit:
        unchecked.append(Unchecked(", ".join(unfit), "the operands of the file do not fit together"))
    return ordered(found)


def _compared_as_it_is(case: Case, unchecked: list[Unchecked]) -> Comparison | None:
    """As `_compared`, of a file that does not run."""
    try:
        return _compared(case, unchecked)
    except (BridgeError, *_DOES_NOT_FIT):
        unchecked.append(Unchecked("weights, biases and scales", "the operands of the file do not fit together"))
        return None


def _two_networks(case: Case) -> tuple[str, ...]:
    """Whether the kernel sets agree on the inputs, up to their roundings."""
    if case.tflite is None or not case.inputs:
        return ()
    try:
        said = disagreement(case.tflite, trace_tflite(case.tflite, arranged(case)))
    except BridgeError:
        return ()  # inputs that do not fit, or a file that cannot be traced, have been said
    return (said,) if said is not None else ()


# ---------------------------------------------------------------------------------------------- the numbers


def _compared(case: Case, unchecked: list[Unchecked]) -> Comparison | None:
    if case.file is None:
        if case.onnx is not None or case.torch_model is not None or case.keras_model is not None:
            unchecked.append(Unchecked("a .tflite", "none was given"))
        return None
    model = case.onnx_model
    if model is None and case.torch_model is not None:
        model = _exported(case.torch_model, case, unchecked)
    if model is None:
        if case.torch_model is None:
            unchecked.append(
                Unchecked("weights, biases and scales", "no ONNX or PyTorch model was given to compare with")
            )
        return None
    comparison = compare_files(model, case.file.graph)
    if comparison.layers and not comparison.scales:
        unchecked.append(Unchecked("activation scales", "the model has none, or the file computes in float"))
    return comparison


def _exported(model: Any, case: Case, unchecked: list[Unchecked]) -> ModelProto | None:
    """The PyTorch model as ONNX: what it was trained to be, written by PyTorch's exporter."""
    from compare.measuring.torch_reference import exported

    assert case.file is not None  # noqa: S101 - the caller has looked
    try:
        return exported(model, [case.file.graph.tensors[name].shape for name in case.file.graph.inputs], case.inputs)
    except BridgeError as error:
        unchecked.append(
            Unchecked("weights, biases and scales", f"the PyTorch model was not exported: {error.problem}")
        )
        return None


def _of_each_alone(case: Case, found: Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Without the entries that hold one file against the other: of two networks those would blame a converter."""
    model_alone, file_alone = replace(case, tflite=None), replace(case, onnx=None, torch_model=None)
    return tuple(
        diagnosis
        for diagnosis in found
        if any(diagnosis.mismatch.detect(model_alone)) or any(diagnosis.mismatch.detect(file_alone))
    )


def _judged(case: Case, comparison: Comparison, found: Sequence[Diagnosis]) -> Iterator[Judged]:
    """Each difference with the faults that explain it: repaired they take it with them, or they are seen at its tensor.

    Only faults explain: a gate stops at them anyway, so that nothing is excused by what a gate lets through.
    """
    faults = [diagnosis for diagnosis in found if diagnosis.fails]
    gone = dict(_gone(case, faults)) if comparison.differences else {}
    for difference in comparison.differences:
        ids = tuple(mismatch for mismatch, left in gone.items() if _key(difference) not in left)
        named = tuple(
            diagnosis.mismatch.id
            for diagnosis in faults
            if any(_names(sighting.where, difference.tensors) for sighting in diagnosis.sightings)
        )
        yield Judged(difference, ids or named, bool(ids))


def _gone(case: Case, faults: Sequence[Diagnosis]) -> Iterator[tuple[str, frozenset[tuple[str, str]]]]:
    """(id of a fault, the differences that are left when it is repaired): each alone, then all of them together."""
    alone = [diagnosis.mismatch for diagnosis in faults if diagnosis.mismatch.automatic]
    for chosen in [[each] for each in alone] + ([alone] if len(alone) > 1 else []):
        try:
            mended = repaired(case, chosen)
        except BridgeError:
            continue
        if mended is None or case.onnx_model is None:
            continue
        graph = replace(case, tflite=mended.tflite).file
        assert graph is not None  # noqa: S101 - it was just made
        left = compare_files(case.onnx_model, graph.graph)
        yield " and ".join(each.id for each in chosen), frozenset(map(_key, left.differences))


def _key(difference: Difference) -> tuple[str, str]:
    return difference.kind, difference.where


def _names(where: str, tensors: Sequence[str]) -> bool:
    """Whether a place names one of these tensors, in quotes as every message does."""
    return any(f"'{name}'" in where for name in tensors)


# ---------------------------------------------------------------------------------------------- what the kernels compute


def _run(case: Case, found: Sequence[Diagnosis], unchecked: list[Unchecked]) -> tuple[Drift | None, Remainder | None]:
    what = "what the kernels compute"
    if case.file is None:
        return None, None
    if not case.inputs:
        unchecked.append(Unchecked(what, "no inputs were given"))
        return None, None
    refuse_inputs(case)  # the caller's error, and said as one
    if case.onnx is None:
        unchecked.append(Unchecked(what, "no ONNX model was given to run beside it"))
        return None, None
    try:
        traced = drift_of(case)
    except BridgeError as error:
        unchecked.append(Unchecked(what, f"{error.where}: {error.problem}"))
        return None, None
    both = ambiguous(case)
    if both:
        names = ", ".join(f"'{name}'" for name in both)
        unchecked.append(
            Unchecked(
                f"in which order of axes the file is fed with {names}",
                f"the sizes fit channels first and channels last; compared as {said(case)}",
            )
        )
    if traced is not None and traced.unmatched:
        unchecked.append(
            Unchecked(
                f"values behind {len(traced.unmatched)} operators", f"no counterpart: {', '.join(traced.unmatched[:2])}"
            )
        )
    return traced, remainder(case, found)
