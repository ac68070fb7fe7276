"""Records to draw: a realistic run, an empty one, one with nothing known, and one whose every text is hostile."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from compare.report.records.run import (
    ArtifactRecord,
    BlameRecord,
    CauseRecord,
    ClaimRecord,
    DataRecord,
    ExplanationRecord,
    FiguresRecord,
    Finding,
    LayerRecord,
    NetworkRecord,
    OperatorRecord,
    PlacementRecord,
    RunRecord,
    ScaleRecord,
    SeenRecord,
)

TEST_IMAGES = 2000
HOSTILE = (
    '<script>alert("1")</script> [red]bold[/red] `tick` | pipe\n# head & $x^$ \x1b[31mred\x1b[0m \x00 \u202e é漢😀'
)
INTEGER = ("CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED")


def network(name: str, accuracy: float, **changes: Any) -> NetworkRecord:
    """A trained network; quantized unless `output_scale=None`."""
    record = NetworkRecord(
        id=name,
        framework="torch" if name.startswith("torch") else "keras",
        about="QAT, every layer" if "qat" in name else "float",
        accuracy=accuracy,
        int8_engine="fbgemm" if name.startswith("torch/qat") else None,
        int8_engine_accuracy=accuracy - 0.0005 if name.startswith("torch/qat") else None,
        int8_engine_max_lsb=1.0 if name.startswith("torch/qat") else None,
        output_scale=0.1834961 if "qat" in name else None,
        from_cache=False,
        seconds=6.2,
    )
    return dataclasses.replace(record, **changes)


def scales(*, kept: bool) -> tuple[ScaleRecord, ...]:
    """The three activation scales of the article's network, kept or estimated again."""
    trained = (("input", 0.00392157, -128), ("conv", 0.0215432, -128), ("logits", 0.1834961, 12))
    factors = (1.0, 1.0, 1.0) if kept else (1.0, 0.9312, 1.1275)
    return tuple(
        ScaleRecord(role, scale, zero, scale * factor, zero if factor == 1 else zero - 3, kept or factor == 1)
        for (role, scale, zero), factor in zip(trained, factors, strict=True)
    )


def operators(*names: str, integer: bool = True) -> tuple[OperatorRecord, ...]:
    """Operators in order, all integer or none."""
    return tuple(OperatorRecord(name, integer) for name in names)


def measured(name: str, of: str, drop: float, changed: int, **changes: Any) -> ArtifactRecord:
    """A measured int8 artifact that lost `drop` and changed `changed` classes."""
    file = f"{name.replace('/', '-')}.tflite"
    record = ArtifactRecord(
        id=name,
        route=name.split("/")[0],
        network=of,
        settings={"mode": "integer-only"},
        status="measured",
        reason=None,
        log="INFO: converting\nINFO: done",
        warnings=(),
        convert_seconds=1.42,
        file=file,
        onnx_file=None,
        sha256=hashlib.sha256(file.encode()).hexdigest(),
        size=24_184,
        accuracy=0.9685 - drop,
        accuracy_drop=drop,
        disagreements=changed,
        max_difference=0.1834961 * changed,
        max_difference_lsb=float(changed),
        lsb=0.1834961,
        equal_outputs=max(0.0, 1 - changed / 50),
        latency_median_ms=0.0213,
        latency_p90_ms=0.0297,
        operators=operators(*INTEGER),
        input_dtype="int8",
        output_dtype="int8",
        scales=(),
    )
    return dataclasses.replace(record, **changes)


def missing(name: str, of: str, status: str, reason: str | None, **changes: Any) -> ArtifactRecord:
    """An artifact that was never measured: every figure is None."""
    unknown = dict.fromkeys(
        (
            "convert_seconds", "file", "onnx_file", "sha256", "size", "accuracy", "accuracy_drop", "disagreements",
            "max_difference", "max_difference_lsb", "lsb", "equal_outputs", "latency_median_ms", "latency_p90_ms",
            "input_dtype", "output_dtype",
        )
    )  # fmt: skip
    empty: dict[str, Any] = {"log": "", "settings": {}, "operators": ()}
    return measured(name, of, 0.0, 0, status=status, reason=reason, **{**unknown, **empty, **changes})


def _keras_native() -> list[ArtifactRecord]:
    modes = {  # size, latency, operators, I/O, points lost
        "none": (87_420, 0.0712, operators("CONV_2D", "QUANTIZE", "DEQUANTIZE", "DEQUANTIZE", integer=False), "float32", 0),
        "dynamic-range": (24_610, 0.0464, operators("CONV_2D", "FULLY_CONNECTED", integer=False), "float32", 0.0005),
        "float16": (45_120, 0.0731, operators("DEQUANTIZE", "DEQUANTIZE", "CONV_2D", integer=False), "float32", 0),
        "full-integer": (24_312, 0.0248, operators("QUANTIZE", *INTEGER, "DEQUANTIZE"), "float32", 0.0015),
        "integer-only": (24_184, 0.0221, operators(*INTEGER), "int8", 0.0015),
    }  # fmt: skip
    return [
        measured(
            f"keras-native/{model}/{mode}/{entry}", f"keras/{model}", drop, round(drop * 6000),
            settings={"mode": mode, "entry": entry}, size=size + 37 * index, latency_median_ms=time * (1 + index / 50),
            latency_p90_ms=time * 1.3, operators=ops, input_dtype=ends, output_dtype=ends,
            scales=scales(kept=mode != "integer-only") if model == "qat" and ends == "int8" else (),
            max_difference_lsb=None if model == "baseline" and ends == "float32" else round(drop * 6000) / 2,
            lsb=None, equal_outputs=None,
        )
        for index, model in enumerate(("baseline", "qat", "qat-dense"))
        for mode, (size, time, ops, ends, drop) in modes.items()
        for entry in ("concrete", "keras-model")
    ]  # fmt: skip


def _calibrated() -> list[ArtifactRecord]:
    losses = {"unnormalised": 0.5935, "noise": 0.0435, "one-image": 0.0120}
    return [
        measured(
            f"keras-native/baseline/integer-only/concrete/{kind}", "keras/baseline", loss, round(loss * 2400),
            settings={"mode": "integer-only", "entry": "concrete", "calibration": kind},
        )
        for kind, loss in losses.items()
    ]  # fmt: skip


def _torch() -> list[ArtifactRecord]:
    made: list[ArtifactRecord] = []
    for qconfig in ("fbgemm", "x86", "qnnpack", "symmetric", "symmetric-per-channel"):
        of = f"torch/qat-{qconfig}"
        onnx = {"onnx_file": f"torch-{qconfig}.onnx", "log": "\x1b[33mWARNING:\x1b[0m " + "converter chatter\n" * 300}
        made += [
            measured(
                f"torch-onnx2tf/qat-{qconfig}/{exporter}", of, 0.0005, 9, scales=scales(kept=False),
                settings={"mode": "integer-only", "exporter": exporter, "calibration": "representative"},
                warnings=("scales were estimated again from 100 images",), **onnx,
            )
            for exporter in ("torchscript", "dynamo")
        ]  # fmt: skip
        if qconfig.startswith("symmetric"):
            reason = (
                "quantized::conv(qnnpack): Expected activation data type QUInt8 but got QInt8.\nUse the QDQ export."
            )
            made.append(missing(f"torch-int8-onnx2tf/qat-{qconfig}", of, "failed", reason, log="Traceback …\n  boom"))
        else:
            lost = {"fbgemm": 0.111, "x86": 0.1105, "qnnpack": -0.0005}[qconfig]
            made.append(
                measured(
                    f"torch-int8-onnx2tf/qat-{qconfig}",
                    of,
                    lost,
                    round(abs(lost) * 2800),
                    scales=scales(kept=False),
                    seen=(SeenRecord("M44", "int32 biases in another order", True, "bias of 'conv'", "0, 2, 3, 1"),),
                    layers=(
                        LayerRecord("CONV_2D", "conv", 44.0, 6.9),
                        LayerRecord("FULLY_CONNECTED", "dense", 71.7, 6.8),
                    ),
                )
            )
        made.append(
            measured(
                f"torch-exact/qat-{qconfig}",
                of,
                0.0,
                0,
                scales=scales(kept=True),
                max_difference_lsb=1.0,
                placements=placed(fast=qconfig == "qnnpack"),
            )
        )
    made.append(missing("torch-litert/qat-fbgemm", "torch/qat-fbgemm", "skipped", "needs litert-torch: pip install it"))
    made.append(missing("torch-litert/qat-x86", "torch/qat-x86", "skipped", None))
    return sorted(made, key=lambda a: a.route)


def _claims() -> tuple[ClaimRecord, ...]:
    evidence = ("keras/qat 96.85 %, keras/baseline 96.70 %: 0.15 points apart", "On 2,000 test images")
    return (
        ClaimRecord("A1", "QAT comes close to the float baseline, and can even exceed it.", "confirmed", evidence,
                    ("keras/baseline", "keras/qat")),
        ClaimRecord("A2", "Full-integer post-training quantization loses more.", "not confirmed",
                    ("lost 0.15 points against 0.15",), ("keras-native/baseline/integer-only/concrete",)),
        ClaimRecord("A5", "A QAT model does not always run on the NPU.", "not measurable here",
                    ("no accelerator on this machine",), ()),
        ClaimRecord("W3", "The right calibration data is missing.", "confirmed",
                    ("on 0–255 pixels 37.50 %, on representative data 96.70 %",), ("torch/removed",)),
    )  # fmt: skip


def _findings() -> tuple[Finding, ...]:
    remedy = "Use route 'torch-exact', which writes trained scales unchanged."
    return (
        *(
            Finding(f"torch-onnx2tf/qat-{qconfig}/dynamo", "notice", "trained scales thrown away",
                    f"{count} of 3 activation scales were estimated again", "the converter re-calibrates (M13)", remedy)
            for count, qconfig in enumerate(("fbgemm", "x86", "qnnpack"), start=1)
        ),
        Finding("torch-int8-onnx2tf/qat-x86", "loss", "11.05 points lost", "85.80 % against 96.85 %", None, None),
        Finding("torch-int8-onnx2tf/qat-fbgemm", "loss", "11.1 points lost", "85.75 % against 96.85 %", None, remedy),
    )  # fmt: skip


def placed(*, fast: bool) -> tuple[PlacementRecord, ...]:
    """On two targets: everywhere fast, or slow on the one and partly on the CPU on the other."""
    slow = BlameRecord("CONV_2D", "npu-slow", "a scale for each channel: runs on the shader", 2)
    cpu = BlameRecord("QUANTIZE", "cpu-fallback", "'input' is float32", 1)
    return (
        PlacementRecord("imx8mp", "rules", 5, 5 if fast else 3, 1.0 if fast else 0.2, 0, None, () if fast else (slow,)),
        PlacementRecord(
            "imx93", "vela", 5, 5 if fast else 4, 1.0, 0 if fast else 1, 2e-5, () if fast else (cpu,), "compiled"
        ),
    )


def figures(drop: float, lsb: float) -> FiguresRecord:
    """What is left of a loss once something is undone."""
    return FiguresRecord(0.9685 - drop, drop, round(drop * 2800), lsb, 24_184, 0.0213, 0)


def _explanations() -> tuple[ExplanationRecord, ...]:
    other = "keras-native/baseline/integer-only/concrete"
    return (
        ExplanationRecord(
            "torch-int8-onnx2tf/qat-fbgemm",
            (CauseRecord("M44", "int32 biases in another order", None, figures(0.004, 30.0)),
             CauseRecord("M45", "dequantized twice", None, None)),
            figures(0.0, 1.0), 0.0, 1.0, True,
        ),
        ExplanationRecord("torch-int8-onnx2tf/qat-x86", (), None, 0.1105, 71.7, False),
        ExplanationRecord(
            f"{other}/noise", (CauseRecord(None, "quantized after training", other, figures(0.0, 0.0)),), figures(0.0, 0.0),
            0.0, 0.0, True,
        ),
    )  # fmt: skip


def run_record(**changes: Any) -> RunRecord:
    """A realistic run of 55 artifacts."""
    qconfigs = ("fbgemm", "x86", "qnnpack", "symmetric", "symmetric-per-channel")
    record = RunRecord(
        schema_version=1,
        started="2026-03-01T09:30:00Z",
        seconds=97.4,
        command="python -m compare.run",
        preset="default",
        settings={"seed": 0, "epochs": 4, "learning_rate": 0.001},
        versions={"python": "3.11.9", "torch": "2.13.0", "tensorflow": "2.19.0", "onnx2tf": "1.29.24"},
        machine={"system": "Linux x86_64", "cpu": "2 cores"},
        data=DataRecord("sample", "10,000 MNIST digits, embedded", "sha256:5f1c0b2d", 8000, TEST_IMAGES),
        networks=(
            network("torch/float", 0.9690),
            *(network(f"torch/qat-{name}", 0.9685, from_cache=name == "x86") for name in qconfigs),
            network("keras/baseline", 0.9670),
            network("keras/qat", 0.9685),
            network("keras/qat-dense", 0.9680),
        ),
        artifacts=(*_keras_native(), *_calibrated(), *_torch()),
        findings=_findings(),
        claims=_claims(),
        explanations=_explanations(),
        notes=("The int8 engine ran on one thread.",),
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture(name="record", scope="session")
def realistic_record() -> RunRecord:
    """A run as the main job makes it."""
    return run_record()


@pytest.fixture(scope="session")
def empty_record() -> RunRecord:
    """A run that trained nothing and made nothing."""
    return run_record(
        networks=(), artifacts=(), findings=(), claims=(), explanations=(), notes=(), settings={}, versions={}, machine={},
        data=DataRecord("none", "nowhere", "", 0, 0),
    )  # fmt: skip


@pytest.fixture(scope="session")
def bare_record() -> RunRecord:
    """Measured artifacts of which nothing at all is known, and one of a network the record does not hold."""
    everything_unknown = {
        f.name: getattr(missing("a/b", "n", "failed", None), f.name) for f in dataclasses.fields(ArtifactRecord)
    }
    unknown = {
        **everything_unknown,
        "status": "measured",
        "warnings": (),
        "seen": (),
        "repairs": (),
        "layers": (),
        "control": None,
    }
    return run_record(
        artifacts=tuple(ArtifactRecord(**{**unknown, "id": name}) for name in ("a/b", "a/c")),
        networks=(network("torch/float", 0.0, seconds=0.0),), findings=(), claims=(), explanations=(), notes=(),
    )  # fmt: skip


@pytest.fixture(scope="session")
def hostile_record() -> RunRecord:
    """A run whose every text tries to break out of the view."""
    artifacts = (
        measured(HOSTILE, HOSTILE, 0.2, 400, route=HOSTILE, settings={HOSTILE: HOSTILE, "mode": HOSTILE,
                 "calibration": HOSTILE}, log=HOSTILE, warnings=(HOSTILE,), file=f"javascript:{HOSTILE}", onnx_file=HOSTILE,
                 sha256=HOSTILE, operators=operators(HOSTILE), input_dtype=HOSTILE, output_dtype="int8",
                 scales=(dataclasses.replace(scales(kept=False)[1], role=HOSTILE),),
                 seen=(SeenRecord(HOSTILE, HOSTILE, False, HOSTILE, HOSTILE),),
                 layers=(LayerRecord(HOSTILE, HOSTILE, 12.0, None),),
                 placements=(PlacementRecord(HOSTILE, HOSTILE, 2, 1, 0.5, 1, None,
                             (BlameRecord(HOSTILE, HOSTILE, HOSTILE, 1),)),)),
        measured(f"{HOSTILE}2", HOSTILE, 0.1, 40, route=HOSTILE, settings={HOSTILE: HOSTILE, "mode": HOSTILE,
                 "calibration": "representative"}),
        missing(f"{HOSTILE}3", HOSTILE, "failed", HOSTILE, log=HOSTILE),
    )  # fmt: skip
    return run_record(
        started=HOSTILE, command=HOSTILE, preset=HOSTILE, settings={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE}, data=DataRecord(HOSTILE, HOSTILE, HOSTILE, 1, 1), notes=(HOSTILE,),
        networks=(network(HOSTILE, 0.5, about=HOSTILE, int8_engine=HOSTILE),), artifacts=artifacts,
        findings=(Finding(HOSTILE, "loss", HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        explanations=(
            ExplanationRecord(HOSTILE, (CauseRecord(HOSTILE, HOSTILE, HOSTILE, figures(0.1, 3.0)),), None, 0.1, 3.0, False),
        ),
        claims=(ClaimRecord(HOSTILE, HOSTILE, "confirmed", (HOSTILE,), (HOSTILE,)),),
    )  # fmt: skip
