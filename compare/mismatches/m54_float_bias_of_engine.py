"""M54: PyTorch's engines on x86 add a float bias, integer kernels an int32 one."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import EXAMPLE, qat_model
from compare.mismatches.parts.two_forms import converted
from compare.subjects.case import Case

OFF_GRID = 1e-3
"""Of a step; more than double precision makes of a bias that was rounded."""


def detect(case: Case) -> Iterator[Sighting]:
    """Where the engine adds its bias in float, every bias must be a whole multiple of input scale times weight scale.

    A converted module does not say which scale reaches which layer: a bias is named that is on the grid of none.
    """
    layers = list(_layers(case.torch_model))
    if not layers or not _adds_float(layers):
        return
    scales = list(_activation_scales(case.torch_model))
    for path, _, bias, weight_scale in layers:
        off = [_off_grid(bias, scale * weight_scale) for scale in scales]
        if off and all(each.any() for each in off):
            count = int(min(each.sum() for each in off))
            yield Sighting(
                where=f"bias of '{path}'",
                fact=f"{count} of {bias.size} entries lie between two int32 codes, and this engine adds them in float",
                remedy="Validate with torch_side.bias_grid.round_engine(model, examples): what int32 kernels compute.",
            )


def _layers(model: Any) -> Iterator[tuple[str, Any, np.ndarray, np.ndarray]]:
    """Path, module, real bias and weight scales of every layer of a converted model that has a bias."""
    for path, module in () if model is None else model.named_modules():
        if not hasattr(module, "_weight_bias") or "dynamic" in type(module).__module__:
            continue  # dynamic layers are meant to be float
        weight, bias = module._weight_bias()  # noqa: SLF001 - torch has no other way to ask
        if bias is not None:
            per_channel = "per_channel" in str(weight.qscheme())
            scale = weight.q_per_channel_scales().numpy() if per_channel else np.array([weight.q_scale()])
            yield path, module, bias.detach().double().numpy(), scale.astype(np.float64)


def _activation_scales(model: Any) -> Iterator[float]:
    for module in model.modules():
        if hasattr(module, "scale") and hasattr(module, "zero_point"):
            yield float(module.scale)


def _off_grid(bias: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Which entries are no whole multiple of their step, beyond what float32 can hold of one."""
    codes = bias / step
    off: np.ndarray = np.abs(codes - np.rint(codes)) > OFF_GRID + np.abs(codes) * 2.0**-22
    return off


def _adds_float(layers: list[tuple[str, Any, np.ndarray, np.ndarray]]) -> bool:
    """Whether the engine that packed these layers adds the bias in float: one of them is run once, on zeros.

    At an input scale that makes the largest bias 0.3 of a step, an int32 bias is code 0 and so is the output; a float
    bias comes through (as 100 of 255 codes). A packed weight does not tell its engine otherwise.
    """
    import torch

    for _, module, bias, scale in layers:
        weight, _ = module._weight_bias()  # noqa: SLF001 - torch has no other way to ask
        channel = int(np.abs(bias).argmax())
        reach = float(abs(bias[channel]))
        packed = module._packed_params  # noqa: SLF001 - the same
        if reach == 0 or weight.dim() not in (2, 4) or "transpose" in type(module).__name__.lower():
            continue
        shape = [1, weight.shape[1]]
        run = torch.ops.quantized.linear
        if weight.dim() == 4:
            shape = [1, weight.shape[1] * module.groups]
            shape += [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            run = torch.ops.quantized.conv2d
        else:
            packed = packed._packed_params  # noqa: SLF001 - the same
        step = reach / 0.3 / float(np.broadcast_to(scale, bias.shape)[channel])
        zeros = torch.zeros(shape, dtype=torch.uint8)
        x = torch._make_per_tensor_quantized_tensor(zeros, step, 0)  # noqa: SLF001 - without the deprecation of quint8
        with torch.no_grad():
            codes = run(x, packed, reach / 100, 128).int_repr()
        return bool((codes.int() - 128).abs().max() > 50)
    return False


@cache
def _model() -> Any:
    return converted(qat_model("fbgemm"), "fbgemm")


def reproduce() -> Case:
    """One convolution of the engine fbgemm."""
    inputs = np.random.default_rng(0).uniform(0, 1, (256, 2, 6, 6)).astype(np.float32)
    return Case(torch_model=_model(), inputs={"input": inputs})


def repair(case: Case) -> Case:
    """Put the biases on the int32 grid, each by half a step at most."""
    from torch_side.bias_grid import round_engine

    assert case.inputs is not None  # noqa: S101 - which scale reaches which layer shows when the model runs
    model = copy.deepcopy(case.torch_model)
    try:
        round_engine(model, tuple(each[:1] for each in case.inputs.values()))
    except RuntimeError as error:
        raise BridgeError(
            where="inputs of the PyTorch model",
            problem=f"do not fit: {str(error).strip().splitlines()[0]}",
            remedy="Give them laid out as the model takes them.",
        ) from error
    return replace(case, torch_model=model)


def measure(broken: Case, repaired: Case) -> float:
    """Share of outputs that XNNPACK computes otherwise than the engine, over the same share after the repair."""
    import bridge

    def share(case: Case) -> float:
        assert case.inputs is not None  # noqa: S101 - a measure knows its own reproduction
        with tempfile.TemporaryDirectory() as folder:
            conversion = bridge.convert(case.torch_model, EXAMPLE, Path(folder) / "model.tflite")
        (distance,) = bridge.verify(case.torch_model, conversion, case.inputs["input"])["xnnpack"].values()
        return 1.0 - float(distance.equal)

    return share(broken) - share(repaired)


MISMATCH = Mismatch(
    id="M54",
    name="the engine's bias is float, the kernel's is int32",
    side="PyTorch",
    severity="note",
    versions="torch 2.13, engines fbgemm, x86 and onednn; qnnpack rounds as TFLite does",
    source="found here: MNIST, 0.28 % of the logits 1 LSB away, none with the biases on the grid (README)",
    cause="TFLite's kernels, XNNPACK and ONNX Runtime add an int32 bias, a whole multiple of input scale times weight scale. "
    "PyTorch's engines on x86 (all but qnnpack) add the trained float bias as it is. The two sums are up to half a step apart, and some "
    "outputs round to the next code.",
    way_out="Round the biases before validating (torch_side.bias_grid.round_engine; round_frozen for a fake-quant model).",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("outputs that differ from XNNPACK (share)", 0.0003),
)
