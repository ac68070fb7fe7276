"""What becomes of every attribute of every ONNX operator that the bridge reads: one table, checked as a file is read.

An attribute is used, or it must have a value with which it changes nothing, or it cannot change what is computed here.
One that is not in the table is refused by name. tests/bridge/exact/test_attributes.py holds the table against the
schemas of all opsets that are read, so that a newer opset's new attribute or operand fails the suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from bridge.errors import BridgeError

_FLOAT = int(onnx.TensorProto.FLOAT)


@dataclass(frozen=True)
class Used:
    """The bridge follows the attribute, or a lowering refuses what it cannot follow."""


@dataclass(frozen=True)
class Only:
    """The attribute, or each of its numbers, must be one of these values; with another one the operator is refused."""

    values: tuple[int | str, ...]
    otherwise: str
    """What another value asks for: the rest of a sentence that begins with the operator and the value."""
    remedy: str


@dataclass(frozen=True)
class NoEffect:
    """No value changes what is computed here."""

    because: str


_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Within:
    """The attribute is used, and each of its numbers must lie between these two.

    ONNX's shape inference divides by some of them: a stride of 0 ends the process there.
    """

    lowest: int
    highest: int = _INT32


Rule = Used | Only | NoEffect | Within


@dataclass(frozen=True)
class Reading:
    """How far the bridge knows an operator: its attributes, and how many inputs and outputs it may have."""

    inputs: int
    """How many of them the bridge knows; `ANY` where ONNX sets no limit."""
    outputs: int
    attributes: Mapping[str, Rule] = field(default_factory=dict)


ANY = 2**31 - 1
USED = Used()
AXIS = Within(-32, 31)
"""Of as many axes as a file may have (guard.py): ONNX's shape inference lets a Softmax of axis 2^63 - 1 pass."""
FLAG = Within(0, 1)
_EXPORT_AGAIN = "Export without it; the integer kernels do not do that."


def _reading(inputs: int, outputs: int = 1, *shared: Mapping[str, Rule], **attributes: Rule) -> Reading:
    for group in shared:
        attributes |= group
    return Reading(inputs, outputs, MappingProxyType(attributes))


_ONE_INPUT, _TWO_INPUTS, _MANY_INPUTS = _reading(1), _reading(2), _reading(ANY)
_WINDOW: dict[str, Rule] = {"auto_pad": USED, "kernel_shape": Within(1), "pads": Within(0), "strides": Within(1)}
_GAPS, _GROUPS = Within(1), Within(1)
_REDUCTION: dict[str, Rule] = {"axes": AXIS, "keepdims": FLAG, "noop_with_empty_axes": FLAG}
_NO_BLOCKS = Only(
    (0,),
    "has one scale for each block of elements; TFLite has them for a tensor or its channels",
    "Quantize per tensor or per channel.",
)
_REAL_NUMBERS_IN_FLOAT32 = Only(
    (0, _FLOAT),
    "computes in another type than float32",
    "Export the model in float32; the kernels compute its integers.",
)
_FLOAT_8_ONLY = NoEffect("it rules casts to 8-bit floating point, which no kernel here has")
_OTHER_MODES_ONLY = NoEffect("it belongs to a mode of Resize that the lowering refuses")

READ: Mapping[str, Reading] = MappingProxyType(
    {
        **dict.fromkeys(("Abs", "Ceil", "Floor", "Neg", "Reciprocal", "Round", "Sqrt"), _ONE_INPUT),
        **dict.fromkeys(("GlobalAveragePool", "HardSwish", "Identity", "Relu", "Sigmoid", "Tanh"), _ONE_INPUT),
        **dict.fromkeys(("Add", "Div", "Equal", "Expand", "MatMul", "Mul", "PRelu", "Pow", "Sub"), _TWO_INPUTS),
        **dict.fromkeys(("Squeeze", "Unsqueeze"), _TWO_INPUTS),
        **dict.fromkeys(("Max", "Min"), _MANY_INPUTS),
        **dict.fromkeys(("Clip", "Where"), _reading(3)),
        "AveragePool": _reading(
            1, 1, _WINDOW, ceil_mode=FLAG, count_include_pad=FLAG,
            dilations=Only((1,), "averages over a window with gaps; TFLite's pools have none", _EXPORT_AGAIN),
        ),
        "BatchNormalization": _reading(
            5, 5, epsilon=USED,
            momentum=NoEffect("it moves the running mean and variance in training"),
            training_mode=Only(
                (0,),
                "normalizes by the mean and variance of the data it sees: it was exported in training mode",
                "Call model.eval() before the export, or pass training=TrainingMode.EVAL to torch.onnx.export.",
            ),
        ),
        "Cast": _reading(1, to=USED, saturate=_FLOAT_8_ONLY, round_mode=_FLOAT_8_ONLY),
        "Concat": _reading(ANY, axis=AXIS),
        "Constant": _reading(0, 1, dict.fromkeys(
            ("value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings", "sparse_value"),
            USED,
        )),
        "ConstantOfShape": _reading(1, value=USED),
        "Conv": _reading(3, 1, _WINDOW, dilations=_GAPS, group=_GROUPS),
        "ConvTranspose": _reading(
            3, 1, _WINDOW, dilations=_GAPS, group=_GROUPS, output_padding=Within(0), output_shape=USED
        ),
        "DequantizeLinear": _reading(3, axis=AXIS, block_size=_NO_BLOCKS, output_dtype=_REAL_NUMBERS_IN_FLOAT32),
        "Dropout": _reading(3, 2, seed=NoEffect("nothing is dropped at inference; training_mode is looked at")),
        "Flatten": _reading(1, axis=AXIS),
        "Gather": _reading(2, axis=AXIS),
        "Gemm": _reading(3, alpha=USED, beta=USED, transA=FLAG, transB=FLAG),
        "HardSigmoid": _reading(1, alpha=USED, beta=USED),
        "LeakyRelu": _reading(1, alpha=USED),
        "MaxPool": _reading(
            1, 2, _WINDOW, ceil_mode=FLAG, dilations=_GAPS,
            storage_order=NoEffect("it numbers the indices of the second output, and that one is refused"),
        ),
        "Mod": _reading(
            2, fmod=Only((0,), "takes the sign of the dividend", "Only sizes are computed by Mod; they are positive."),
        ),
        "Pad": _reading(4, mode=USED),
        "QuantizeLinear": _reading(
            3, axis=AXIS, block_size=_NO_BLOCKS, output_dtype=USED, precision=_REAL_NUMBERS_IN_FLOAT32,
            saturate=_FLOAT_8_ONLY,
        ),
        "Range": _reading(3, stash_type=NoEffect("it rules 16-bit floating point, which no kernel here has")),
        "ReduceMean": _reading(2, 1, _REDUCTION),
        "ReduceProd": _reading(2, 1, _REDUCTION),
        "Reshape": _reading(2, allowzero=FLAG),
        "Resize": _reading(
            4, axes=AXIS, coordinate_transformation_mode=USED, mode=USED, nearest_mode=USED,
            antialias=Only((0,), "smooths before it makes smaller; TFLite's kernels do not", "Use antialias=False."),
            cubic_coeff_a=_OTHER_MODES_ONLY,
            exclude_outside=Only((0,), "leaves out samples outside the image; TFLite repeats the edge", _EXPORT_AGAIN),
            extrapolation_value=_OTHER_MODES_ONLY,
            keep_aspect_ratio_policy=Only(
                ("stretch",), "gives another size than it was asked for", "Write the size that comes out, with policy stretch."
            ),
        ),
        "Shape": _reading(1, start=USED, end=USED),
        "Slice": _reading(5),
        "Softmax": _reading(1, axis=AXIS),
        "Split": _reading(2, ANY, axis=AXIS, num_outputs=Within(1)),
        "Transpose": _reading(1, perm=Within(0, 31)),
    }
)  # fmt: skip
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
