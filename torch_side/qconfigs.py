"""The named eager QAT qconfigs, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    get_default_qat_qconfig,
)
from torch.ao.quantization.qconfig import (
    default_per_channel_symmetric_qnnpack_qat_qconfig,
    default_symmetric_qnnpack_qat_qconfig,
)

from bridge.errors import BridgeError
from bridge.targets import weights_for


@dataclass(frozen=True)
class NamedQConfig:
    """A QAT qconfig, and the int8 engine of PyTorch that runs what it trains.

    `engine` is None where none does: torch 2.13's engines take uint8 activations only
    (`quantized::conv(qnnpack): Expected activation data type QUInt8 but got QInt8`).
    """

    name: str
    build: Callable[[], QConfig]
    engine: str | None
    about: str


def _tflite(weight_observer: type, qscheme: torch.qscheme) -> QConfig:
    """int8 activations over the whole range, symmetric narrow-range weights: TFLite's own arithmetic.

    Source: TFLite 8-bit quantization specification (weights in [-127, 127], zero point 0). Weights take the plain
    FakeQuantize: the fused one gives a channel whose weights all have one sign a zero point at the end of the range
    (torch aten/src/ATen/native/quantized/cpu/QuantUtils.h, `ChooseQuantizationParams`), and int8 weights have none.
    """
    return QConfig(
        activation=FusedMovingAvgObsFakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8, reduce_range=False
        ),
        weight=FakeQuantize.with_args(
            observer=weight_observer, quant_min=-127, quant_max=127, dtype=torch.qint8, qscheme=qscheme
        ),
    )


QCONFIGS = {
    qconfig.name: qconfig
    for qconfig in (
        NamedQConfig(
            "fbgemm",
            partial(get_default_qat_qconfig, "fbgemm"),
            "fbgemm",
            "uint8 activations clamped to 7 bits (reduce_range), per-channel weights",
        ),
        NamedQConfig(
            "x86",
            partial(get_default_qat_qconfig, "x86"),
            "x86",
            "PyTorch's default on x86: as fbgemm, another engine",
        ),
        NamedQConfig(
            "qnnpack",
            partial(get_default_qat_qconfig, "qnnpack"),
            "qnnpack",
            "uint8 activations over 8 bits, per-tensor weights",
        ),
        NamedQConfig(
            "symmetric",
            lambda: default_symmetric_qnnpack_qat_qconfig,
            None,
            "int8 activations, per-tensor narrow-range weights, scales at least 2**-12",
        ),
        NamedQConfig(
            "symmetric-per-channel",
            lambda: default_per_channel_symmetric_qnnpack_qat_qconfig,
            None,
            "int8 activations, per-channel narrow-range weights, scales at least 2**-12",
        ),
        NamedQConfig(
            "tflite",
            partial(_tflite, MovingAveragePerChannelMinMaxObserver, torch.per_channel_symmetric),
            None,
            "TFLite's own arithmetic: int8 activations, per-channel weights in [-127, 127]",
        ),
        NamedQConfig(
            "tflite_per_tensor",
            partial(_tflite, MovingAverageMinMaxObserver, torch.per_tensor_symmetric),
            None,
            "TFLite's own arithmetic with one scale per weight tensor, for NPUs that are fast only then",
        ),
    )
}


def qconfig_named(name: str) -> NamedQConfig:
    """The entry of `QCONFIGS`; raises `BridgeError` for a name that is not in it."""
    if name not in QCONFIGS:
        raise BridgeError(
            where=f"qconfig '{name}'",
            problem="is not known",
            remedy=f"Known names: {', '.join(QCONFIGS)}.",
        )
    return QCONFIGS[name]


def for_target(target: str) -> NamedQConfig:
    """TFLite's own arithmetic with the weights that run fast on `target`, as `python -m compare.npu` names it.

    Why these, and by which source: `bridge.targets.WEIGHTS`. Raises `BridgeError` that lists the targets for another one.
    """
    return qconfig_named("tflite" if weights_for(target).per_channel else "tflite_per_tensor")
