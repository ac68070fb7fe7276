"""Q/DQ pairs with a Clip in between, as `reduce_range` models export: found, and written as a clip of real numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from compare.mismatches.parts.two_forms import constants


def clips(model: ModelProto) -> Iterator[NodeProto]:
    """Every Clip through which a QuantizeLinear reaches its DequantizeLinear."""
    quantized = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    dequantized = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "Clip" and node.input[0] in quantized and node.output[0] in dequantized:
            yield node


def with_real_clips(model: ModelProto) -> ModelProto:
    """A copy of the model in which these clips stand behind DequantizeLinear and limit real numbers: the same model.

    Raises `BridgeError` where a limit or a scale is not a constant.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    known = constants(copy)
    moved = {node.output[0]: node for node in clips(copy)}
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        if node.output[0] in moved:
            continue
        clip = moved.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if clip is None:
            nodes.append(node)
            continue
        name = node.output[0]
        node.input[0], node.output[0] = clip.input[0], f"{name}_open"
        limits = [f"{name}_lowest", f"{name}_highest"]
        for limit, value in zip(limits, _limits(clip, node, known), strict=True):
            copy.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), limit))
        nodes += [node, helper.make_node("Clip", [node.output[0], *limits], [name], name=f"{name}_clip")]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _limits(clip: NodeProto, dequantize: NodeProto, known: dict[str, TensorProto]) -> Iterator[float]:
    """Lowest and highest real number: scale * (limit - zero point); a limit that is left out is the type's own."""
    scale, zero_point = (_value(name, known) for name in dequantize.input[1:3])
    own = np.iinfo(zero_point.dtype)
    names = [*clip.input[1:], "", ""][:2]
    for name, limit in zip(names, (own.min, own.max), strict=True):
        code = _value(name, known).astype(np.float64) if name else np.float64(limit)
        yield float(np.float64(scale) * (code - zero_point.astype(np.float64)))


def _value(name: str, known: dict[str, TensorProto]) -> np.ndarray:
    if name not in known:
        raise BridgeError(
            where=f"'{name}'",
            problem="is computed; a Clip between Q and DQ can only be moved when limits and scale are constants",
            remedy="Export the model with constant quantization parameters.",
        )
    found: np.ndarray = numpy_helper.to_array(known[name])
    return found
