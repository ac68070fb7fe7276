"""M51: a model that QAT had quantized was quantized a second time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bridge.verifying.onnx_runtime import outputs, session
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.subjects.case import Case

TF_MOT_REFUSALS = ("Layer QuantizeLayer supplied to wrapper is not a supported layer type", "You called `set_weights(")
"""What quantize_model says of a model that is quantized already, without and inside quantize_scope."""


def detect(case: Case) -> Iterator[Sighting]:
    """Two Q/DQ pairs in a row with different numbers; or TF-MOT's refusal of a quantized model."""
    if "Unable to clone model" in case.log and any(text in case.log for text in TF_MOT_REFUSALS):
        yield Sighting(
            where="tfmot.quantization.keras.quantize_model",
            fact="was given a model that is quantized already: 'Unable to clone model'",
            remedy="Call it once, on the float model; to go on training, load the quantized model in quantize_scope.",
        )
    if case.onnx_model is None:
        return
    constants = {tensor.name: tensor for tensor in case.onnx_model.graph.initializer}
    for first, second in _pairs_in_a_row(case.onnx_model):
        one, other = (_parameters(node, constants) for node in (first, second))
        if one is None or other is None or one == other:
            continue
        untrained = first.output[0].endswith("_QuantizeLinear_Output")  # onnxruntime.quantization names it so
        yield Sighting(
            where=f"QuantizeLinear '{first.output[0]}'",
            fact=f"rounds to scale {one[0]:.8g}, zero point {one[1]}, then '{second.output[0]}' rounds to {other[0]:.8g}, "
            f"{other[1]}" + ("" if untrained else " (or training put two observers in a row)"),
            remedy="Convert the QAT model as it is; do not run a post-training quantizer on a file with Q/DQ pairs.",
            sure=untrained,
        )


def _pairs_in_a_row(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """(first, second) QuantizeLinear of every Q-DQ-Q-DQ chain."""
    producer = {name: node for node in model.graph.node for name in node.output}
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for second in model.graph.node:
        if second.op_type != "QuantizeLinear" or second.output[0] not in quantized:
            continue
        between = producer.get(second.input[0])
        first = (
            producer.get(between.input[0]) if between is not None and between.op_type == "DequantizeLinear" else None
        )
        if first is not None and first.op_type == "QuantizeLinear":
            yield first, second


def _parameters(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> tuple[float, int] | None:
    """(scale, zero point) of a per-tensor QuantizeLinear with constant parameters.

    The zero point as int8 has it, so that uint8 and int8 codes of the same numbers are the same (M32).
    """
    found = [numpy_helper.to_array(constants[name]) for name in node.input[1:] if name in constants]
    if len(found) != len(node.input) - 1 or not found or found[0].size != 1:
        return None
    unsigned = len(found) == 1 or found[1].dtype == np.uint8  # without a zero point the codes are uint8
    zero_point = int(found[1].item()) if len(found) > 1 else 0
    return float(found[0].item()), zero_point - 128 * unsigned


def _trained() -> bytes:
    """A convolution with ReLU between two Q/DQ pairs, as a QAT export has it."""
    random = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "input_scale": np.float32(0.02), "input_zero": np.int8(0), "scale": np.float32(0.05), "zero": np.int8(-128),
        "weight_scale": np.float32(0.01), "weight_zero": np.int8(0),
        "weight": random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "input_scale", "input_zero"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "input_scale", "input_zero"], ["x_real"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["weight_real"]),
        helper.make_node("Conv", ["x_real", "weight_real"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["y_codes"]),
        helper.make_node("DequantizeLinear", ["y_codes", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "trained",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return bytes(model.SerializeToString())


@functools.cache
def _samples() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(8, 3, 8, 8)).astype(np.float32)


def reproduce() -> Case:
    """onnxruntime.quantization.quantize_static on a QDQ model: it adds a pair of its own in front of the trained one."""
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.samples = iter([{"x": sample[None]} for sample in _samples()])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    logging.getLogger().addFilter(_not_about_preprocessing)
    try:
        with TemporaryDirectory() as folder:
            source, target = Path(folder, "trained.onnx"), Path(folder, "twice.onnx")
            source.write_bytes(_trained())
            quantize_static(
                source, target, Reader(), QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8
            )
            return Case(onnx=target.read_bytes(), inputs={"x": _samples()})
    finally:
        logging.getLogger().removeFilter(_not_about_preprocessing)


def _not_about_preprocessing(record: Any) -> bool:
    """quantize_static advises shape inference first, which changes nothing here."""
    return "pre-processing" not in record.getMessage()


def repair(case: Case) -> Case:
    """Take the first of the two pairs out, so that the values reach the second unrounded."""
    if case.onnx is None:
        return case
    model = onnx.load_from_string(case.onnx)
    for first, second in list(_pairs_in_a_row(model)):
        second.input[0] = first.input[0]
    needed = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    while unused := [node for node in model.graph.node if not needed.intersection(node.output)]:
        for node in unused:
            model.graph.node.remove(node)
        needed = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
    return replace(case, onnx=model.SerializeToString())


def measure(broken: Case, repaired: Case) -> float:
    """Share of the output values that differ in ONNX Runtime, run as the file says: without its graph optimizer."""
    found = []
    for case in (broken, repaired):
        assert case.onnx is not None  # noqa: S101 - a measure knows its own reproduction
        found += outputs(session(case.onnx), {"x": _samples()})
    return float((np.abs(found[0] - found[1]) > 1e-6).mean())


MISMATCH = Mismatch(
    id="M51",
    name="quantized again after QAT",
    side="ONNX",
    severity="fault",
    versions="onnxruntime 1.23.0, TF-MOT 0.8.1",
    source="reproduced",
    cause="A post-training quantizer ran on a model that already carries trained Q/DQ pairs. quantize_static puts an "
    "estimated pair in front of each trained one: every value is rounded twice and clipped to the narrower range. "
    "ONNX Runtime's optimizer takes such a pair out again, so the loss shows only after conversion to another format. "
    "TF-MOT refuses a quantized model, with a message about cloning.",
    way_out="Quantize once. The trained pairs are the quantization; convert the QAT export directly.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("output values that differ (share)", 0.1),
)
