"""Trained scales put back into a .tflite that estimated them again: nothing else of the file changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from bridge.exact.arithmetic import INT32, bias_scale, quantize, quantize_bias
from bridge.exact.graph import Graph, Node, QParams, Tensor
from compare.tflite.structure import matched

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
COPYING = (
    "RESHAPE", "TRANSPOSE", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "SQUEEZE", "SLICE", "STRIDED_SLICE", "SPLIT",
    "MINIMUM", "MAXIMUM", "RELU", "RELU6",
)  # fmt: skip
"""Operators whose int8 output has, or may have, the scale of their first data input."""
COMPARING = ("MINIMUM", "MAXIMUM")
"""Those of them that compare codes: a constant must have that scale too."""


def with_trained_scales(file: Graph, trained: Graph) -> Graph:
    """`file` with the scales of `trained`, the exact bridge's graph of the same model, wherever both have the layer.

    Activations take scale and zero point; what stands between two layers and only copies codes follows its input.
    Weights and biases keep the numbers they stand for, rounded to the trained scales: a weight or bias that was
    damaged stays damaged.
    """
    pairs = dict(_activations(file, trained))
    tensors = dict(file.tensors)
    for name, qparams in pairs.items():
        if tensors[name].qparams is not None:
            tensors[name] = replace(tensors[name], qparams=qparams)
    for node in file.nodes:
        source, target = tensors[_data(file, node)], tensors[node.outputs[0]]
        if node.op not in COPYING or source.qparams is None or target.qparams is None:
            continue
        for name in set(node.outputs) - set(pairs):
            tensors[name] = replace(tensors[name], qparams=source.qparams)
        for constant in (tensors[name] for name in node.inputs if node.op in COMPARING and tensors[name].is_constant):
            codes = quantize(constant.real, source.qparams)
            tensors[constant.name] = replace(constant, data=codes, qparams=source.qparams)
    weights = {theirs.outputs[0]: ours for ours, theirs in matched(trained, file) if ours.op in WEIGHTED}
    for node in file.nodes:
        ours = weights.get(node.outputs[0])
        if ours is not None and node.op in WEIGHTED:
            tensors.update(_constants(node, tensors, trained.tensors[ours.inputs[1]]))
    return replace(file, tensors=tensors)


def _activations(file: Graph, trained: Graph) -> Iterator[tuple[str, QParams]]:
    """(tensor of the file, trained scale) of the inputs and of every layer that both graphs have."""
    pairs = [*zip(trained.inputs, file.inputs, strict=False)]
    pairs += [(ours.outputs[0], theirs.outputs[0]) for ours, theirs in matched(trained, file)]
    for ours, theirs in pairs:
        qparams = trained.tensors[ours].qparams
        if qparams is not None and qparams.axis is None:
            yield theirs, qparams


def _data(file: Graph, node: Node) -> str:
    """The input that is copied: the first that is not a constant."""
    return next((name for name in node.inputs if name and not file.tensors[name].is_constant), node.inputs[0])


def _constants(node: Node, tensors: Mapping[str, Tensor], trained: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Weight at the trained scale, bias at input scale times that."""
    weight, source = tensors[node.inputs[1]], tensors[node.inputs[0]]
    if weight.data is None or weight.qparams is None or trained.qparams is None or source.qparams is None:
        return
    if trained.q.axis is not None and trained.q.scale.size != weight.shape[_channels(node)]:
        return
    qparams = QParams(
        trained.q.scale, np.zeros_like(trained.q.zero_point), None if trained.q.axis is None else _channels(node)
    )
    yield weight.name, replace(weight, data=quantize(weight.real, qparams), qparams=qparams)
    bias = tensors[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    if bias is not None and bias.data is not None and bias.qparams is not None:
        scale = bias_scale(source.q.scale, qparams.scale)
        codes = np.clip(quantize_bias(bias.real, scale), INT32.min, INT32.max).astype(np.int32)
        at = QParams(scale, np.zeros(scale.shape, np.int32), None if scale.ndim == 0 else 0)
        yield bias.name, replace(bias, data=codes, qparams=at)


def _channels(node: Node) -> int:
    return 3 if node.op == "DEPTHWISE_CONV_2D" else 0
