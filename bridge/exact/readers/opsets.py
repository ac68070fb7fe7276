"""Files of opset 10 to 12, and of opsets newer than the installed onnx, in a spelling that it knows.

Old files are rewritten node by node as opset 13 spells them: what was an attribute is an operand, Softmax says which
axes it flattened, Resize says how it samples (ONNX operator specification, versions of each operator; for Resize-10,
which leaves that open, ONNX Runtime's upsample.h). onnx.version_converter is not used: it knows no other domain than
the standard one, and takes its graph through C++ that trusts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.names import free_name, reserved

LOWEST_OPSET = 10
"""QuantizeLinear and DequantizeLinear came with it."""
NEWEST_OPSET = 28
"""The newest one whose changes were read: 27 gave Range a type that rules 16-bit floats only, 28 gave operators types of
6 bits (onnx, docs/Changelog.md)."""
SPELLED_AS = 13
"""The opset that older files are rewritten to."""
_ADDS_TYPES_ONLY = {25: 24, 26: 24}
"""What a newer opset can be read as: 25 gave operators that the bridge reads types of 2 bits and nothing else (and
changed Attention, If, Loop, Scan, Size, which it does not read), 26 added operators (onnx, docs/Changelog.md)."""
_IR_ADDS_TYPES_ONLY = {13: 12}
"""IR 13 added types of 2 bits (onnx.in.proto)."""

_STANDARD = ("", "ai.onnx")


def newest_opset() -> int:
    """The newest opset that is read here: of those that the installed onnx knows, or that can be read as one of them."""
    known = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    return max(known, *(opset for opset, as_before in _ADDS_TYPES_ONLY.items() if as_before <= known), 0)


def opset_of(model: onnx.ModelProto) -> int:
    """Of the standard domain; 0 where the file names none."""
    return max((item.version for item in model.opset_import if item.domain in _STANDARD), default=0)


def check_opset(model: onnx.ModelProto, file: str) -> None:
    """Raise `BridgeError` for an opset that is not read."""
    opset, newest = opset_of(model), newest_opset()
    if not LOWEST_OPSET <= opset <= newest:
        raise BridgeError(
            where=file,
            problem=f"is of opset {opset}; the bridge reads {LOWEST_OPSET} to {newest}",
            remedy="Export again with opset_version=17, or convert it with onnx.version_converter.",
        )


def settled(model: onnx.ModelProto, file: str) -> None:
    """Bring the model, in place, to an opset from 13 to the newest that onnx knows.

    Raises `BridgeError`, naming the node, for an attribute or operand that the file's opset does not have, and for what
    newer opsets cannot say.
    """
    check_opset(model, file)
    opset = opset_of(model)
    if model.ir_version > onnx.IR_VERSION and _IR_ADDS_TYPES_ONLY.get(model.ir_version) == onnx.IR_VERSION:
        model.ir_version = onnx.IR_VERSION
    if opset > onnx.defs.onnx_opset_version():
        _set_opset(model, _ADDS_TYPES_ONLY[opset])
    elif opset < SPELLED_AS:
        _rewrite(model, file, opset)
        _set_opset(model, SPELLED_AS)


def _set_opset(model: onnx.ModelProto, opset: int) -> None:
    for item in model.opset_import:
        if item.domain in _STANDARD:
            item.version = opset


@dataclass
class _Rewriting:
    """What the rules write: nodes in order, constants, and the constants that were there."""

    opset: int
    constants: dict[str, onnx.TensorProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, wanted: str, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(value, free_name(wanted))
        self.made.append(tensor)
        return tensor.name


def _rewrite(model: onnx.ModelProto, file: str, opset: int) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in _STANDARD and node.output:
            constants.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    rewriting = _Rewriting(opset, constants)
    with reserved(_names(model)):
        for index, node in enumerate(model.graph.node):
            rule = RULES.get(node.op_type) if node.domain in _STANDARD else None
            where = f"{file}, {node.op_type} '{node.name or index}'"
            if node.domain in _STANDARD:
                _refuse_of_another_opset(node, opset, where)
            rewriting.nodes.extend([node] if rule is None else rule(node, where, rewriting))
    del model.graph.node[:]
    model.graph.node.extend(rewriting.nodes)
    model.graph.initializer.extend(rewriting.made)


def _names(model: onnx.ModelProto) -> Iterator[str]:
    graph = model.graph
    yield from (each.name for each in (*graph.initializer, *graph.input, *graph.output, *graph.value_info))
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)


def _refuse_of_another_opset(node: onnx.NodeProto, opset: int, where: str) -> None:
    """An attribute or operand of a newer opset would be taken after the rewriting; no runtime takes it before."""
    if not onnx.defs.has(node.op_type, opset, ""):
        return  # of a newer opset, or of none: the table of operators says so
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    unknown = [f"attribute '{each.name}'" for each in node.attribute if each.name not in schema.attributes]
    if len(node.input) > schema.max_input:
        unknown.append(f"input number {schema.max_input + 1}")
    if unknown:
        raise BridgeError(
            where=where,
            problem=f"has an {unknown[0]}, which opset {opset} does not know",
            remedy="Export again with opset_version=17 (13 is the first with a scale for each channel).",
        )


def _taken(node: onnx.NodeProto, *names: str) -> dict[str, Any]:
    """The attributes of these names, which leave the node."""
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute if each.name in names}
    kept = [each for each in node.attribute if each.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
    return found


def _put(node: onnx.NodeProto, inputs: Iterable[str]) -> None:
    del node.input[1:]
    node.input.extend(inputs)


Rule = Callable[[onnx.NodeProto, str, _Rewriting], list[onnx.NodeProto]]
"""The node, changed in place, among those that compute the same in opset 13."""


def _numbers_as_operand(attribute: str) -> Rule:
    def rule(node: onnx.NodeProto, where: str, it: _Rewriting) -> list[onnx.NodeProto]:
        numbers = _taken(node, attribute).get(attribute)
        if numbers is not None:
            _put(node, [it.constant(f"{node.name}/{attribute}", _int64(numbers, attribute, where))])
        return [node]

    return rule


def _int64(numbers: Any, attribute: str, where: str) -> np.ndarray:
    try:
        return np.asarray(numbers, np.int64).reshape(-1)
    except (ValueError, TypeError, OverflowError) as error:
        raise BridgeError(
            where=where,
            problem=f"has an attribute '{attribute}' that holds no whole numbers",
            remedy="The file is damaged or was edited by hand; export it again.",
        ) from error


def _float32(number: Any, attribute: str, where: str) -> np.ndarray:
    if not isinstance(number, float):
        raise BridgeError(
            where=where,
            problem=f"has an attribute '{attribute}' that is no FLOAT",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    return np.asarray(number, np.float32)


_NO_LIMIT = float(np.finfo(np.float32).max)
"""The defaults of Clip before opset 11 are this and its negative."""


def _clip(node: onnx.NodeProto, where: str, it: _Rewriting) -> list[onnx.NodeProto]:
    found = _taken(node, "min", "max")
    limits = []
    for name in ("min", "max") if found else ():
        value = _float32(found.get(name, _NO_LIMIT), name, where)
        limits.append("" if abs(value) >= _NO_LIMIT else it.constant(f"{node.name}/{name}", value))
    if found:
        _put(node, limits)
    return [node]


def _pad(node: onnx.NodeProto, where: str, it: _Rewriting) -> list[onnx.NodeProto]:
    found = _taken(node, "pads", "value")
    if "pads" in found:
        operands = [it.constant(f"{node.name}/pads", _int64(found["pads"], "pads", where))]
        if "value" in found:
            operands.append(it.constant(f"{node.name}/value", _float32(found["value"], "value", where)))
        _put(node, operands)
    return [node]


def _dropout(node: onnx.NodeProto, where: str, it: _Rewriting) -> list[onnx.NodeProto]:  # noqa: ARG001 - the table's form
    _taken(node, "ratio")  # of training; before opset 12 it never drops at inference
    return [node]


def _softmax(node: onnx.NodeProto, where: str, it: _Rewriting) -> list[onnx.NodeProto]:  # noqa: ARG001 - the same
    """Before opset 13 over all axes from `axis` on, 1 by default: a Softmax over the last axis of the flattened input."""
    axis = _taken(node, "axis").get("axis", 1)
    node.attribute.append(helper.make_attribute("axis", -1))
    if axis == -1:
        return [node]
    if not isinstance(axis, int) or not node.input or not node.output:
        raise BridgeError(
            where=where,
            problem="has an attribute 'axis' that is no INT, or no operand",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    x, y = node.input[0], node.output[0]
    shape, flat, result = (free_name(f"{y}/{each}") for each in ("shape", "flat", "probabilities"))
    node.input[0], node.output[0] = flat, result
    return [
        helper.make_node("Shape", [x], [shape], shape),
        helper.make_node("Flatten", [x], [flat], flat, axis=axis),
        node,
        helper.make_node("Reshape", [result, shape], [y], free_name(f"{y}/reshape")),
    ]


_SAMPLING: dict[bytes, str] = {b"nearest": "nearest", b"linear": "linear"}


def _resize(node: onnx.NodeProto, where: str, it: _Rewriting) -> list[onnx.NodeProto]:
    """Resize-10: element i of the output comes from i / scale; the nearest is below it, above it where it gets smaller."""
    if it.opset > 10:
        _put(node, ["" if _is_empty(name, it) else name for name in node.input[1:]])
        return [node]
    mode = _taken(node, "mode").get("mode", b"nearest")
    scales = it.constants.get(node.input[1]) if len(node.input) > 1 else None
    factors = np.ones(0) if scales is None or scales.dims == [] else numpy_helper.to_array(scales).reshape(-1)
    if not factors.size or mode not in _SAMPLING or ((factors > 1).any() and (factors < 1).any()):
        raise BridgeError(
            where=where,
            problem="is a Resize of opset 10 whose scales are no constants, or make one axis larger and another smaller",
            remedy="Export again with opset_version=17: from 11 on a Resize says how it samples.",
        )
    nearest = "ceil" if (factors < 1).any() else "floor"
    _put(node, ["", node.input[1]])
    for name, value in (("mode", _SAMPLING[mode]), ("coordinate_transformation_mode", "asymmetric")):
        node.attribute.append(helper.make_attribute(name, value))
    if mode == b"nearest":
        node.attribute.append(helper.make_attribute("nearest_mode", nearest))
    return [node]


def _is_empty(name: str, it: _Rewriting) -> bool:
    """Before opset 13 an operand that is not there is a list of no numbers."""
    return name in it.constants and list(it.constants[name].dims) == [0]


RULES: dict[str, Rule] = {
    "Clip": _clip,
    "Dropout": _dropout,
    "Pad": _pad,
    "Resize": _resize,
    "Softmax": _softmax,
    "Split": _numbers_as_operand("split"),
    "Squeeze": _numbers_as_operand("axes"),
    "Unsqueeze": _numbers_as_operand("axes"),
}
