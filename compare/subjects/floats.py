"""A QDQ model without its Q/DQ pairs: the float network whose scales nobody decided, for converters that estimate them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_OPSET = 21
"""The first that knows every type and attribute of Q and DQ that comes from com.microsoft."""
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_FOLDED = (*_PAIR, "Cast", "ConstantOfShape", "Round")
"""What stands between stored codes and the operator that takes them; the last three in the biases of PyTorch's int8 models."""
_ON_CODES = ("Cast", "Clip")
"""What stands between the two of a pair: PyTorch's exporters clip narrower ranges, and cast in its int8 models."""
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "MaxPool", "Abs")
"""Behind these a lower bound of 0 says nothing (a MaxPool has its input's bound)."""


def without_pairs(model: ModelProto) -> ModelProto:
    """The same network: stored codes become float tensors, and pairs on activations go.

    A pair whose codes start at 0 was the ReLU of exporters that leave that out (ONNX Runtime's quantizer does): it stays one.
    `model` holds its tensors itself (bridge.exact.reader.parse_whole) and is not changed.
    """
    done = ModelProto()
    done.CopyFrom(model)
    graph = done.graph
    constants = {tensor.name: tensor for tensor in graph.initializer} | dict(_constants(graph.node))
    codes: dict[str, NodeProto] = {}
    producers = {name: node for node in graph.node for name in node.output}
    stored: dict[str, TensorProto] = {}
    kept: list[NodeProto] = []
    same: dict[str, str] = {}
    relus: dict[str, str] = {}
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        if node.op_type in _FOLDED and all(name in constants for name in node.input if name):
            value = _evaluated(node, constants)
            constants[node.output[0]] = stored[node.output[0]] = numpy_helper.from_array(value, node.output[0])
        elif node.op_type == "QuantizeLinear":
            codes[node.output[0]] = node
        elif node.op_type in _ON_CODES and node.input[0] in codes:
            codes[node.output[0]] = codes[node.input[0]]
        elif node.op_type == "DequantizeLinear" and node.input[0] in codes:
            first = codes[node.input[0]]
            before = producers.get(first.input[0])
            starts_at_zero = before is not None and before.op_type not in (*_NEVER_NEGATIVE, *_PAIR)
            if first.output[0] in relus:
                same[node.output[0]] = relus[first.output[0]]
            elif starts_at_zero and _lowest_is_zero(first, constants):
                relus[first.output[0]] = node.output[0]
                kept.append(helper.make_node("Relu", [first.input[0]], list(node.output), f"{node.output[0]}/relu"))
            else:
                same[node.output[0]] = first.input[0]
        else:
            kept.append(node)
    _leave_outputs(graph.output, same, kept)
    needed = {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(kept)
    tensors = [tensor for tensor in [*graph.initializer, *stored.values()] if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend({tensor.name: tensor for tensor in tensors}.values())
    inputs_left = [value for value in graph.input if value.name in needed or value.name not in constants]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs_left)
    return done


def _constants(nodes: object) -> Iterator[tuple[str, TensorProto]]:
    for node in nodes:  # type: ignore[attr-defined] # published without types
        if node.op_type == "Constant":
            yield from ((node.output[0], each.t) for each in node.attribute if each.name == "value")


def _evaluated(given: NodeProto, constants: dict[str, TensorProto]) -> np.ndarray:
    """What one Q or DQ makes of constants; those of com.microsoft are read as ONNX's own, which later took them over."""
    node = NodeProto()
    node.CopyFrom(given)
    node.domain = ""
    names = [name for name in node.input if name]
    arrays = {name: numpy_helper.to_array(constants[name]) for name in names}
    inputs = [helper.make_tensor_value_info(name, constants[name].data_type, constants[name].dims) for name in arrays]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)
    one = helper.make_model(
        helper.make_graph([node], "one", inputs, [output]), opset_imports=[helper.make_opsetid("", _OPSET)]
    )
    (value,) = ReferenceEvaluator(one).run(None, arrays)
    return np.asarray(value)


def _lowest_is_zero(quantize: NodeProto, constants: dict[str, TensorProto]) -> bool:
    zero_point = constants.get(quantize.input[2]) if len(quantize.input) > 2 else None
    if zero_point is None:
        return True  # uint8 without a zero point
    value = numpy_helper.to_array(zero_point)
    return value.dtype.kind in "iu" and bool((value == np.iinfo(value.dtype).min).all())


def _leave_outputs(outputs: object, same: dict[str, str], kept: list[NodeProto]) -> None:
    """The model's outputs keep their names."""
    kept.extend(
        helper.make_node("Identity", [same[value.name]], [value.name], f"{value.name}/float")
        for value in outputs  # type: ignore[attr-defined] # published without types
        if value.name in same
    )
