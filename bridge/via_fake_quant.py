"""ONNX with Q/DQ pairs to int8 .tflite through TensorFlow's own FakeQuant operators and its own converter.

The control of the exact bridge: it shares no line with it, so that the two files can be compared. Every Q/DQ pair
becomes a fake-quant with the trained range, and the converter has nothing to calibrate (catalogue entry M13, "FakeQuant
bridge"). Feature maps are NHWC, at the input too.

What it cannot keep (TensorFlow 2.19; each line is a test):

- Inputs of a concatenation get the scale of its output, whatever was trained (M13, M33). A note names each lost scale.
- Weight codes of -128 become -127, the end of TFLite's weight range (M04).
- The clamp of 7-bit activations (`reduce_range`, M01) at code 0 costs an operator where no ReLU stands before it; at 127
  it is free. A fake-quant over the smaller range, also with `num_bits=7`, would change the scale: (max - min) / 255.
- A per-channel dense layer is a 1x1 convolution between two RESHAPEs (M29).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import tflite
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from bridge.errors import BridgeError
from bridge.fake_quant_rules import RULES, Activation, Notebook, Step
from bridge.via_tflite_converter import (
    WHERE,
    Settings,
    _apply,
    _converter_errors,
    _stand_in,
    _tensorflow,
    first_meaningful_line,
)

LOWEST_OPSET = 13
"""Per-channel Q/DQ and an integer Clip need it (ONNX operator specification; catalogue entry M08)."""

SCALE_DRIFT = 1e-6
"""Relative; further away is another scale. Measured: 1.2e-7, one ulp, because min and max are float32 numbers."""


@dataclass(frozen=True)
class ControlConversion:
    """The int8 .tflite, how many weight codes were -128, and what became different from the ONNX file, in sentences."""

    tflite: bytes
    clamped_weights: int
    notes: tuple[str, ...]


def convert(onnx_path: Path, work: Path | None = None) -> ControlConversion:
    """The .tflite (int8 input and output, NHWC) with the trained scales of an ONNX file, as TensorFlow writes it.

    The graph has one input and one output of fixed shape, as torch_side/export.py writes them: frozen fake-quant
    models of both exporters, and converted int8 models. `work`, when given, keeps the rebuilt graph as a SavedModel.

    Raises `BridgeError` for a file that cannot be read, an operator outside `RULES`, shapes left open, a weight or a
    layer input without a trained scale, a result that would compute in float, and what the converter refuses.
    """
    model = _load(onnx_path)
    book = Notebook()
    function = _rebuild(model, onnx_path.name, book)
    with TemporaryDirectory() if work is None else nullcontext(str(work)) as folder:
        content = _write(function, folder, onnx_path.name)
    lost = _lost_scales(content, book, onnx_path.name)
    clamped = sum(book.clamped.values())
    if clamped:
        book.notes.append(f"{clamped} weight code(s) of -128 became -127, the end of TFLite's weight range (M04)")
    return ControlConversion(content, clamped, (*book.notes, *lost))


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise BridgeError(
            where=str(path),
            problem=f"not a readable ONNX file ({next(iter(str(error).splitlines()), type(error).__name__)})",
            remedy="Check the path, or export it again; the export or download was probably cut short.",
        ) from error
    if refusal := _refusal(model):
        raise BridgeError(where=path.name, problem=refusal[0], remedy=refusal[1])
    return model


def _refusal(model: onnx.ModelProto) -> tuple[str, str] | None:
    """(problem, remedy) of a graph that no rule could help."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=0)
    if opset < LOWEST_OPSET:
        return f"opset {opset} is too old", f"Export again with opset {LOWEST_OPSET} or newer."
    if not {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}:
        return "has no Q/DQ pair, so no trained scales", "Export the QAT model, not the float one."
    if len(inputs) != 1 or len(model.graph.output) != 1:
        return f"has {len(inputs)} inputs and {len(model.graph.output)} outputs", "Split it; one of each is covered."
    shape = [d.dim_value or d.dim_param or "?" for d in inputs[0].type.tensor_type.shape.dim]
    if not shape or any(isinstance(size, str) for size in shape):
        return f"input '{inputs[0].name}' has the open shape {shape}", "Export with a fixed input shape."
    return None


def _rebuild(model: onnx.ModelProto, file: str, book: Notebook) -> Any:
    """The graph as a concrete function of one float32 tensor; the walk over the nodes is its tracing."""
    graph, tf = model.graph, _import_tensorflow()
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (source,) = [value for value in graph.input if value.name not in constants]
    shape = [dimension.dim_value for dimension in source.type.tensor_type.shape.dim]
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    end = onnx.helper.make_node("Output", [graph.output[0].name], [])

    def network(x: Any) -> Any:
        known: dict[str, Any] = {"": None, **constants, source.name: Activation(x)}
        for node in graph.node:
            where = f"{file}, node '{node.name or node.output[0]}' ({node.op_type})"
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            step = Step(node, where, attrs, tuple(known[name] for name in node.input), book, tf)
            known |= dict(zip(node.output, _rebuilt(step, opsets), strict=False))
        return Step(end, f"{file}, output '{end.input[0]}'", {}, (known[end.input[0]],), book, tf).in_order().tensor

    nhwc = [shape[i] for i in (0, 2, 3, 1)] if len(shape) == 4 else shape
    return tf.function(network, autograph=False).get_concrete_function(tf.TensorSpec(nhwc, tf.float32))


def _rebuilt(step: Step, opsets: dict[str, int]) -> list[Any]:
    """What the outputs of a node become. Constants are folded, but not quantization: a rule reads its scales."""
    node, all_constant = step.node, all(x is None or isinstance(x, np.ndarray) for x in step.operands)
    if all_constant and node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        feeds = {name: x for name, x in zip(node.input, step.operands, strict=True) if name}
        return [np.asarray(x) for x in ReferenceEvaluator(node, opsets=opsets).run(None, feeds)]
    if node.op_type not in RULES or node.domain not in {"", "ai.onnx"}:
        raise step.refusal("this operator has no fake-quant rule", f"There are rules for: {', '.join(sorted(RULES))}.")
    if any(node.output[1:]):
        raise step.refusal(f"a second output, '{node.output[1]}', is not covered")
    return [RULES[node.op_type](step)]


def _import_tensorflow() -> Any:
    try:
        return _tensorflow()
    except ModuleNotFoundError as error:
        raise BridgeError(
            where="route 'torch-fake-quant'",
            problem=f"needs tensorflow, which is not installed ({error})",
            remedy="Install it with: pip install '.[keras]'",
        ) from error


def _write(function: Any, folder: str, file: str) -> bytes:
    tf = _tensorflow()
    tf.saved_model.save(_stand_in(function), folder, signatures=function)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    _apply(converter, Settings(optimize=True, integer_io=True), representative=None)
    try:
        return bytes(converter.convert())
    except _converter_errors() as error:
        raise BridgeError(
            where=WHERE,
            problem=f"refuses the rebuilt graph of {file}: {first_meaningful_line(str(error))}",
            remedy="Convert it with the exact bridge.",
        ) from error


def _lost_scales(content: bytes, book: Notebook, file: str) -> list[str]:
    """A sentence for each trained scale that no tensor of the .tflite carries; refuses a file that computes in float."""
    graph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    if floats := [t.Name().decode() for t in tensors if t.Type() == tflite.TensorType.FLOAT32]:
        raise BridgeError(
            where=f"{WHERE} on {file}",
            problem=f"computes in float at '{floats[0]}': an operator near it has no trained scale",
            remedy="Put a fake-quant behind every operator, fine-tune, and export again.",
        )
    carried = [(q.ScaleAsNumpy(), q.ZeroPoint(0)) for t in tensors if (q := t.Quantization()) and q.ScaleLength()]
    return [
        f"'{name}': trained scale {scale.min():.6g}, zero point {zero_point} is not in the .tflite; "
        "the converter put another in its place (catalogue entries M13, M33)"
        for name, scale, zero_point in book.wanted
        if not any(
            zero_point == other and scale.shape == found.shape and np.allclose(scale, found, rtol=SCALE_DRIFT, atol=0)
            for found, other in carried
        )
    ]
