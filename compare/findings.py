"""What a run notices by itself about its artifacts; what established its cause is said, nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from compare.causes import clipped_pairs, reordered_biases
from compare.networks import SEVEN_BIT
from compare.report.record import ArtifactRecord, Finding, NetworkRecord

CONTROL_NOTE = "note: "
"""How routes.py marks a line of a converter's log as what it could not keep."""
LOSS = 0.01
"""An accuracy drop from one point on is a loss worth a line of its own."""
_DYNAMIC = ("SHAPE", "STRIDED_SLICE", "PACK")


def findings(
    artifacts: Sequence[ArtifactRecord], networks: Sequence[NetworkRecord], folder: Path
) -> tuple[Finding, ...]:
    """Every finding, losses first and the largest of them on top. `folder` holds the files the records name."""
    by_id = {network.id: network for network in networks}
    found = [
        finding
        for artifact in artifacts
        if artifact.status == "measured"
        for finding in _of_one(artifact, by_id[artifact.network], folder)
    ]
    found += [finding for artifact in artifacts for finding in _control(artifact, artifacts)]
    found += [finding for network in networks for finding in _open_clamp(network, artifacts)]
    drops = {artifact.id: artifact.accuracy_drop or 0.0 for artifact in artifacts}
    return tuple(sorted(found, key=lambda finding: (finding.severity != "loss", -drops[finding.artifact])))


def _of_one(artifact: ArtifactRecord, network: NetworkRecord, folder: Path) -> Iterator[Finding]:
    yield from _loss(artifact, network, folder)
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


def _loss(artifact: ArtifactRecord, network: NetworkRecord, folder: Path) -> Iterator[Finding]:
    """An artifact must classify as its network does."""
    drop = artifact.accuracy_drop
    if drop is None or drop < LOSS or artifact.accuracy is None:
        return
    cause, remedy = _cause(artifact, folder)
    yield Finding(
        artifact=artifact.id,
        severity="loss",
        title=f"{drop * 100:.1f} points lost",
        fact=(
            f"{network.id} has {artifact.accuracy + drop:.2%}, the .tflite {artifact.accuracy:.2%}; "
            f"{artifact.disagreements} images changed class"
        ),
        cause=cause,
        remedy=remedy,
    )


def _cause(artifact: ArtifactRecord, folder: Path) -> tuple[str | None, str | None]:
    calibration = artifact.settings.get("calibration")
    if calibration is not None:
        return (
            f"calibrated on {calibration} data; the same route on representative data is the row without it (W3)",
            "Calibrate on images from the training set, scaled exactly as in training.",
        )
    if "onnx2tf" not in artifact.route or artifact.onnx_file is None or artifact.file is None:
        return None, None
    onnx_file = folder / artifact.onnx_file
    clipped = clipped_pairs(onnx_file)
    if clipped and any(operator.name == "ROUND" for operator in artifact.operators):
        return (
            f"{clipped} Q/DQ pairs have a Clip between them (reduce_range, M01); onnx2tf dequantizes these twice",
            "Convert with python -m bridge, which keeps the clamp, or train without reduce_range (qconfig 'qnnpack' or 'tflite').",
        )
    reordered = reordered_biases(onnx_file, (folder / artifact.file).read_bytes())
    if reordered:
        return (
            f"the bias of {', '.join(reordered)} is in another order than in the ONNX file, the second channel last: onnx2tf took the int32 vector for an NCHW shape",
            "Do not feed a converted int8 model to onnx2tf 1.x; python -m bridge keeps its biases.",
        )
    return None, None


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
