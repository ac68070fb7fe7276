"""The article's claims (A1-A7) and warnings (W1-W4), each judged by the figures of one run.

Every claim is one function that reads records by id; what it needs and does not find makes it not measurable here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from compare.measuring.latency import CONFIDENCE
from compare.report.records.run import (
    ArtifactRecord,
    ClaimRecord,
    NetworkRecord,
    PlacementRecord,
    TimingRecord,
    Verdict,
)
from compare.subjects.mnist.calibration import CALIBRATIONS
from compare.subjects.mnist.larger_network import PREFIX

CLOSE = 0.01
"""`Comes close` and `loses` are decided at one point of accuracy; the figures are always shown."""
SAME_SPEED = 1.15
"""Within 15 % of each other counts as the same speed; a verdict needs intervals of the medians that leave no doubt of it."""


class _MissingError(LookupError):
    """A claim asked for a record this run does not have."""


@dataclass(frozen=True)
class Evidence:
    """The records of a run, by id."""

    networks: dict[str, NetworkRecord]
    artifacts: dict[str, ArtifactRecord]
    test_images: int
    timings: Mapping[str, TimingRecord] = field(default_factory=dict)
    """Of files that are no artifacts: those of the larger network."""

    def network(self, identity: str) -> NetworkRecord:
        return _present(self.networks, identity)

    def artifact(self, identity: str) -> ArtifactRecord:
        found = _present(self.artifacts, identity)
        if found.status != "measured":
            raise _MissingError(identity)
        return found


@dataclass(frozen=True)
class Judgement:
    """What one claim's function found."""

    verdict: Verdict
    evidence: tuple[str, ...]
    based_on: tuple[str, ...]


def judge(
    networks: Sequence[NetworkRecord],
    artifacts: Sequence[ArtifactRecord],
    test_images: int,
    timings: Sequence[TimingRecord] = (),
) -> tuple[ClaimRecord, ...]:
    """One record per claim and warning, in the article's order."""
    known = {each.id: each for each in timings}
    evidence = Evidence({n.id: n for n in networks}, {a.id: a for a in artifacts}, test_images, known)
    return tuple(_judged(identity, statement, rule, evidence) for identity, statement, rule in _CLAIMS)


def _judged(identity: str, statement: str, rule: Callable[[Evidence], Judgement], evidence: Evidence) -> ClaimRecord:
    try:
        found = rule(evidence)
    except _MissingError as missing:
        found = Judgement("not measurable here", (f"this run has no figures of {missing}",), ())
    return ClaimRecord(identity, statement, found.verdict, found.evidence, found.based_on)


_Record = TypeVar("_Record")


def _present(records: dict[str, _Record], identity: str) -> _Record:
    if identity not in records:
        raise _MissingError(identity)
    return records[identity]


def _accuracy(record: NetworkRecord | ArtifactRecord) -> float:
    assert record.accuracy is not None  # noqa: S101 - measured records have one
    return record.accuracy


_Timed = ArtifactRecord | TimingRecord


def _latency(record: _Timed) -> str:
    """`22 us (20 to 25)`."""
    median, low, high = _microseconds(record)
    return f"{median:,.0f} us ({low:,.0f} to {high:,.0f})"


def _microseconds(record: _Timed) -> tuple[float, float, float]:
    """Median of one inference, and its interval."""
    found = (record.latency_median_ms, record.latency_low_ms, record.latency_high_ms)
    assert None not in found  # noqa: S101 - measured records have them
    median, low, high = (float(each or 0) * 1e3 for each in found)
    return median, low, high


def _slower(one: _Timed, other: _Timed) -> bool | None:
    """Whether `one` takes more than `SAME_SPEED` times as long; None where the intervals leave it open."""
    (_, low, high), (_, other_low, other_high) = _microseconds(one), _microseconds(other)
    if low > other_high * SAME_SPEED:
        return True
    return False if high < other_low * SAME_SPEED else None


def _raced(records: Evidence, one: str, other: str) -> tuple[bool | None, tuple[str, ...]]:
    """Whether file `one` is slower than `other`, on the article's network and on a larger one; and the figures.

    On the larger one arithmetic decides, and so does its answer where it has one; the article's network is so small that
    most of its time is the handling of operators.
    """
    answers: list[bool | None] = []
    said: list[str] = []
    ours, others = (records.artifact(f"keras-native/{name}/concrete") for name in (one, other))
    pairs: list[tuple[str, _Timed, _Timed]] = [("the article's network", ours, others)]
    large, larger = (records.timings.get(PREFIX + name) for name in (one, other))
    if large is not None and larger is not None:
        pairs.append(("a larger one", large, larger))
    for name, first, second in pairs:
        answers.append(_slower(first, second))
        ratio = _microseconds(first)[0] / _microseconds(second)[0]
        open_ = "" if answers[-1] is not None else "; the intervals leave it open"
        said.append(f"on {name}: {_latency(first)} against {_latency(second)} (x{ratio:.2f}){open_}")
    return next((answer for answer in reversed(answers) if answer is not None), None), tuple(said)


_HOW_TIMED = (
    f"CPU, one thread, batch 1, XNNPACK; medians of rounds taken in turns, with their {CONFIDENCE:.0%} intervals; more than "
    f"{SAME_SPEED - 1:.0%} apart counts as slower"
)


def _size(record: ArtifactRecord) -> int:
    assert record.size is not None  # noqa: S101 - measured records have one
    return record.size


def _points(difference: float) -> str:
    return f"{difference * 100:+.2f} points"


def _noise(records: Evidence, accuracy: float) -> str:
    """Two standard errors of one accuracy, for the reader to hold differences against."""
    error = math.sqrt(max(accuracy * (1 - accuracy), 0.0) / records.test_images)
    return f"two standard errors of one accuracy on {records.test_images:,} images: {2 * error * 100:.2f} points"


def _qat_is_close_to_float(records: Evidence) -> Judgement:
    pairs = [(records.network("keras/baseline"), records.network("keras/qat"))]
    if "torch/float" in records.networks:
        pairs += [
            (records.network("torch/float"), network)
            for identity, network in records.networks.items()
            if identity.startswith("torch/qat-")
        ]
    gains = [qat.accuracy - base.accuracy for base, qat in pairs]
    return Judgement(
        "confirmed" if min(gains) >= -CLOSE else "not confirmed",
        (
            *(
                f"{qat.id}: {qat.accuracy:.2%} against {base.id} {base.accuracy:.2%} ({_points(qat.accuracy - base.accuracy)})"
                for base, qat in pairs
            ),
            _noise(records, pairs[0][0].accuracy),
            "QAT goes on training, so part of a gain is the extra epochs",
        ),
        tuple(network.id for pair in pairs for network in pair),
    )


def _full_integer_ptq_loses_more(records: Evidence) -> Judgement:
    base = records.network("keras/baseline")
    ptq = records.artifact("keras-native/baseline/integer-only/concrete")
    qat = records.artifact("keras-native/qat/integer-only/concrete")
    lost, lost_by_qat = base.accuracy - _accuracy(ptq), base.accuracy - _accuracy(qat)
    return Judgement(
        "confirmed" if lost - lost_by_qat > CLOSE else "not confirmed",
        (
            f"full-integer post-training quantization: {_points(-lost)} against the float network ({ptq.disagreements} images change class); the article saw about -5",
            f"QAT, converted to integers: {_points(-lost_by_qat)}",
            _noise(records, base.accuracy),
        ),
        (base.id, ptq.id, qat.id),
    )


def _integer_models_are_smaller(records: Evidence) -> Judgement:
    full = records.artifact("keras-native/baseline/none/concrete")
    integer = records.artifact("keras-native/baseline/integer-only/concrete")
    saved = 1 - _size(integer) / _size(full)
    return Judgement(
        "confirmed" if 0.6 <= saved <= 0.76 else "not confirmed",
        (
            f"{_size(full):,} bytes in float, {_size(integer):,} as integers: {saved:.1%} smaller",
            "weights shrink to a quarter; the graph's own description does not, so 75 % is the limit",
        ),
        (full.id, integer.id),
    )


def _qat_alone_is_as_fast(records: Evidence) -> Judgement:
    alone = records.artifact("keras-native/qat/dynamic-range/concrete")
    again = records.artifact("keras-native/qat/full-integer/concrete")
    ptq = records.artifact("keras-native/baseline/full-integer/concrete")
    slower, figures = _raced(records, "qat/dynamic-range", "baseline/full-integer")
    same = "byte for byte the same file" if alone.sha256 == again.sha256 else "not the same file"
    return Judgement(
        "not measurable here" if slower is None else "not confirmed" if slower else "confirmed",
        (
            *(f"QAT with optimizations alone against full-integer post-training, {said}" for said in figures),
            (
                f"QAT quantized again with calibration data: {_latency(again)}, {same}, "
                f"accuracy {_accuracy(alone):.2%} before, {_accuracy(again):.2%} after"
            ),
            _HOW_TIMED,
        ),
        (alone.id, again.id, ptq.id),
    )


def _requantizing_helps_the_npu(records: Evidence) -> Judgement:
    alone = records.artifact("keras-native/qat/dynamic-range/concrete")
    again = records.artifact("keras-native/qat/integer-only/concrete")
    used = (alone.id, again.id)
    before, after = ({each.target: each for each in artifact.placements} for artifact in (alone, again))
    npus = [target for target in before if target in after and target not in _NO_NPU]
    if not npus:
        return Judgement("not measurable here", ("this run judged no NPU (--target)",), used)
    helped = [t for t in npus if _all_fast(after[t]) and not _all_fast(before[t])]
    return Judgement(
        "confirmed" if helped else "not confirmed",
        (
            *(f"{target}: {_fast(before[target])} before, {_fast(after[target])} after" for target in npus),
            *_whom_to_blame(before, helped),
            f"input: {alone.input_dtype} before, {again.input_dtype} after; output: {again.output_dtype}",
            "asking for int8 types alone does the same, without calibration data (M25)",
        ),
        used,
    )


_NO_NPU = ("cpu", "tflm")


def _all_fast(placement: PlacementRecord) -> bool:
    return placement.fast == placement.operators


def _fast(placement: PlacementRecord) -> str:
    return f"{placement.fast} of {placement.operators} operators on the fast unit"


def _whom_to_blame(before: Mapping[str, PlacementRecord], helped: Sequence[str]) -> Iterator[str]:
    for target in helped[:1]:
        for blame in before[target].blame:
            yield f"to blame before, on {target}: {blame.op} ({blame.placement}: {blame.reason})"


def _in_float(artifact: ArtifactRecord) -> str:
    names = [operator.name for operator in artifact.operators if not operator.integer]
    return (
        f"{len(names)} operators that touch float ({', '.join(names)})" if names else "no operator that touches float"
    )


def _dense_only_is_slower(records: Evidence) -> Judgement:
    whole = records.artifact("keras-native/qat/dynamic-range/concrete")
    dense = records.artifact("keras-native/qat-dense/dynamic-range/concrete")
    slower, figures = _raced(records, "qat-dense/dynamic-range", "qat/dynamic-range")
    return Judgement(
        "not measurable here" if slower is None else "confirmed" if slower else "not confirmed",
        (
            *(f"Dense-only against ordinary QAT, {said}" for said in figures),
            f"integer operators: {_integers(dense)} against {_integers(whole)}; sizes {_size(dense):,} and {_size(whole):,} bytes",
            *_on_the_npus(dense, whole),
            _HOW_TIMED,
        ),
        (whole.id, dense.id),
    )


def _on_the_npus(dense: ArtifactRecord, whole: ArtifactRecord) -> Iterator[str]:
    others = {each.target: each for each in whole.placements}
    for placement in dense.placements:
        if placement.target in others and placement.target not in _NO_NPU:
            share = others[placement.target].share_of_macs
            yield f"{placement.target}: {placement.share_of_macs:.0%} of the multiply-accumulates are fast, against {share:.0%}"


def _integers(artifact: ArtifactRecord) -> str:
    return f"{sum(operator.integer for operator in artifact.operators)} of {len(artifact.operators)}"


def _qat_needs_keras(records: Evidence) -> Judgement:
    bridged = [a for i, a in records.artifacts.items() if i.startswith("torch-exact/qat-") and a.status == "measured"]
    if not bridged:
        raise _MissingError("route 'torch-exact'")
    worst = max(bridged, key=lambda artifact: artifact.max_difference_lsb or 0.0)
    kept = all(scale.kept for artifact in bridged for scale in artifact.scales)
    overturned = kept and all((artifact.accuracy_drop or 0.0) < CLOSE for artifact in bridged)
    return Judgement(
        "not confirmed" if overturned else "confirmed",
        (
            f"{len({artifact.network for artifact in bridged})} PyTorch QAT networks reach int8 .tflite with {'every' if kept else 'not every'} trained activation scale kept",
            (
                f"largest difference from the fake-quant model: {worst.max_difference_lsb or 0.0:.2f} LSB ({worst.id}), "
                f"{sum(artifact.disagreements or 0 for artifact in bridged)} changed classes in all of them together"
            ),
        ),
        tuple(artifact.id for artifact in bridged),
    )


def _framework_conversion_is_unstable(records: Evidence) -> Judgement:
    crossed = [a for i, a in records.artifacts.items() if i.startswith("torch-") and a.status == "measured"]
    foreign = [artifact for artifact in crossed if artifact.route in ("torch-onnx2tf", "torch-int8-onnx2tf")]
    if not foreign:
        raise _MissingError("the routes through onnx2tf")
    worst = max(foreign, key=lambda artifact: artifact.accuracy_drop or 0.0)
    discarded = sum(any(not scale.kept for scale in artifact.scales) for artifact in foreign)
    trained = sum(bool(artifact.scales) for artifact in foreign)
    drop = worst.accuracy_drop or 0.0
    return Judgement(
        "confirmed" if drop >= CLOSE else "not confirmed",
        (
            f"worst: {worst.id}, {_points(-drop)}, {worst.disagreements} images changed class",
            f"{discarded} of {trained} artifacts from quantized PyTorch networks no longer carry the trained scales",
        ),
        tuple(artifact.id for artifact in foreign),
    )


def _versions_must_match(records: Evidence) -> Judgement:
    failed = [artifact for artifact in records.artifacts.values() if artifact.status == "failed"]
    refusals = tuple(
        f"failed in this one: {artifact.id}: {(artifact.reason or 'no reason given').partition(chr(10))[0]}"
        for artifact in failed
    )
    return Judgement(
        "not measurable here",
        ("one environment holds one set of versions; python -m compare.versions judges this under many", *refusals),
        tuple(artifact.id for artifact in failed),
    )


def _calibration_data_matters(records: Evidence) -> Judgement:
    good = records.artifact("keras-native/baseline/integer-only/concrete")
    bad = [
        records.artifact(f"keras-native/baseline/integer-only/concrete/{calibration}")
        for calibration in CALIBRATIONS[1:]
    ]
    worst = max(_accuracy(good) - _accuracy(artifact) for artifact in bad)
    return Judgement(
        "confirmed" if worst >= CLOSE else "not confirmed",
        (
            f"representative images: {_accuracy(good):.2%}",
            *(
                f"{artifact.settings['calibration']}: {_accuracy(artifact):.2%} ({_points(_accuracy(artifact) - _accuracy(good))}, "
                f"{artifact.disagreements} images changed class)"
                for artifact in bad
            ),
        ),
        (good.id, *(artifact.id for artifact in bad)),
    )


def _fine_tuning_matters(records: Evidence) -> Judgement:
    pairs = [
        (
            records.artifact("keras-native/baseline/integer-only/concrete"),
            records.artifact("keras-native/qat/integer-only/concrete"),
        )
    ]
    rows = [f"Keras: {_accuracy(plain):.2%} without fine-tuning, {_accuracy(tuned):.2%} with" for plain, tuned in pairs]
    gaps = [_accuracy(tuned) - _accuracy(plain) for plain, tuned in pairs]
    used = [record.id for pair in pairs for record in pair]
    if {"torch/ptq-x86", "torch/qat-x86"} <= set(records.networks):
        plain, tuned = records.network("torch/ptq-x86"), records.network("torch/qat-x86")
        fine_tuned = _accuracy(tuned) if tuned.int8_engine_accuracy is None else tuned.int8_engine_accuracy
        rows.append(f"PyTorch's int8 engine: {plain.accuracy:.2%} without fine-tuning, {fine_tuned:.2%} with")
        gaps.append(fine_tuned - plain.accuracy)
        used += [plain.id, tuned.id]
    return Judgement("confirmed" if max(gaps) >= CLOSE else "not confirmed", tuple(rows), tuple(used))


_CLAIMS: tuple[tuple[str, str, Callable[[Evidence], Judgement]], ...] = (
    ("A1", "QAT comes close to the float baseline", _qat_is_close_to_float),
    ("A2", "Full-integer post-training quantization loses more", _full_integer_ptq_loses_more),
    ("A3", "Integer models are up to 75 % smaller", _integer_models_are_smaller),
    ("A4", "QAT alone is as fast as full-integer quantization; doing both is superfluous", _qat_alone_is_as_fast),
    ("A5", "A QAT model does not always run on the NPU; quantizing again can make it run", _requantizing_helps_the_npu),
    ("A6", "Dense-only QAT is slower than ordinary QAT", _dense_only_is_slower),
    ("A7", "QAT needs Keras", _qat_needs_keras),
    ("W1", "Conversion between frameworks is a source of instability", _framework_conversion_is_unstable),
    ("W2", "Versions that do not match are a source of instability", _versions_must_match),
    ("W3", "The right calibration data is missing", _calibration_data_matters),
    ("W4", "The model cannot be fine-tuned", _fine_tuning_matters),
)
