"""Records of a run, made by hand: a network, and an artifact that equals it unless a test says otherwise."""

import dataclasses

from compare.report.records.run import ArtifactRecord, NetworkRecord, OperatorRecord

NETWORK = NetworkRecord("keras/baseline", "keras", "", 0.97, None, None, None, None, False, 1.0)


def network(identity, accuracy=0.97):
    return dataclasses.replace(NETWORK, id=identity, framework=identity.split("/")[0], accuracy=accuracy)


def artifact(identity, of, accuracy=0.97, *, drop=0.0, latency=0.01, size=25_000, **changes):
    facts = {
        "id": identity,
        "route": identity.split("/")[0],
        "network": of,
        "settings": {},
        "status": "measured",
        "reason": None,
        "log": "",
        "warnings": (),
        "convert_seconds": 1.0,
        "file": None,
        "onnx_file": None,
        "sha256": identity,
        "size": size,
        "accuracy": accuracy,
        "accuracy_drop": drop,
        "disagreements": 0,
        "max_difference": 0.0,
        "max_difference_lsb": 0.0,
        "lsb": 0.1,
        "equal_outputs": 1.0,
        "latency_median_ms": latency,
        "latency_p90_ms": latency,
        "latency_low_ms": latency * 0.98,
        "latency_high_ms": latency * 1.02,
        "operators": (OperatorRecord("CONV_2D", True),),
        "input_dtype": "int8",
        "output_dtype": "int8",
        "scales": (),
    }
    return ArtifactRecord(**(facts | changes))
