"""M18: dense weights in channels-first order behind a flatten of channels-last data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.graph import Node, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import rewritten, share_that_differs
from compare.mismatches.parts.models import through_exact
from compare.mismatches.parts.weighted_pairs import alike, weighted_pairs
from compare.subjects.case import Case


def _flattened(case: Case) -> Iterator[tuple[Node, Tensor, tuple[int, ...]]]:
    """Every dense layer that reads a reshaped 4-D tensor directly, its weight, and that tensor's (H, W, C)."""
    assert case.file is not None  # noqa: S101 - the callers have looked
    graph = case.file.graph
    producers = graph.producers()
    for node in graph.nodes:
        before = producers.get(node.inputs[0]) if node.op == "FULLY_CONNECTED" else None
        if before is None or before.op != "RESHAPE":
            continue
        shape = graph.tensors[before.inputs[0]].shape
        moved = producers.get(before.inputs[0])
        weight = graph.tensors[node.inputs[1]]
        one_feature = len(shape) == 4 and (shape[3] == 1 or shape[1] * shape[2] == 1)
        if len(shape) != 4 or one_feature or (moved is not None and moved.op == "TRANSPOSE") or not weight.is_constant:
            continue
        if weight.shape[1] == int(np.prod(shape[1:])):
            yield node, weight, shape[1:]


_ELEMENT_BY_ELEMENT = {
    "QUANTIZE", "DEQUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "MAXIMUM", "MINIMUM", "ADD", "SUB", "MUL", "LOGISTIC",
    "TANH", "HARD_SWISH", "LEAKY_RELU",
}  # fmt: skip


def _as_in_the_model(case: Case, name: str) -> bool:
    """Whether a tensor comes from inputs that may have the model's own axes: nothing on the way knows where channels lie."""
    assert case.file is not None  # noqa: S101 - the callers have looked
    assert case.onnx_model is not None  # noqa: S101
    graph = case.file.graph
    producers, waiting, inputs = graph.producers(), [name], set[str]()
    while waiting:
        current = waiting.pop()
        node = producers.get(current)
        if node is None:
            inputs |= {current} if current in graph.inputs else set()
        elif node.op in _ELEMENT_BY_ELEMENT:
            waiting += [each for each in node.inputs if each and not graph.tensors[each].is_constant]
        else:
            return False
    shapes = {
        tuple(dim.dim_value for dim in each.type.tensor_type.shape.dim[1:]) for each in case.onnx_model.graph.input
    }
    return bool(inputs) and all(graph.tensors[each].shape[1:] in shapes for each in inputs)


def _channels_first(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Columns in H, W, C order back in the C, H, W order of an ONNX flatten."""
    height, width, channels = shape
    return weight.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(weight.shape)


def detect(case: Case) -> Iterator[Sighting]:
    """Behind a flatten of NHWC data, the columns of a dense weight must not stand as in the ONNX file."""
    for node, weight, shape in _misplaced(case):
        yield Sighting(
            where=f"{node.op}, weight '{weight.name}'",
            fact=f"its columns stand in C, H, W order, its input is flattened from H, W, C = {shape}",
            remedy="Permute the columns, or put a TRANSPOSE before the RESHAPE; python -m bridge permutes them.",
        )


def _misplaced(case: Case) -> Iterator[tuple[Node, Tensor, tuple[int, ...]]]:
    """Of `_flattened`, those whose numbers stand as the ONNX weight's, and would not if they were permuted."""
    if case.file is None or case.onnx is None:
        return
    trained = {
        theirs.outputs[0]: model.operand(ours, 1)
        for model, ours, theirs in weighted_pairs(case)
        if theirs.op == "FULLY_CONNECTED"
    }
    graph = case.file.graph
    for node, weight, shape in _flattened(case):
        source = trained.get(node.outputs[0])
        if _as_in_the_model(case, graph.producers()[node.inputs[0]].inputs[0]):
            continue
        if source is None or not source.is_constant or sorted(source.shape) != sorted(weight.shape):
            continue
        expected = source.real if source.shape == weight.shape else source.real.T
        height, width, channels = shape
        permuted = expected.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(expected.shape)
        if alike(expected, weight.real) and not alike(permuted, weight.real):
            yield node, weight, shape


@cache
def _model() -> bytes:
    """x (1, 3, 2, 2) -> Q/DQ -> Flatten -> Gemm -> Q/DQ -> y (1, 5)."""
    codes = np.random.default_rng(1).integers(-120, 121, (5, 12)).astype(np.int8)
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in {"sx": 1 / 32, "sy": 1 / 8, "sw": 1 / 128}.items()
    ]
    constants += [
        numpy_helper.from_array(np.array(0, np.int8), "z"),
        numpy_helper.from_array(codes, "w"),
        numpy_helper.from_array(np.zeros(5, np.float32), "b"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "z"], ["wd"]),
        helper.make_node("Flatten", ["xd"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wd", "b"], ["g"], transB=1),
        helper.make_node("QuantizeLinear", ["g", "sy", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "flatten",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def reproduce() -> Case:
    """A dense layer behind a flatten, its weight copied from ONNX as it is."""
    right = Case(onnx=_model(), tflite=through_exact(_model()))
    return rewritten(
        right,
        {
            weight.name: replace(weight, data=np.ascontiguousarray(_channels_first(weight.values, shape)))
            for _, weight, shape in _flattened(right)
        },
    )


def repair(case: Case) -> Case:
    """Put the columns into the order in which the file flattens."""
    mended = {}
    for _, weight, (height, width, channels) in _misplaced(case):
        columns = weight.values.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(weight.shape)
        mended[weight.name] = replace(weight, data=np.ascontiguousarray(columns))
    return rewritten(case, mended)


MISMATCH = Mismatch(
    id="M18",
    name="dense weights in another order than the flatten",
    side="ONNX",
    severity="fault",
    versions="any writer that keeps weights as they are",
    source="litert-torch#179; ONNX flattens N, C, H, W, TFLite N, H, W, C",
    cause="PyTorch flattens channels first, TFLite channels last. A converter must move the data or permute the dense "
    "weight; one that does neither writes a file with the right shapes and meaningless outputs.",
    way_out="Permute the columns of the weight (free), or transpose before the flatten (costs an operator).",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("output codes that differ (share)", 0.8),
)
