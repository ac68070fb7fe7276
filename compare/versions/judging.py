"""What a cell of the matrix is worth: its status, and which entries of the catalogue are behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bridge.errors import BridgeError
from compare.measuring.judging import ONE_LSB, judged
from compare.mismatches import Mismatch, Sighting, catalogue
from compare.report.records.versions import NOT_FINITE, CauseRecord, RunRecord, Status
from compare.subjects.case import Case
from compare.subjects.model import Form
from compare.tflite.file import read


def causes_of_failure(log: str, versions: Mapping[str, str], onnx: bytes | None = None) -> tuple[CauseRecord, ...]:
    """The entries that the error itself shows; what the packages alone would suggest is no explanation."""
    found: list[CauseRecord] = []
    for mismatch in catalogue():
        silent = list(_detected(mismatch, Case(onnx=onnx, packages=versions)))
        told = list(_detected(mismatch, Case(onnx=onnx, packages=versions, log=log)))
        found += [_cause(mismatch, each, sure=each.sure) for each in told if each not in silent][:1]
    return tuple(found)


def causes_in_file(case: Case) -> tuple[CauseRecord, ...]:
    """The entries that are seen in a file and what it came from; nothing for a file that cannot be read."""
    return tuple(
        _cause(mismatch, sightings[0], sure=any(each.sure for each in sightings))
        for mismatch in catalogue()
        if (sightings := list(_detected(mismatch, case)))
    )


def _detected(mismatch: Mismatch, case: Case) -> Iterator[Sighting]:
    try:
        yield from mismatch.detect(case)
    except BridgeError:  # a file that one detector cannot read says nothing to it
        return


def _cause(mismatch: Mismatch, sighting: Sighting, *, sure: bool) -> CauseRecord:
    return CauseRecord(mismatch.id, mismatch.name, sure, sighting.where, sighting.fact, sighting.remedy)


def run_record(
    runtime: str,
    outputs: np.ndarray,
    form: Form,
    reference: np.ndarray | None,
    accuracy: float | None,
) -> RunRecord:
    """One file on one runtime in figures; `reference` is None where only the network itself is there to compare with."""
    seen = judged(outputs, form, reference)
    return RunRecord(
        runtime=runtime, problem=None, accuracy=accuracy, changed=int(seen.changed.sum()), max_lsb=seen.max_lsb
    )


def status(made: bool, runs: tuple[RunRecord, ...], spread: float, samples: int, max_changed: float) -> Status:
    """`spread` is the largest difference between two runtimes on the same file, in LSB."""
    if not made:
        return "failed"
    if any(run.problem == NOT_FINITE or (run.changed or 0) > max_changed * samples for run in runs):
        return "loses"
    if any(run.problem is not None for run in runs):
        return "refused"
    return "differs" if spread > ONE_LSB else "clean"


def operators_of(content: bytes, where: str) -> tuple[dict[str, int], int]:
    """The file's operators with the highest version of each, and how many operators are in floating point."""
    import tflite

    model, file = tflite.Model.GetRootAsModel(content, 0), read(content, where)
    graph = model.Subgraphs(0)
    versions: dict[str, int] = {}
    for index, operator in enumerate(file.operators):
        version = model.OperatorCodes(graph.Operators(index).OpcodeIndex()).Version()
        versions[operator.name] = max(version, versions.get(operator.name, 0))
    return versions, sum(not file.is_integer(operator) for operator in file.operators)


def output_step(content: bytes, where: str, otherwise: float) -> float:
    """One step of the file's own output in real units; `otherwise` where the output is in floating point."""
    file = read(content, where)
    scale = file.tensors[file.outputs[0]].scale
    return scale[0] if scale else otherwise
