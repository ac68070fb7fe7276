"""M11: scales of shape [1] around an addition, which ONNX Runtime refuses to load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bridge.verifying.onnx_runtime import as_users_make_it
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.two_forms import constants
from compare.subjects.case import Case

_PAIR = ("QuantizeLinear", "DequantizeLinear")


def detect(case: Case) -> Iterator[Sighting]:
    """Scale and zero point of an Add between quantized tensors must be scalars, as QLinearAdd demands."""
    if case.onnx_model is None:
        return
    known = constants(case.onnx_model)
    for node, pairs in _additions(case.onnx_model):
        one = [name for pair in pairs for name in pair.input[1:] if name in known and list(known[name].dims) == [1]]
        if one:
            yield Sighting(
                where=f"Add '{node.name or node.output[0]}'",
                fact=f"'{one[0]}' has shape [1], not []; ONNX Runtime 1.23 refuses the QLinearAdd it makes of this",
                remedy="Make scales and zero points scalars, or use a newer ONNX Runtime.",
            )


def _additions(model: ModelProto) -> Iterator[tuple[NodeProto, list[NodeProto]]]:
    """Every Add between two DequantizeLinear and a QuantizeLinear, with those three."""
    producers = {name: node for node in model.graph.node for name in node.output}
    takers = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] in takers:
            before = [producers[name] for name in node.input if name in producers]
            if [each.op_type for each in before] == ["DequantizeLinear"] * 2:
                yield node, [*before, takers[node.output[0]]]


def reproduce() -> Case:
    """Two quantized inputs added; every scale and zero point has shape [1], as FakeQuantize's buffers have."""
    constant = [
        numpy_helper.from_array(np.array([0.1], np.float32), "s"),
        numpy_helper.from_array(np.array([0], np.uint8), "z"),
    ]
    nodes = []
    for source, target in (("a", "a_dq"), ("b", "b_dq"), ("c", "y")):
        nodes += [
            helper.make_node("QuantizeLinear", [source, "s", "z"], [f"{source}_q"]),
            helper.make_node("DequantizeLinear", [f"{source}_q", "s", "z"], [target]),
        ]
    nodes.insert(4, helper.make_node("Add", ["a_dq", "b_dq"], ["c"], name="add"))
    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in "aby")
    graph = helper.make_graph(nodes, "add", [a, b], [y], constant)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    return Case(onnx=content, log=_refusal(content))


def repair(case: Case) -> Case:
    """Scalars instead, wherever nothing but a QuantizeLinear or DequantizeLinear reads the constant."""
    assert case.onnx is not None  # noqa: S101 - the catalogue repairs what detect has seen
    model = ModelProto.FromString(case.onnx)
    read = [
        (name, node.op_type in _PAIR and place > 0)
        for node in model.graph.node
        for place, name in enumerate(node.input)
    ]
    kept = {name for name, parameter in read if not parameter}
    for name, tensor in constants(model).items():
        if (name, True) in read and name not in kept and list(tensor.dims) == [1]:
            del tensor.dims[:]
    content = model.SerializeToString()
    return replace(case, onnx=content, log=_refusal(content))


def _refusal(content: bytes) -> str:
    """What ONNX Runtime says when it loads a file; empty when it does."""
    try:
        as_users_make_it(content)
    except Exception as error:  # noqa: BLE001 - its exceptions have no common type but this
        return str(error)
    return ""


def measure(broken: Case, repaired: Case) -> float:
    """Files that ONNX Runtime refuses."""
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M11",
    name="scales of shape [1]",
    side="ONNX",
    severity="risk",
    versions="onnxruntime 1.23.0 refuses it",
    source="Ascend/samples#20 (same message), onnx PR#2772; reproduced",
    cause="The scale and zero point buffers of FakeQuantize have shape [1], and the exporter keeps it. ONNX Runtime makes a "
    "QLinearAdd of the addition, which demands scalars, and then refuses its own operator.",
    way_out="Write scales and zero points as scalars, or switch ONNX Runtime's graph optimisation off.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("files refused", 1.0),
)
