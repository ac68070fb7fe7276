"""Which mismatches a case shows, how sure, and what each costs: the doctor's part that computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bridge.errors import BridgeError
from compare.explaining.attribution import repaired
from compare.measuring.alone import Alone
from compare.measuring.drift import Drift, Layer, Traced, drift, output_layers, trace_onnx, trace_tflite
from compare.measuring.feeding import arranged, by_onnx_name, layout
from compare.mismatches import SEVERITIES, Mismatch, Severity, Sighting, catalogue
from compare.subjects.case import Case


@dataclass(frozen=True)
class Cost:
    """What repairing one mismatch, and nothing else, changes on the given inputs."""

    differing: float
    """Share of the outputs, 0..1."""
    largest: float
    """In real units of the output."""


@dataclass(frozen=True)
class Diagnosis:
    """One mismatch that was seen."""

    mismatch: Mismatch
    sightings: tuple[Sighting, ...]
    cost: Cost | None
    """None without inputs, or where the repair cannot be applied to the .tflite."""

    @property
    def sure(self) -> bool:
        return any(sighting.sure for sighting in self.sightings)

    @property
    def severity(self) -> Severity:
        """The worst of its places; those that are not sure count only where none is."""
        weighed = [self.weight_of(each) for each in self.sightings if each.sure or not self.sure]
        return next(severity for severity in SEVERITIES if severity in weighed)

    @property
    def fails(self) -> bool:
        """Whether a gate stops here: a fault, and no innocent cause."""
        return self.sure and self.severity == "fault"

    def weight_of(self, sighting: Sighting) -> Severity:
        """The severity of one place."""
        return sighting.severity or self.mismatch.severity


def examine(case: Case, only: Sequence[Mismatch] = (), *, costs: bool = True) -> tuple[Diagnosis, ...]:
    """Every mismatch of the catalogue, or of these, that the case shows; in the order of `ordered`.

    `costs`: what is seen is repaired, and both files are run.

    Raises `BridgeError` for files that cannot be read.
    """
    _ = case.file, case.onnx_model  # a file that cannot be read is said once, not by whichever detector comes first
    found = []
    for mismatch in only or catalogue():
        sightings = tuple(mismatch.detect(case))
        if sightings:
            found.append(Diagnosis(mismatch, sightings, _cost(case, mismatch) if costs else None))
    return ordered(found)


def ordered(found: Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """What a gate fails on first, then by severity, the sure first."""
    worst = list(SEVERITIES)
    return tuple(
        sorted(found, key=lambda each: (not each.fails, worst.index(each.severity), not each.sure, each.mismatch.id))
    )


def _cost(case: Case, mismatch: Mismatch) -> Cost | None:
    """Repair this one mismatch in the .tflite, run both files on the inputs, compare."""
    if not mismatch.automatic or case.tflite is None or case.inputs is None:
        return None
    try:
        mended = mismatch.repair(case)
    except BridgeError:
        return None
    if mended.tflite is None or mended.tflite == case.tflite:
        return None
    inputs = arranged(case)
    try:
        before, after = (_outputs(content, inputs) for content in (case.tflite, mended.tflite))
    except BridgeError:
        return None  # one of the two does not run: nothing to compare
    apart = np.abs(before - after)
    return Cost(float((apart > 0).mean()), float(apart.max(initial=0.0)))


def _outputs(tflite: bytes, inputs: list[np.ndarray]) -> np.ndarray:
    traced = trace_tflite(tflite, inputs)
    return np.concatenate([traced.values[name].reshape(-1) for name in traced.graph.outputs])


UNEXPLAINED_LSB = 4.0
"""From here on a layer is wrong that cannot be cut out and fed with the reference's values; of others, `Alone.allowed`."""


@dataclass(frozen=True)
class Remainder:
    """The first layer that is wrong by itself when every fault that can be undone is undone."""

    layer: Layer
    undone: tuple[str, ...]
    """Ids of the mismatches that were repaired before looking."""
    not_undone: tuple[str, ...]
    """Ids of faults that could not be; one of them may be the reason."""


def remainder(case: Case, found: Sequence[Diagnosis]) -> Remainder | None:
    """What no repair explains: needs the trained ONNX model, the .tflite and inputs; None where nothing is left.

    A float ONNX model says nothing about how near an int8 file must be.
    """
    if case.onnx_model is None or not any(node.op_type == "QuantizeLinear" for node in case.onnx_model.graph.node):
        return None
    faults = [diagnosis for diagnosis in found if diagnosis.fails]
    mismatches = [diagnosis.mismatch for diagnosis in faults if diagnosis.mismatch.automatic]
    undone = repaired(case, mismatches) if mismatches else None
    mended = case if undone is None else replace(case, tflite=undone.tflite)
    try:
        layer = _wrong_alone(mended)
    except BridgeError:
        return None  # a file that does not run, or a model that cannot be traced, has been said
    if layer is None:
        return None
    ids = () if undone is None else undone.mismatches
    return Remainder(layer, ids, tuple(each.mismatch.id for each in faults if each.mismatch.id not in ids))


def _wrong_alone(case: Case) -> Layer | None:
    """The first layer that is wrong, and not only because of what reaches it."""
    traces = _traces(case)
    if traces is None:
        return None
    assert case.tflite is not None  # noqa: S101 - it has been traced
    reference, judged = traces
    alone = Alone(reference, judged, case.tflite)
    for layer in drift(reference, judged).layers:
        if layer.max_lsb > (allowed := alone.allowed(layer)) + 0.01:
            by_itself = alone.layer(layer)
            if by_itself is None and layer.max_lsb > UNEXPLAINED_LSB + 0.01:
                return layer  # it cannot be cut out: what is known counts
            if by_itself is not None and by_itself.max_lsb > allowed + 0.01:
                return by_itself
    return _wrong_output(reference, judged, alone)


_LOST = 10.0
"""dB of signal to noise below which an output is another one, however many operators rounded before it."""


def _wrong_output(reference: Traced, judged: Traced, alone: Alone) -> Layer | None:
    """The first output that is wrong behind the last layers that have a counterpart, or behind the inputs.

    What stands between may have none: operators that were changed, lost, or written in another way. Each of them may
    round as a layer does.
    """
    for layer in output_layers(reference, judged):
        allowed = alone.allowed(layer)
        if layer.max_lsb <= allowed + 0.01:
            continue
        by_itself = alone.layer(layer)
        if by_itself is None:
            if layer.sqnr_db < _LOST or layer.file in judged.graph.inputs:
                return layer
        elif by_itself.max_lsb > allowed + 0.01:
            return by_itself
    return None


def drift_of(case: Case) -> Drift | None:
    """Where the .tflite leaves its ONNX model, layer by layer; None without both files and inputs."""
    traces = _traces(case)
    return None if traces is None else drift(*traces)


@lru_cache(maxsize=1)
def _traces(case: Case) -> tuple[Traced, Traced] | None:
    """Both run on the inputs, once: the drift and what is left of it look at the same values."""
    if case.onnx is None or case.tflite is None or not case.inputs:
        return None
    return trace_onnx(case.onnx, by_onnx_name(case), layout(case)), trace_tflite(case.tflite, arranged(case))


def refuse_no_samples(case: Case) -> None:
    """Raise `BridgeError` for inputs that are given and hold nothing to run: no array, no sample, NaN."""
    if case.inputs is not None and not case.inputs:
        raise BridgeError(
            where="inputs", problem="hold no array", remedy="Give one array for each input, or no inputs at all."
        )
    for name, array in (case.inputs or {}).items():
        if not array.size or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise BridgeError(
                where=f"input '{name}'",
                problem=f"is {array.dtype} of shape {array.shape}, or holds NaN or infinity",
                remedy="Give real, finite numbers as the model takes them, one sample at least.",
            )


def refuse_inputs(case: Case) -> None:
    """Raise `BridgeError` for inputs that the ONNX model, or else the .tflite, does not take."""
    refuse_no_samples(case)
    if case.onnx_model is not None and case.inputs:
        given = by_onnx_name(case)
        constants = {tensor.name for tensor in case.onnx_model.graph.initializer}
        batches = {}
        for value in case.onnx_model.graph.input:
            shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            array = given.get(value.name)
            if array is None or value.name in constants or not shape:
                continue
            fits = array.ndim == len(shape) and all(
                size in (0, now) for size, now in zip(shape[1:], array.shape[1:], strict=True)
            )
            if not fits or len(array) % (shape[0] or 1):
                raise BridgeError(
                    where=f"input '{value.name}'",
                    problem=f"has shape {array.shape}; the ONNX model takes {shape}",
                    remedy="Save the samples along the first axis, laid out as in the ONNX file.",
                )
            batches[value.name] = len(array) // (shape[0] or 1)
        if len(set(batches.values())) > 1:
            raise BridgeError(
                where="inputs",
                problem="hold samples for other numbers of runs: "
                + ", ".join(f"'{name}' for {count}" for name, count in batches.items()),
                remedy="Give every input the same number of samples.",
            )
    if case.file is not None:
        arranged(case)
