"""M35: a dense layer's weight has a scale for each channel, where the target or the training has one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain

import numpy as np
import onnx

from bridge.exact.arithmetic import INT32, quantize_bias
from bridge.exact.graph import Node, QParams, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten
from compare.mismatches.parts.installed import numbers, version_of
from compare.mismatches.parts.small_keras import converted, float_network, images, layers_of
from compare.mismatches.parts.two_forms import constants
from compare.subjects.case import Case

REFUSALS = ("Per-axis quantization is only supported for the following op types", "TENSOR_QUANT8_SYMM_PER_CHANNEL")
"""What Vela before 4.2 and Android's NNAPI say."""
VELA_THAT_TAKES_IT = (4, 2)
"""3.10.0 and 3.12.0 leave such a layer to the CPU, 4.2.0 and 5.2.0 compile it: each was run."""
REMEDY = (
    "Convert with converter._experimental_disable_per_channel_quantization_for_dense_layers = True (TensorFlow 2.19), or "
    "train Linear with one scale (qconfig 'tflite_per_tensor') and convert with python -m bridge."
)


def detect(case: Case) -> Iterator[Sighting]:
    """Several scales on a FULLY_CONNECTED weight: only where something in the case says that there must be one.

    That is a refusal in the log, an Ethos-U compiler that does not take it, or a model that was trained with one scale.
    The same file is right for a model that trained several, on a runtime that takes them.
    """
    if case.file is None:
        return
    dense = list(_per_channel(case))
    reason = _reason(case) if dense else ""
    for node, weight in dense if reason else ():
        yield Sighting(
            where=f"weight '{weight.name}' of FULLY_CONNECTED '{node.outputs[0]}'",
            fact=f"has {weight.q.scale.size} scales; {reason}",
            remedy=REMEDY,
        )


def _per_channel(case: Case) -> Iterator[tuple[Node, Tensor]]:
    assert case.file is not None  # noqa: S101 - the callers have looked
    graph = case.file.graph
    for node in graph.nodes:
        weight = graph.operand(node, 1)
        integer = weight is not None and weight.qparams is not None and graph.output(node).dtype == np.int8
        if node.op == "FULLY_CONNECTED" and integer and weight is not None and weight.q.axis is not None:
            yield node, weight


def _reason(case: Case) -> str:
    """Why there must be one scale; empty where nothing says so."""
    said = next((text for text in REFUSALS if text in case.log), "")
    if said:
        return f"'{said}'"
    vela = version_of(case, "ethos-u-vela")
    if vela and numbers(vela) < VELA_THAT_TAKES_IT:
        return f"ethos-u-vela {vela} leaves such a layer to the CPU"
    sizes = list(_trained_scales(case))
    return "training had one" if sizes and max(sizes) == 1 else ""


def _trained_scales(case: Case) -> Iterator[int]:
    """How many scales each dense weight has in the model that was trained; TF-MOT gives a Dense layer one."""
    yield from (1 for layer in layers_of(case.keras_model) if layer.annotated and layer.kind == "Dense")
    if case.onnx_model is None:
        return
    known = constants(case.onnx_model)
    producers = {name: node for node in case.onnx_model.graph.node for name in node.output}
    for node in case.onnx_model.graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            pair = _dequantized(producers.get(node.input[1]), producers)
            if pair is not None and pair.input[1] in known and _is_constant(pair, known, producers):
                yield int(np.prod(known[pair.input[1]].dims))


def _dequantized(node: onnx.NodeProto | None, producers: dict[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    while node is not None and node.op_type == "Transpose":
        node = producers.get(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _is_constant(
    pair: onnx.NodeProto, known: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto]
) -> bool:
    """Whether a weight and no activation is dequantized: its codes, or the float weight before QuantizeLinear."""
    before = producers.get(pair.input[0])
    return pair.input[0] in known or (before is not None and bool(before.input) and before.input[0] in known)


@cache
def _post_training() -> bytes:
    return converted(float_network(), representative=images())


def reproduce() -> Case:
    """A Conv2D-Dense model, quantized after training by TensorFlow's converter, for an i.MX 93 with its BSP's Vela."""
    return Case(tflite=_post_training(), packages={"ethos-u-vela": "3.10.0"})


def repair(case: Case) -> Case:
    """Give each such weight the largest of its scales, and its bias the scale that belongs to it.

    Codes of the other channels are rounded again; to convert again from the trained model is better where one can.
    """
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    graph = case.file.graph
    changed = chain.from_iterable(
        _with_one_scale(graph.tensors[node.inputs[0]], weight, graph.operand(node, 2))
        for node, weight in _per_channel(case)
    )
    return rewritten(case, {tensor.name: tensor for tensor in changed})


def _with_one_scale(x: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[Tensor]:
    scale = np.array(weight.q.scale.max(), np.float32)
    one = QParams(scale, np.array(0, np.int32))
    codes = np.clip(np.rint(weight.real / scale), -127, 127).astype(weight.dtype)
    yield Tensor(weight.name, weight.shape, weight.dtype, codes, one)
    if bias is not None and bias.qparams is not None:
        step = np.float32(x.q.scale * scale)
        data = np.clip(quantize_bias(bias.real, np.full(bias.shape, step)), INT32.min, INT32.max).astype(bias.dtype)
        yield Tensor(bias.name, bias.shape, bias.dtype, data, QParams(np.array(step), np.array(0, np.int32)))


def measure(broken: Case, repaired: Case) -> float:
    return float(len(list(_per_channel(broken))) - len(list(_per_channel(repaired))))


MISMATCH = Mismatch(
    id="M35",
    name="dense weights with a scale for each channel",
    side="NPU",
    severity="risk",
    versions="TensorFlow 2.19 with Vela 3.10.0 and 3.12.0 (CPU), 4.2.0 and 5.2.0 (NPU); tflite-runtime 2.14 runs it",
    source="tflite-micro PR#2482, #2602, #2673; LiteRT#3596; XNNPACK#999; Vela 3.10 SUPPORTED_OPS.md; file reproduced, "
    "what the compilers do with it measured apart",
    cause="TensorFlow's post-training quantization gives Dense layers a scale for each output without being asked, and also "
    "where QAT trained one. The operator's version stays 4, so no version check sees it. Vela before 4.2 puts the layer on "
    "the CPU, NNAPI refuses it, TFLite Micro before May 2024 used one wrong scale silently and refused it until August 2024. "
    "The NPU of an i.MX 8M Plus computes it on its shader, the slow unit.",
    way_out="converter._experimental_disable_per_channel_quantization_for_dense_layers = True (2.19). In PyTorch: a per-tensor "
    "weight observer for Linear, as in qconfig 'tflite_per_tensor'. A Dense layer that TF-MOT trained has one scale already.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("dense layers with several weight scales", 1),
    requantizes=True,
)
