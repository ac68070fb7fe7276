"""The attributes and operands of every node, held against the record of its operator as a file is read.

An attribute is used, or it must have a value with which it changes nothing, or it cannot change what is computed here.
One that the record (operators/) does not have is refused by name. tests/bridge/exact/test_attributes.py holds the records
against the schemas of all opsets that are read, so that a newer opset's new attribute or operand fails the suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from bridge.errors import BridgeError
from bridge.exact.operators import OPERATORS
from bridge.exact.operators.reading import Only, Reading, Within

READ: Mapping[str, Reading] = MappingProxyType(
    {name: operator.reads for name, operator in OPERATORS.items() if operator.reads is not None}
)
"""By ONNX operator; what is not here is not read."""

_TYPES: Any = onnx.defs.OpSchema.AttrType
_KINDS = {kind.value: name for name, kind in _TYPES.__members__.items()}


def check_attributes(model: onnx.ModelProto, file: str) -> None:
    """Raise `BridgeError` for the first node whose attributes or operands ask for something that the bridge does not do."""
    opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)
    for index, node in enumerate(model.graph.node):
        if node.domain in ("", "ai.onnx") and node.op_type in READ:
            _check_node(node, f"{file}, {node.op_type} '{node.name or index}'", opset)


def check_output_types(model: onnx.ModelProto, constants: Mapping[str, np.ndarray], file: str) -> None:
    """Raise `BridgeError` for the first QuantizeLinear whose zero point is of another type than its output_dtype.

    onnx 1.16 infers no type for what it makes, and ends the process at a DequantizeLinear behind it.
    """
    for index, node in enumerate(model.graph.node):
        if node.domain not in ("", "ai.onnx") or node.op_type != "QuantizeLinear" or len(node.input) < 3:
            continue
        said = next((attribute.i for attribute in node.attribute if attribute.name == "output_dtype"), 0)
        zero = constants.get(node.input[2])
        if said and zero is not None and helper.np_dtype_to_tensor_dtype(zero.dtype) != said:
            raise BridgeError(
                where=f"{file}, QuantizeLinear '{node.name or index}'",
                problem=f"has a zero point of {zero.dtype} and output_dtype {onnx.TensorProto.DataType.Name(said)}",
                remedy="The tool that wrote it left it broken; export again.",
            )


def _check_node(node: onnx.NodeProto, where: str, opset: int) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, min(opset, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return  # younger than this opset: the checker says so
    reading = READ[node.op_type]
    seen: set[str] = set()
    for attribute in node.attribute:
        name = attribute.name
        rule = reading.attributes.get(name) if name in schema.attributes else None
        if rule is None:
            raise BridgeError(
                where=where,
                problem=f"has an attribute '{name}', which opset {opset} does not know"
                if name not in schema.attributes
                else f"has an attribute '{name}', which the bridge does not know",
                remedy="Export again with opset_version=17; the attribute may change what the operator computes.",
            )
        kind: Any = schema.attributes[name].type
        if name in seen or attribute.ref_attr_name or attribute.type != kind.value:
            wanted = _KINDS[kind.value]
            raise BridgeError(
                where=where,
                problem=f"has an attribute '{name}' twice"
                if name in seen
                else f"has an attribute '{name}' that is no {wanted}",
                remedy="The file is damaged or was edited by hand; export it again.",
            )
        seen.add(name)
        if isinstance(rule, Only):
            _refuse_other_values(helper.get_attribute_value(attribute), name, rule, where)
        if isinstance(rule, Within):
            _refuse_outside(_listed(helper.get_attribute_value(attribute)), name, rule, where)
    _refuse_other_lengths(node, where)
    _check_operands(list(node.input), schema.inputs, reading.inputs, where, "input")
    _check_operands(list(node.output), schema.outputs, reading.outputs, where, "output")


def _refuse_other_values(value: Any, name: str, rule: Only, where: str) -> None:
    given = [item.decode(errors="replace") if isinstance(item, bytes) else item for item in _listed(value)]
    other = [item for item in given if item not in rule.values]
    if other:
        raise BridgeError(where=where, problem=f"with {name} {other[0]} {rule.otherwise}", remedy=rule.remedy)


def _refuse_outside(values: list[int], name: str, rule: Within, where: str) -> None:
    outside = [value for value in values if not rule.lowest <= value <= rule.highest]
    if outside:
        raise BridgeError(
            where=where,
            problem=f"has {name} {outside[0]}; it must be from {rule.lowest} to {rule.highest}",
            remedy="The file is damaged or was edited by hand; export it again.",
        )


_FOR_EACH_AXIS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 1, "pads": 2}
"""Attributes of windows that hold so many numbers for each axis that the window has."""


def _refuse_other_lengths(node: onnx.NodeProto, where: str) -> None:
    lengths = {
        attribute.name: len(attribute.ints) / _FOR_EACH_AXIS[attribute.name]
        for attribute in node.attribute
        if attribute.name in _FOR_EACH_AXIS and attribute.ints
    }
    if len(set(lengths.values())) > 1:
        raise BridgeError(
            where=where,
            problem=f"does not know over how many axes it goes: {', '.join(sorted(lengths))} hold numbers for "
            f"{' and '.join(f'{length:g}' for length in sorted(set(lengths.values())))} axes",
            remedy="The file is damaged or was edited by hand; export it again.",
        )


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, int | float | str | bytes) else list(value)


def _check_operands(names: list[str], formal: Any, known: int, where: str, side: str) -> None:
    """Every operand that ONNX demands is there, and none that the bridge has never heard of."""
    options = [parameter.option for parameter in formal]
    kinds = onnx.defs.OpSchema.FormalParameterOption
    variadic = bool(options) and options[-1] == kinds.Variadic
    while names and not names[-1] and not variadic:
        names.pop()  # left out
    needed = {place for place, option in enumerate(options) if option == kinds.Single}
    if variadic:
        needed |= set(range(len(names)))
    lacking = [place for place in sorted(needed) if place >= len(names) or not names[place]]
    if lacking or len(names) > known:
        raise BridgeError(
            where=where,
            problem=f"has no {side} number {lacking[0] + 1}"
            if lacking
            else f"has {len(names)} {side}s; {known} are known",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
