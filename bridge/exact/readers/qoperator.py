"""ONNX Runtime's QOperator format, in the spelling of Q/DQ: QLinearConv(x, w) is Q(Conv(DQ(x), DQ(w))).

One small function an operator. Operands and attributes are those of the ONNX operator specification (QLinearConv,
QLinearMatMul) and of ONNX Runtime's docs/ContribOperators.md (domain com.microsoft). What computes a scale while the
model runs has no .tflite of fixed scales and is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.budget import size_of

MICROSOFT = "com.microsoft"
_STANDARD = ("", "ai.onnx")


def as_qdq(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """The model with its QOperators written as Q/DQ around float operators; `model` itself may be changed.

    Raises `BridgeError` for an operator whose scales are computed while it runs, are no constants, or whose attributes
    ask for something that the Q/DQ form does not say.
    """
    if not holds_qoperators(model):
        return model
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in _STANDARD and node.output:
            constants.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    writing = _Writing(file, constants, _names(model))
    for index, node in enumerate(model.graph.node):
        form = _FORMS.get(_key(node))
        where = f"{file}, {node.op_type} '{node.name or index}'"
        if node.op_type in _DYNAMIC and node.domain in (*_STANDARD, MICROSOFT):
            raise BridgeError(
                where=where,
                problem="quantizes its activations when the model runs: they have no fixed scale, and int8 kernels need one",
                remedy="Quantize statically: onnxruntime.quantization.quantize_static with a CalibrationDataReader.",
            )
        if form is None:
            writing.nodes.append(node)
        else:
            quantized = _Quantized(node, where, writing)
            if not node.output or not node.output[0]:
                raise quantized.damaged("has no output")
            form(quantized)
    del model.graph.node[:]
    model.graph.node.extend(writing.nodes)
    model.graph.initializer.extend(writing.made)
    return model


def holds_qoperators(model: onnx.ModelProto) -> bool:
    """Whether `as_qdq` has something to do."""
    return any(_key(node) in _FORMS or node.op_type in _DYNAMIC for node in model.graph.node)


_DYNAMIC = {
    "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
}  # fmt: skip


def _key(node: onnx.NodeProto) -> tuple[str, str]:
    return "" if node.domain in _STANDARD else node.domain, node.op_type


def _names(model: onnx.ModelProto) -> set[str]:
    graph = model.graph
    described = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    return {each.name for each in described} | {
        name for node in graph.node for name in (node.name, *node.input, *node.output)
    }


@dataclass
class _Writing:
    """What has been written so far, and the names that are taken."""

    file: str
    constants: dict[str, onnx.TensorProto]
    taken: set[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: list[onnx.TensorProto] = field(default_factory=list)

    def free(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name

    def constant(self, wanted: str, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(value, self.free(wanted))
        self.made.append(tensor)
        self.constants[tensor.name] = tensor
        return tensor.name


@dataclass(frozen=True)
class _Quantized:
    """One QOperator: its operands by place, and the nodes that it becomes."""

    node: onnx.NodeProto
    where: str
    writing: _Writing

    def operand(self, place: int) -> str:
        """'' where it is left out."""
        return self.node.input[place] if place < len(self.node.input) else ""

    def needed(self, place: int) -> str:
        name = self.operand(place)
        if not name:
            raise self.damaged(f"has no operand {place + 1}")
        return name

    def damaged(self, problem: str) -> BridgeError:
        remedy = "The file is damaged or was edited by hand; export it again."
        return BridgeError(where=self.where, problem=problem, remedy=remedy)

    def value(self, name: str) -> np.ndarray:
        tensor = self.writing.constants.get(name)
        try:
            if tensor is None or external_data_helper.uses_external_data(tensor) or size_of(tensor.dims) > _MOST_SCALES:
                raise ValueError(name)  # noqa: TRY301 - said as what onnx finds
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind not in "fiu":
                raise TypeError(array.dtype)  # noqa: TRY301
        except (ValueError, TypeError, KeyError) as error:
            raise BridgeError(
                where=f"{self.where}, tensor '{name}'",
                problem="is a scale or zero point that is no constant of numbers in the file",
                remedy="Quantize statically, so that every scale stands in the file.",
            ) from error
        return array

    def attributes(self, *kept: str, **harmless: int) -> dict[str, Any]:
        """Those of these names; the others must have the value with which they change nothing."""
        found = {each.name: helper.get_attribute_value(each) for each in self.node.attribute}
        for name, value in found.items():
            if name not in kept and (name not in harmless or value != harmless[name]):
                raise BridgeError(
                    where=self.where,
                    problem=f"has an attribute '{name}' = {str(value)[:40]}, which the bridge does not read",
                    remedy="Quantize the float model again in the QDQ format: quant_format=QuantFormat.QDQ.",
                )
        for each in self.node.attribute:
            if each.type != _KINDS.get(each.name, each.type) or each.ref_attr_name:
                raise self.damaged(f"has an attribute '{each.name}' of another type than it has")
        return {name: value for name, value in found.items() if name in kept}

    def real(self, codes: int, scale: int, zero_point: int, axis: int | None = None) -> str:
        """The name of the real values of the operand at a place, whose scale and zero point stand at two others."""
        operands = [self.needed(codes), self._scalar(self.needed(scale))]
        if self.operand(zero_point):
            operands.append(self._scalar(self.operand(zero_point)))
        return self._dequantized(operands, axis if self.value(operands[1]).ndim else None)

    def bias(self, place: int, scale: np.ndarray) -> str:
        """The real values of int32 codes at zero point 0 and this scale, of one or as many as there are codes."""
        name = self.writing.constant(f"{self.needed(place)}/scale", scale)
        return self._dequantized([self.needed(place), name], 0 if scale.ndim else None)

    def product(self, one: int, other: int, factor: float = 1.0) -> np.ndarray:
        """Of two scales, of which at most one is of channels; float32."""
        scales = [self.value(self._scalar(self.needed(place))) for place in (one, other)]
        if sum(scale.ndim for scale in scales) > 1:
            raise self.damaged(f"has scales of shapes {scales[0].shape} and {scales[1].shape}")
        with np.errstate(all="ignore"):  # what is not finite is refused where all constants are looked at
            return np.asarray(np.float32(factor) * scales[0] * scales[1], np.float32)

    def becomes(self, op: str, inputs: Sequence[str], scale: int, zero_point: int, **attributes: Any) -> None:
        """The float operator, and its output quantized."""
        output = self.writing.free(f"{self.node.output[0]}/real")
        self.float_operator(op, inputs, output, **attributes)
        zero = self.operand(zero_point)
        if not zero:
            codes = next((each for place in (2, 3) if (each := self.operand(place)) in self.writing.constants), "")
            dtype = self.value(codes).dtype if codes else np.dtype(np.uint8)
            zero = self.writing.constant(f"{self.node.output[0]}/zero_point", np.zeros((), dtype))
        self._node(
            "QuantizeLinear", [output, self._scalar(self.needed(scale)), self._scalar(zero)], self.node.output[0]
        )

    def float_operator(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._node(op, inputs, output, name=self.node.name or self.writing.free(output), **attributes)

    def _dequantized(self, operands: Sequence[str], axis: int | None) -> str:
        output = self.writing.free(f"{operands[0]}/real")
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        self._node("DequantizeLinear", operands, output, **attributes)
        return output

    def _node(self, op: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> None:
        name = name or self.writing.free(f"{output}/{op}")
        self.writing.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))

    def _scalar(self, name: str) -> str:
        """A scale or zero point of one entry as a scalar, whatever its shape."""
        value = self.value(name)
        if value.size != 1 or value.ndim == 0:
            return name
        return self.writing.constant(f"{name}/scalar", value.reshape(()))


_KINDS = dict.fromkeys(("axis", "opset", "transA", "transB"), onnx.AttributeProto.INT) | {
    "alpha": onnx.AttributeProto.FLOAT
}
"""Of the attributes that are computed with here; the others stay with the float operator (attributes.py)."""

_MOST_SCALES = 1 << 20
"""Of one tensor: one for each channel."""

_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _convolution(it: _Quantized) -> None:
    """x, its scale and zero point; w's; y's; B: int32 at scale x_scale * w_scale."""
    inputs = [it.real(0, 1, 2), it.real(3, 4, 5, axis=0)]
    if it.operand(8):
        inputs.append(it.bias(8, it.product(1, 4)))
    it.becomes("Conv", inputs, 6, 7, **it.attributes(*_WINDOW, channels_last=0))


def _matrix_product(it: _Quantized) -> None:
    """a, b and y, each with scale and zero point; b may have a scale for each column."""
    scales = it.value(it.needed(1)).size
    if scales != 1:
        raise BridgeError(
            where=it.where,
            problem=f"has {scales} scales for its first operand",
            remedy="Quantize activations per tensor; TFLite's kernels have one scale for them.",
        )
    weight = it.writing.constants.get(it.needed(3))
    axis = len(weight.dims) - 1 if weight is not None else None
    it.becomes("MatMul", [it.real(0, 1, 2), it.real(3, 4, 5, axis=axis)], 6, 7, **it.attributes())


def _gemm(it: _Quantized) -> None:
    """A, B, C: int32 at scale alpha * a_scale * b_scale; without a scale for Y its output is real."""
    attributes = it.attributes("alpha", "transA", "transB")
    inputs = [it.real(0, 1, 2), it.real(3, 4, 5, axis=0 if attributes.get("transB") else 1)]
    if it.operand(6):
        inputs.append(it.bias(6, it.product(1, 4, attributes.get("alpha", 1.0))))
    if it.operand(7):
        it.becomes("Gemm", inputs, 7, 8, **attributes)
    else:
        it.float_operator("Gemm", inputs, it.node.output[0], **attributes)


def _of_two(op: str) -> Callable[[_Quantized], None]:
    def write(it: _Quantized) -> None:
        it.becomes(op, [it.real(0, 1, 2), it.real(3, 4, 5)], 6, 7, **it.attributes())

    return write


def _of_one(op: str, *kept: str, **harmless: int) -> Callable[[_Quantized], None]:
    def write(it: _Quantized) -> None:
        it.becomes(op, [it.real(0, 1, 2)], 3, 4, **it.attributes(*kept, **harmless))

    return write


def _softmax(it: _Quantized) -> None:
    """`opset` says which Softmax: before 13 it flattened what lies behind `axis`, which is the same for the last one.

    ONNX Runtime 1.23 does not saturate its output: where the range ends below 1 it starts again at the lowest code.
    """
    attributes = it.attributes("axis", "opset")
    if int(attributes.pop("opset", 1)) < 13 and attributes.get("axis", 1) != -1:
        raise BridgeError(
            where=it.where,
            problem=f"is a Softmax of an opset before 13 over axis {attributes.get('axis', 1)}: over all axes behind it",
            remedy="Export the float model with opset_version=17 and quantize it again.",
        )
    zero = it.value(it.needed(4)).reshape(-1)
    highest = np.iinfo(zero.dtype).max if zero.dtype.kind in "iu" else np.inf
    top = (highest - zero.astype(np.float64)) * it.value(it.needed(3)).reshape(-1)[:1]
    if np.any(top < 0.99):
        raise BridgeError(
            where=it.where,
            problem=f"has an output that ends at {float(np.min(top)):.3g}, and probabilities reach 1: ONNX Runtime's wrap there",
            remedy="Quantize again with calibration data in which a class is certain, or in the QDQ format.",
        )
    it.becomes("Softmax", [it.real(0, 1, 2)], 3, 4, **({"axis": -1} | attributes))


def _concatenation(it: _Quantized) -> None:
    """Y's scale and zero point, then each input with its own."""
    inputs = [it.real(place, place + 1, place + 2) for place in range(2, len(it.node.input), 3)]
    it.becomes("Concat", inputs, 0, 1, **it.attributes("axis"))


def _standard(it: _Quantized) -> None:
    """com.microsoft's QuantizeLinear and DequantizeLinear mean what ONNX's do."""
    node = onnx.NodeProto()
    node.CopyFrom(it.node)
    node.domain = ""
    it.writing.nodes.append(node)


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_FORMS: dict[tuple[str, str], Callable[[_Quantized], None]] = {
    ("", "QLinearConv"): _convolution,
    (MICROSOFT, "QLinearConv"): _convolution,
    ("", "QLinearMatMul"): _matrix_product,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _of_two("Add"),
    (MICROSOFT, "QLinearMul"): _of_two("Mul"),
    (MICROSOFT, "QLinearConcat"): _concatenation,
    (MICROSOFT, "QLinearAveragePool"): _of_one("AveragePool", *_POOL, channels_last=0),
    (MICROSOFT, "QLinearGlobalAveragePool"): _of_one("GlobalAveragePool", channels_last=0),
    (MICROSOFT, "QLinearSigmoid"): _of_one("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _of_one("LeakyRelu", "alpha"),
    (MICROSOFT, "QLinearSoftmax"): _softmax,
    (MICROSOFT, "QuantizeLinear"): _standard,
    (MICROSOFT, "DequantizeLinear"): _standard,
}
