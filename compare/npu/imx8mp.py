"""NXP i.MX 8M Plus (VeriSilicon VIP8000) through the VX delegate: claimed, accepted, and run on which engine?"""

from __future__ import annotations

from pathlib import Path

from compare.npu.imx8mp_claims import EVERY, EXTRA, REGISTERED, REGISTRY
from compare.npu.imx8mp_engines import ACCEPTED, SIMULATOR, engine
from compare.npu.model import OperatorVerdict, Placement, Target, TargetVerdict
from compare.npu.rules import Operator, first_broken, operators
from compare.tflite.graph import OpenedTflite
from compare.tflite.macs import macs

_ENGINES: dict[str, Placement] = {
    "NN": "npu-fast",
    "TP": "npu-fast",
    "SH": "npu-slow",
    "SW": "driver-cpu",
    "unverified": "unverified",
}
_ALWAYS = "Rules of the delegate's source and measurements on VeriSilicon's simulator; not confirmed on a board."
_BORDER = "int8 inputs and outputs are converted to uint8 on the shader, once at each end of a partition."
_BITS = "The NPU's integers differ from the CPU's by 1 LSB here and there (tflite-vx-delegate#210): accept by metric."


def placed(operator: Operator) -> tuple[Placement, str, str]:
    """(placement, reason, source) of one operator."""
    if operator.op not in REGISTERED:
        return "cpu-fallback", f"the delegate does not register {operator.op}", REGISTRY
    unclaimed = first_broken((*EVERY, *EXTRA.get(operator.op, ())), operator)
    if unclaimed is not None:
        return ("cpu-fallback", *unclaimed)
    refused = first_broken(ACCEPTED, operator)
    if refused is not None:
        return ("fails", *refused)
    runs_on, reason = engine(operator)
    return _ENGINES[runs_on], reason, SIMULATOR


def judge(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:  # noqa: ARG001 - a Target's form
    """The verdict of the rules for every operator."""
    verdicts = []
    for operator in operators(opened):
        placement, reason, source = placed(operator)
        verdicts.append(
            OperatorVerdict(
                operator.index,
                operator.op,
                operator.output().name,
                placement,
                reason,
                source,
                macs(opened.graph, operator.node),
            )
        )
    return TargetVerdict(
        "imx8mp", "VX delegate lf-6.6.3_1.0.0, OVXLIB 1.1.88", "rules", tuple(verdicts), notes=(_ALWAYS, _BORDER, _BITS)
    )


TARGETS = (
    Target(
        "imx8mp",
        "NXP i.MX 8M Plus (VIP8000)",
        "The article's own NPU. Fast: the MAC array (NN) and the tensor processor (TP); slow: the shader.",
        "rules",
        judge,
        by_default=2,
    ),
)
