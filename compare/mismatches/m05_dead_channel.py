"""M05: a weight channel that is all zero has a scale so small that its bias does not fit int32."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_torch import exported
from compare.mismatches.parts.two_forms import apart, constants, converted, trained
from compare.subjects.case import Case

INT32 = np.iinfo(np.int32)
_REMEDY = (
    "Give that channel a larger weight scale (its codes stay 0), as bridge.convert does with a QAT model; or prune it."
)


def detect(case: Case) -> Iterator[Sighting]:
    """Every bias must fit int32 at input scale times weight scale.

    A prepared module does not say which scale reaches which layer; there, a bias is named that does not fit even with
    the largest of them, the layer's own output aside.
    """
    for path, bias, scale in _layers(case.torch_model):
        yield from _overflows(f"layer '{path}'", bias, scale)
    if case.onnx_model is not None:
        known = constants(case.onnx_model)
        producers = {name: node for node in case.onnx_model.graph.node for name in node.output}
        for node in case.onnx_model.graph.node:
            if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
                yield from _in_onnx(node, known, producers)


def _overflows(where: str, bias: np.ndarray, scale: np.ndarray) -> Iterator[Sighting]:
    """`bias` real, (channels,); `scale` of its codes, (channels,) or (1,)."""
    codes = np.abs(bias.astype(np.float64)) / scale
    for channel in np.flatnonzero(codes > INT32.max):
        step = float(np.broadcast_to(scale, bias.shape)[channel])
        yield Sighting(
            where=f"{where}, channel {channel}",
            fact=f"bias {bias[channel]:.4g} at scale {step:.3g} is code {codes[channel]:.2g}; int32 ends at 2.1e+09",
            remedy=_REMEDY,
        )


def _layers(model: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Path, real bias and largest possible bias scale of every layer of a prepared module, batch norm folded."""
    activations = {each.path: float(each.scale.max()) for each in trained(model) if not each.is_weight}
    for path, module in model.named_modules() if activations else ():
        inputs = [scale for owner, scale in activations.items() if not owner.startswith(f"{path}.")]
        if not hasattr(module, "weight_fake_quant") or not inputs:
            continue
        bias, bn = getattr(module, "bias", None), getattr(module, "bn", None)
        if bn is not None:
            gain = bn.weight / (bn.running_var + bn.eps).sqrt()
            bias = bn.bias + ((0 if bias is None else bias) - bn.running_mean) * gain
        if bias is not None:
            scale = module.weight_fake_quant.scale.detach().double().numpy().reshape(-1)
            if scale.size in (1, bias.numel()):
                yield path, bias.detach().numpy(), scale * max(inputs)


def _in_onnx(
    node: onnx.NodeProto, known: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto]
) -> Iterator[Sighting]:
    """A float bias that will not fit, or int32 codes that already stand at the end of the range."""
    bias, are_codes = _behind(node.input[2], known, producers)
    scales = [_scale(name, known, producers) for name in node.input[:2]]
    if bias is None or bias.ndim != 1 or scales[0] is None or scales[1] is None:
        return
    scale = (scales[0].astype(np.float64) * scales[1].astype(np.float64)).reshape(-1)
    if scale.size not in (1, bias.size):
        return
    if bias.dtype == np.int32:
        for channel in np.flatnonzero((bias == INT32.min) | (bias == INT32.max)):
            yield Sighting(
                where=f"{node.op_type} '{node.name}', channel {channel}",
                fact=f"bias code {bias[channel]} is the end of int32, at scale {scale.min():.3g}",
                remedy=_REMEDY,
                severity="fault",
            )
    elif bias.dtype.kind == "f":
        yield from _overflows(f"{node.op_type} '{node.name}'", bias * scale if are_codes else bias, scale)


def _behind(
    name: str, known: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto]
) -> tuple[np.ndarray | None, bool]:
    """The constant that a bias is made of, and whether it holds codes, not yet cast, instead of real values.

    The exporter of converted models leaves the cast, and sometimes the division before it, for the runtime.
    """
    passed = set()
    while name not in known:
        node = producers.get(name)
        if node is None or node.op_type not in ("Cast", "DequantizeLinear", "Div", "Identity", "Round"):
            return None, False
        passed.add(node.op_type)
        name = node.input[0]
    return numpy_helper.to_array(known[name]), "Cast" in passed and "Div" not in passed


def _scale(name: str, known: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto]) -> np.ndarray | None:
    """The scale of an operand behind DequantizeLinear."""
    node = producers.get(name)
    if node is not None and node.op_type in ("Reshape", "Transpose"):
        node = producers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in known:
        return None
    return numpy_helper.to_array(known[node.input[1]])


DEAD = 1


@cache
def _model() -> Any:
    """QuantStub, convolution with ReLU, DeQuantStub: 8-bit activations, per-channel weights; one channel is all zero."""
    import torch
    from torch import nn
    from torch.ao import quantization as tq

    from torch_side.training import expected_warnings

    torch.set_num_threads(1)
    observers = tq.MovingAverageMinMaxObserver, tq.MovingAveragePerChannelMinMaxObserver
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(0)
        layers = nn.Sequential(tq.QuantStub(), nn.Conv2d(2, 4, 3), nn.ReLU(), tq.DeQuantStub()).train()
        convolution: Any = layers[1]
        convolution.weight[DEAD], convolution.bias[DEAD] = 0.0, 3.0
        fused: Any = tq.fuse_modules_qat(layers, [["1", "2"]])
        fused.qconfig = tq.QConfig(
            activation=tq.FakeQuantize.with_args(observer=observers[0], quant_min=0, quant_max=255),
            weight=tq.FakeQuantize.with_args(
                observer=observers[1],
                quant_min=-127,
                quant_max=127,
                dtype=torch.qint8,
                qscheme=torch.per_channel_symmetric,
            ),
        )
        prepared: Any = tq.prepare_qat(fused)
        prepared(torch.rand(16, 2, 6, 6))
        prepared.apply(tq.disable_observer)
    return prepared.eval()


def reproduce() -> Case:
    """A convolution with one pruned channel and a bias of 3 in it, converted and exported."""
    inputs = np.random.default_rng(0).uniform(0, 1, (8, 2, 6, 6)).astype(np.float32)
    return Case(torch_model=_model(), onnx=exported(converted(_model(), "fbgemm")), inputs={"input": inputs})


def repair(case: Case) -> Case:
    """Give the dead channel the scale of its largest neighbour: its codes stay 0, and the bias fits."""
    import torch

    model = copy.deepcopy(case.torch_model)
    fake_quant = model[1].weight_fake_quant
    with torch.no_grad():
        for limit in (fake_quant.activation_post_process.min_val, fake_quant.activation_post_process.max_val):
            limit[DEAD] = limit[limit.abs().argmax()]
        fake_quant.scale[DEAD] = fake_quant.scale.max()
    return replace(case, torch_model=model, onnx=exported(converted(model, "fbgemm")))


def measure(broken: Case, repaired: Case) -> float:
    """How many LSB further from the fake-quant model the broken file's outputs are."""
    return float(apart(broken).max() - apart(repaired).max())


MISMATCH = Mismatch(
    id="M05",
    name="a dead weight channel whose bias overflows int32",
    side="PyTorch",
    severity="risk",
    versions="torch 2.13 (every weight observer whose eps is small), onnxruntime 1.23.0",
    source="onnxruntime PR#22020 and PR#25278, pytorch/glow PR#5033, Samsung/ONE#6970; reproduced",
    cause="A weight channel that is all zero (pruned, or its batch norm's factor went to 0) gets the observer's smallest "
    "scale, 1.2e-7. Its bias, divided by input scale times weight scale, leaves int32. The exporter of converted models "
    "casts it all the same, and the channel is lost.",
    way_out="Make that channel's weight scale larger until the bias fits; its codes are 0 at every scale. Or remove the channel.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("largest difference from the fake-quant model (LSB)", 200.0),
    automatic=False,
)
