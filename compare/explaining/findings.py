"""What a run notices by itself about its artifacts; what established its cause is said, nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compare.mismatches import catalogue
from compare.report.records.run import (
    UNEXPLAINED_LSB,
    UNEXPLAINED_POINTS,
    ArtifactRecord,
    CauseRecord,
    ExplanationRecord,
    FiguresRecord,
    Finding,
    NetworkRecord,
)
from compare.routes.fake_quant import CONTROL_NOTE
from compare.subjects.mnist.networks import SEVEN_BIT

LOSS = 0.01
"""An accuracy drop from one point on is a loss worth a line of its own."""
_WAYS_OUT = {entry.id: entry.way_out for entry in catalogue()}
_DYNAMIC = ("SHAPE", "STRIDED_SLICE", "PACK")


def findings(
    artifacts: Sequence[ArtifactRecord],
    networks: Sequence[NetworkRecord],
    explanations: Sequence[ExplanationRecord] = (),
) -> tuple[Finding, ...]:
    """Every finding, losses first and the largest of them on top."""
    by_id = {network.id: network for network in networks}
    explained = {explanation.artifact: explanation for explanation in explanations}
    found = [
        finding
        for artifact in artifacts
        if artifact.status == "measured"
        for finding in _of_one(artifact, by_id[artifact.network], explained.get(artifact.id))
    ]
    found += [finding for artifact in artifacts for finding in _control(artifact, artifacts)]
    found += [finding for network in networks for finding in _open_clamp(network, artifacts)]
    drops = {artifact.id: artifact.accuracy_drop or 0.0 for artifact in artifacts}
    return tuple(sorted(found, key=lambda finding: (finding.severity != "loss", -drops[finding.artifact])))


def _of_one(
    artifact: ArtifactRecord, network: NetworkRecord, explanation: ExplanationRecord | None
) -> Iterator[Finding]:
    yield from _loss(artifact, network, explanation)
    yield from _unexplained(artifact, explanation)
    yield from _discarded_scales(artifact)
    yield from _free_batch(artifact)
    yield from _float_operators(artifact)


def _control(artifact: ArtifactRecord, artifacts: Sequence[ArtifactRecord]) -> Iterator[Finding]:
    """Two bridges on different principles should write the same model; where they do not, one of them is nearer."""
    control = artifact.control
    if control is None:
        return
    other = next(each for each in artifacts if each.id == control.other)
    nearer = other.id if (other.equal_outputs or 0.0) >= (artifact.equal_outputs or 0.0) else artifact.id
    differs = control.equal < 1.0
    yield Finding(
        artifact=artifact.id,
        severity="notice",
        title="two bridges agree" if not differs else "two bridges differ in a few logits",
        fact=(
            f"{control.equal:.2%} of the logits equal those of {other.id}, the rest up to {control.max_lsb:.0f} LSB away; "
            f"{other.equal_outputs or 0.0:.2%} and {artifact.equal_outputs or 0.0:.2%} equal the network's own"
        ),
        cause=_control_notes(artifact) if differs else None,
        remedy=f"Trust {nearer}: it is nearer to the network." if differs else None,
    )


def _control_notes(artifact: ArtifactRecord) -> str | None:
    """What the control itself says it could not keep; captured as its log."""
    said = [line.strip() for line in artifact.log.splitlines() if line.startswith(CONTROL_NOTE)]
    return "; ".join(line.removeprefix(CONTROL_NOTE) for line in said) or None


def _open_clamp(network: NetworkRecord, artifacts: Sequence[ArtifactRecord]) -> Iterator[Finding]:
    """`reduce_range` clamps at 127 in training and at 255 in the engine: one trained model, two correct files."""
    apart = network.int8_engine_max_lsb
    name = network.id.partition("/")[2]
    file = next(
        (each for each in artifacts if each.id == f"torch-int8-exact/{name}" and each.status == "measured"), None
    )
    if apart is None or file is None or name.removeprefix("qat-") not in SEVEN_BIT:
        return
    yield Finding(
        artifact=file.id,
        severity="notice",
        title="the int8 engine leaves a trained clamp out",
        fact=f"its logits and those of the fake-quant model differ by up to {apart:.0f} LSB",
        cause="reduce_range: fake-quant clamps codes at 127, convert() at 255 (M01, M02)",
        remedy=f"torch-exact/{name} keeps the clamp: it is the fake-quant model; this one is the engine.",
    )


def _loss(artifact: ArtifactRecord, network: NetworkRecord, explanation: ExplanationRecord | None) -> Iterator[Finding]:
    """An artifact must classify as its network does."""
    drop = artifact.accuracy_drop
    if drop is None or drop < LOSS or artifact.accuracy is None:
        return
    causes = () if explanation is None else explanation.causes
    yield Finding(
        artifact=artifact.id,
        severity="loss",
        title=f"{drop * 100:.1f} points lost",
        fact=(
            f"{network.id} has {artifact.accuracy + drop:.2%}, the .tflite {artifact.accuracy:.2%}; "
            f"{artifact.disagreements} {'samples' if network.framework == 'own' else 'images'} changed class"
        ),
        cause=None if explanation is None or not causes else _proof(artifact, explanation),
        remedy=_remedy(artifact, causes),
    )


def _unexplained(artifact: ArtifactRecord, explanation: ExplanationRecord | None) -> Iterator[Finding]:
    """What is left when every known cause is gone has a cause that nobody knows yet; a loss says so itself."""
    if explanation is None or explanation.explained:
        return
    guilty = next((layer for layer in artifact.layers if layer.max_lsb > UNEXPLAINED_LSB), None)
    yield Finding(
        artifact=artifact.id,
        severity="notice",
        title="a difference that no entry of the catalogue explains",
        fact=f"{explanation.points_left * 100:.2f} points and {explanation.lsb_left:.1f} LSB are left"
        + ("" if not explanation.causes else " with every known cause undone")
        + ("" if guilty is None else f"; first more than 1 LSB away: {guilty.op} '{guilty.tensor}'"),
        cause=None,
        remedy="Compare the two layer by layer (python -m compare.doctor with --inputs), from the operator named here on.",
    )


def _proof(artifact: ArtifactRecord, explanation: ExplanationRecord) -> str:
    """Each cause with what its repair alone gives back, all of them together, and what is left."""
    costly = [cause for cause in explanation.causes if _matters(artifact, cause)]
    sentences = [
        f"{_named(cause)}: {'repaired alone' if cause.row is None else f'without it ({cause.row})'} "
        f"{_given_back(artifact, cause.without)}"
        for cause in costly
    ]
    if len(costly) < len(explanation.causes):
        others = ", ".join(_named(cause) for cause in explanation.causes if cause not in costly)
        sentences.append(f"{others}: less than {UNEXPLAINED_POINTS * 100:.1f} points alone")
    if explanation.together is not None and len(explanation.causes) > 1:
        sentences.append(f"all together {_given_back(artifact, explanation.together)}")
    left = (
        "nothing left unexplained"
        if explanation.explained
        else f"unexplained: {explanation.points_left * 100:.2f} points, {explanation.lsb_left:.1f} LSB"
    )
    return "; ".join([*sentences, left])


def _remedy(artifact: ArtifactRecord, causes: Sequence[CauseRecord]) -> str | None:
    """The ways out of what cost something; of all causes, where none did alone."""
    chosen = [cause for cause in causes if cause.without is not None and _matters(artifact, cause)] or causes
    return " ".join(dict.fromkeys(_WAYS_OUT[each.mismatch] for each in chosen if each.mismatch in _WAYS_OUT)) or None


def _named(cause: CauseRecord) -> str:
    return " ".join(filter(None, (cause.mismatch, cause.name)))


def _matters(artifact: ArtifactRecord, cause: CauseRecord) -> bool:
    """Whether the repair alone changes the accuracy by more than what may stay unexplained."""
    if cause.without is None:
        return True
    return abs((artifact.accuracy_drop or 0.0) - cause.without.accuracy_drop) > UNEXPLAINED_POINTS


def _given_back(artifact: ArtifactRecord, without: FiguresRecord | None) -> str:
    if without is None:
        return "gives a file that does not run"
    return f"{((artifact.accuracy_drop or 0.0) - without.accuracy_drop) * 100:+.2f} points"


def _discarded_scales(artifact: ArtifactRecord) -> Iterator[Finding]:
    """Every activation must carry the scale and zero point that training gave it."""
    changed = [scale for scale in artifact.scales if not scale.kept and scale.file_scale is not None]
    if not changed:
        return
    yield Finding(
        artifact=artifact.id,
        severity="notice",
        title=f"{len(changed)} of {len(artifact.scales)} trained activation scales estimated again",
        fact="; ".join(
            f"{scale.role}: trained {scale.trained_scale:.6g} (zero point {scale.trained_zero_point}), "
            f"file {scale.file_scale:.6g} (zero point {scale.file_zero_point})"
            for scale in changed
        ),
        cause="M13: Q/DQ pairs are dropped and calibration data decides" if "onnx2tf" in artifact.route else None,
        remedy="Convert with python -m bridge (route torch-exact), which writes the trained scales.",
    )


def _free_batch(artifact: ArtifactRecord) -> Iterator[Finding]:
    """A fixed input shape needs no operators that compute shapes."""
    present = [name for name in _DYNAMIC if any(operator.name == name for operator in artifact.operators)]
    if not present:
        return
    yield Finding(
        artifact=artifact.id,
        severity="notice",
        title="shapes computed at run time",
        fact=f"contains {', '.join(present)}",
        cause="converted with a free batch dimension",
        remedy="Convert a concrete function with a fixed shape, or give InputLayer a batch_size of 1.",
    )


def _float_operators(artifact: ArtifactRecord) -> Iterator[Finding]:
    """A network that training quantized should not compute in float."""
    computing = [operator for operator in artifact.operators if operator.name not in ("QUANTIZE", "DEQUANTIZE")]
    in_float = [operator.name for operator in computing if not operator.integer]
    if not artifact.scales or not in_float:
        return
    yield Finding(
        artifact=artifact.id,
        severity="notice",
        title=f"{len(in_float)} of {len(computing)} computing operators are float",
        fact=f"float: {', '.join(dict.fromkeys(in_float))}",
        cause=None,
        remedy="Quantize every layer in training, and convert with optimizations and integer I/O.",
    )
