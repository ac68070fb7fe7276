"""M46: a Q/DQ pair before the activation instead of after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx
from onnx import helper, numpy_helper

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.models import conv_relu
from compare.subjects.case import Case

_COMPUTING = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "BatchNormalization"}


def _pairs_before_relu(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Every Relu that reads a freshly quantized sum, and how many codes below zero that pair has."""
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Relu":
            continue
        dequantize = producers.get(node.input[0])
        quantize = producers.get(dequantize.input[0]) if dequantize is not None and dequantize.input else None
        if quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        source = producers.get(quantize.input[0])
        zero_point = constants.get(quantize.input[2]) if len(quantize.input) > 2 else None
        if source is None or source.op_type not in _COMPUTING or zero_point is None:
            continue
        value = numpy_helper.to_array(zero_point)
        below = int(value.reshape(-1)[0]) - (0 if value.dtype.kind == "u" else -128)
        if below > 0:
            yield node, below


def detect(case: Case) -> Iterator[Sighting]:
    """What a Relu cuts off anyway must not take codes from what it keeps."""
    if case.onnx_model is None:
        return
    for node, below in _pairs_before_relu(case.onnx_model):
        yield Sighting(
            where=f"Relu '{node.name}'",
            fact=f"its input is quantized first: {below} of 256 codes stand for values that it cuts off",
            remedy="Fuse convolution, batch norm and ReLU before preparing for QAT (fuse_modules_qat), and train again.",
        )


def reproduce() -> Case:
    """A convolution whose output was observed before its ReLU, as an unfused model trains it."""
    model = onnx.load_from_string(conv_relu())
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    at = list(model.graph.node).index(relu)
    zero = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]).astype("uint8") + 120, "zc")
    model.graph.initializer.append(zero)
    pair = [
        helper.make_node("QuantizeLinear", ["c", "sy", "zc"], ["c_codes"]),
        helper.make_node("DequantizeLinear", ["c_codes", "sy", "zc"], ["c_real"]),
    ]
    relu.input[0] = "c_real"
    nodes = [*model.graph.node[:at], *pair, *model.graph.node[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Case(onnx=model.SerializeToString())


def repair(case: Case) -> Case:  # noqa: ARG001 - a range that was not trained cannot be made up
    """The fused layer, observed after its ReLU."""
    return replace(Case(), onnx=conv_relu())


def measure(broken: Case, repaired: Case) -> float:
    """Codes that no output can have."""

    def unused(case: Case) -> int:
        assert case.onnx_model is not None  # noqa: S101 - a measure knows its own reproduction
        return sum(below for _, below in _pairs_before_relu(case.onnx_model))

    return float(unused(broken) - unused(repaired))


MISMATCH = Mismatch(
    id="M46",
    name="quantized before the activation instead of after it",
    side="PyTorch",
    severity="note",
    versions="torch 2.13, models prepared without fuse_modules_qat",
    source="PyTorch eager quantization guide (fuse before preparing); TFLite fuses the activation into the operator",
    cause="Without fusing, the convolution and its ReLU are observed one by one. The first range spends codes on negative "
    "values that the ReLU then cuts off, and the integer model rounds once more than it need.",
    way_out="Fuse Conv, BatchNorm and ReLU before preparing, and train with the fused model.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("codes of 256 that no output can have", 100.0),
    automatic=False,
)
