"""Convolutions and dense layers as modules hold them: torch.nn's attributes, a weight whose codes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.exact.graph import Node
from bridge.from_torch.building import require
from bridge.from_torch.calls import Call
from bridge.from_torch.layers import numbers, padded, window


def weighted(call: Call, layer: Any, x: Any, weight: str, bias: Any, *, relu: bool) -> Node:
    """The operators of a convolution or dense layer, and of its ReLU; returned is the one with the weight.

    `layer` has the attributes of torch.nn's; `weight` is the name of its real numbers.
    """
    shape = call.result.shape
    if hasattr(layer, "kernel_size"):
        node = call.operator(*_convolution(call, layer, x, weight, bias))
        name = node.outputs[0]
    elif len(x.shape) == 2:
        node = call.operator("Gemm", [x, weight, bias], [shape], {"transB": 1})
        name = node.outputs[0]
    else:
        turned = call.step("Transpose", [weight], call.builder.shape(weight)[::-1], perm=[1, 0])
        node = call.operator("MatMul", [x, turned], [shape], {})
        name = node.outputs[0] if bias is None else call.step("Add", [node.outputs[0], bias], shape)
    call.is_now(call.result, call.step("Relu", [name], shape) if relu else name)
    return node


def _convolution(call: Call, layer: Any, x: Any, weight: str, bias: Any) -> tuple[Any, ...]:
    axes = len(layer.kernel_size)
    require(len(x.shape) == axes + 2, "a convolution without a batch axis")
    shaped = _Shape(call.builder.shape(weight))
    pads = padded(layer.padding, shaped, layer.dilation)
    attrs = window(x, shaped, layer.stride, layer.dilation, pads, layer.groups)
    if getattr(layer, "transposed", False):
        more = numbers(layer.output_padding, axes)
        attrs |= {"output_padding": more} if any(more) else {}
        return "ConvTranspose", [x, weight, bias], [call.result.shape], attrs
    mode = {"zeros": "", "reflect": "reflect", "replicate": "edge"}.get(layer.padding_mode)
    require(mode is not None, f"padding in mode '{layer.padding_mode}'")
    source: Any = x
    if mode and any(pads):
        begins, ends = pads[:axes], pads[axes:]
        wider = [*x.shape[:2], *(sum(each) for each in zip(x.shape[2:], begins, ends, strict=True))]
        source = call.step("Pad", [x, call.integers([0, 0, *begins, 0, 0, *ends])], wider, mode=mode)
        attrs["pads"] = [0] * 2 * axes
    return "Conv", [source, weight, bias], [call.result.shape], attrs


@dataclass(frozen=True)
class _Shape:
    """What is asked of a weight."""

    shape: tuple[int, ...]
