"""Which weights run fast on which target: one scale for each channel, or one for the whole tensor."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import BridgeError


@dataclass(frozen=True)
class TargetWeights:
    """What to train for one target."""

    target: str
    """As `python -m compare.npu` calls it; `ethos-u` is any of that family under today's Vela."""
    per_channel: bool
    """Scales for each output channel lose less accuracy: taken wherever they cost no speed."""
    why: str
    source: str


_VELA = (
    "ethos-u-vela 5.2.0: its list of operator constraints, and single convolutions and dense layers compiled with it"
)

WEIGHTS = {
    each.target: each
    for each in (
        TargetWeights(
            "imx8mp",
            per_channel=False,
            why="Per-channel weights run on the shader instead of the multiplier array, without a bias in software.",
            source="VeriSilicon's simulator for VIP8000NANOSI_PLUS_PID0X9F (acuitylite 6.57.1), one operator at a time; "
            "https://github.com/VeriSilicon/TIM-VX/issues/121; no board",
        ),
        TargetWeights(
            "imx93",
            per_channel=True,
            why="Vela 5.2.0 takes per-channel weights of convolutions and of dense layers.",
            source=_VELA,
        ),
        TargetWeights(
            "imx93-lf6.6.3",
            per_channel=False,
            why="Vela 3.10.0 leaves dense layers with per-channel weights to the CPU; it takes such convolutions, so "
            "that giving the dense layers alone weights of one scale is enough.",
            source="ethos-u-vela 3.10.0: its SUPPORTED_OPS.md, and the same files compiled with it",
        ),
        *(
            TargetWeights(target, per_channel=True, why="Vela takes both kinds of weights.", source=_VELA)
            for target in ("ethos-u", "ethos-u55", "ethos-u85")
        ),
        TargetWeights(
            "edgetpu",
            per_channel=True,
            why="The compiler takes what TensorFlow's full-integer conversion writes, whose convolutions are per channel.",
            source="https://coral.ai/docs/edgetpu/models-intro; edgetpu_compiler 16.0 maps all operators of such a "
            "network: https://github.com/onnxsim/onnxsim/pull/1407; not run here",
        ),
        TargetWeights(
            "tflm",
            per_channel=True,
            why="The reference kernels run both kinds of weights.",
            source="tflite-micro 0.dev20261023182759: single convolutions and dense layers run with it; not CMSIS-NN",
        ),
        TargetWeights(
            "cpu",
            per_channel=True,
            why="XNNPACK takes both kinds of weights.",
            source="ai-edge-litert 2.1.0: single convolutions and dense layers prepared and run with it",
        ),
    )
}


def weights_for(target: str) -> TargetWeights:
    """The entry of `WEIGHTS`; raises `BridgeError` that lists the targets for one that is not in it."""
    if target not in WEIGHTS:
        raise BridgeError(
            where=f"target '{target}'", problem="is not known", remedy=f"Known targets: {', '.join(WEIGHTS)}."
        )
    return WEIGHTS[target]
