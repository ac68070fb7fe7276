"""M80: ONNX Runtime with its default optimizations saturates on x86 processors without VNNI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.saturating_pairs import integer_operators, losses
from compare.mismatches.parts.two_forms import constants
from compare.subjects.case import Case

_REMEDY = (
    "Compare with graph_optimization_level = ORT_DISABLE_ALL, or with the session entry session.x64quantprecision = '1'; "
    "the .tflite is not concerned."
)


def detect(case: Case) -> Iterator[Sighting]:
    """Where ONNX Runtime saturates on this processor: pairs of weights that overflow int16; with inputs, what it costs."""
    if not case.saturating_runtime or case.onnx_model is None:
        return
    if case.inputs:
        lossy = sorted(losses(case.onnx_model, case.inputs), key=lambda each: (-each.worst, -each.share))
        for loss in lossy[:1]:
            more = f"; so do {len(lossy) - 1} more operators" if len(lossy) > 1 else ""
            yield Sighting(
                where=loss.operator,
                fact=f"saturates in ONNX Runtime's default session on this processor: {loss.share:.1%} of its outputs "
                f"differ, by up to {loss.worst:.0f} LSB{more}",
                remedy=_REMEDY,
            )
        return
    prone = [(operator.name, len(operator.candidates()[0])) for operator in integer_operators(case.onnx_model)]
    prone = sorted((each for each in prone if each[1]), key=lambda each: -each[1])
    for name, count in prone[:1]:
        more = f"; so do {len(prone) - 1} more operators" if len(prone) > 1 else ""
        yield Sighting(
            where=name,
            fact=f"has {count} pairs of weights whose products can saturate in ONNX Runtime's default session on this "
            f"processor{more}; on which inputs they do is not known",
            remedy=_REMEDY,
            sure=False,
        )


def reproduce() -> Case:
    """A 3x3 convolution whose weights are near 127 in every second channel pair, on bright inputs."""
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (4, 8, 3, 3)).astype(np.int8)
    codes[:, :4] = random.integers(96, 128, (4, 4, 3, 3))
    codes[:, 4:] = -random.integers(96, 128, (4, 4, 3, 3))  # the sums stay within the output's range
    nodes, initializers = [], [numpy_helper.from_array(codes, "w_codes")]

    def dequantize(source: str, name: str, scale: float, zero_point: int) -> None:
        for suffix, value in (("scale", np.float32(scale)), ("zero", np.int8(zero_point))):
            initializers.append(numpy_helper.from_array(np.array(value), f"{name}_{suffix}"))
        nodes.append(
            helper.make_node("DequantizeLinear", [source, f"{name}_scale", f"{name}_zero"], [name], f"{name}_dq")
        )

    def pair(source: str, name: str, scale: float, zero_point: int) -> None:
        dequantize(f"{name}_codes", name, scale, zero_point)
        quantized = helper.make_node(
            "QuantizeLinear", [source, f"{name}_scale", f"{name}_zero"], [f"{name}_codes"], f"{name}_q"
        )
        nodes.insert(len(nodes) - 1, quantized)

    pair("x", "x_read", 1 / 256, -128)
    dequantize("w_codes", "w", 1 / 128, 0)
    nodes.append(helper.make_node("Conv", ["x_read", "w"], ["sum"], "conv", kernel_shape=[3, 3]))
    pair("sum", "y", 1 / 8, 0)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])
    graph = helper.make_graph(nodes, "saturating", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    bright = random.uniform(0.5, 1, (8, 8, 6, 6)).astype(np.float32)
    return Case(onnx=model.SerializeToString(), inputs={"x": bright}, saturating_runtime=True)


def repair(case: Case) -> Case:
    """A copy for comparisons: int8 weights become uint8 around 128, the same numbers, and their kernels widen first."""
    assert case.onnx_model is not None  # noqa: S101 - the catalogue repairs what detect has seen
    model = onnx.load_from_string(case.onnx_model.SerializeToString())
    made = {output: node for node in model.graph.node for output in node.output}
    known = constants(model)
    for operator in list(integer_operators(model)):
        dequantize = made[operator.node.input[1]]
        codes = numpy_helper.to_array(known[dequantize.input[0]])
        zero = numpy_helper.to_array(known[dequantize.input[2]])
        for place, array in ((0, codes), (2, zero)):
            name = f"{dequantize.output[0]}/unsigned/{place}"
            model.graph.initializer.append(
                numpy_helper.from_array((array.astype(np.int16) + 128).astype(np.uint8), name)
            )
            dequantize.input[place] = name
    return replace(case, onnx=model.SerializeToString())


def measure(broken: Case, repaired: Case) -> float:
    """The worst LSB of an operator's own output, saturated as such a processor does it, more than after the repair."""
    return _worst(broken) - _worst(repaired)


def _worst(case: Case) -> float:
    assert case.onnx_model is not None  # noqa: S101 - a measure knows its own reproduction
    assert case.inputs is not None  # noqa: S101
    return max((loss.worst for loss in losses(case.onnx_model, case.inputs)), default=0.0)


MISMATCH = Mismatch(
    id="M80",
    name="ONNX Runtime saturates on x86 without VNNI",
    side="runtime",
    severity="note",
    versions="onnxruntime 1.23.0 with its default optimizations on AVX2; not with AVX512-VNNI or AVX-VNNI",
    source="onnxruntime.ai, Quantize ONNX models, 'When and why do I need to try U8U8?'; mlas/lib/qgemm_kernel_avx2.cpp; measured",
    cause="The default optimizations make integer operators of Q/DQ pairs. On x86 processors without VNNI their int8 "
    "kernels add two products in an int16 lane that saturates (vpmaddubsw): two weights near 127 that meet two bright "
    "activations are too much. The truth is then off by up to half of its range, the .tflite is right, and a comparison "
    "by hand blames the .tflite. The same session is right on another machine.",
    way_out="Compare with all graph optimizations off, as everything in here does; or set the session entry "
    "session.x64quantprecision to '1'. Where ONNX Runtime is what you ship on such processors, quantize weights to 7 bits "
    "(reduce_range) or to uint8.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("worst output of the operator on such a processor (LSB)", 20),
    automatic=False,
)
