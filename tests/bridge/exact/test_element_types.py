"""Types of 4 bits, of 8-bit floating point and the like: refused wherever they stand, whatever onnx calls them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bridge.errors import BridgeError
from bridge.exact import element_types
from bridge.exact.convert import convert
from tests.bridge.exact.test_bad_input import small_model

NARROW = [TensorProto.DataType.Name(number) for number in onnx.TensorProto.DataType.values() if number >= 16]
FOUR_BITS = [name for name in NARROW if name in ("INT4", "UINT4")]


def of(name: str, tensor: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    """Zeros of that type, as many bytes as any of these types may need."""
    made = TensorProto(name=tensor, data_type=TensorProto.DataType.Value(name), dims=shape)
    bits = {"BFLOAT16": 16, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.get(name, 8)
    made.raw_data = bytes(-(-bits * int(np.prod(shape)) // 8))
    return made


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def as_zero_point(model, name):
    initializer(model, "zero_point").CopyFrom(of(name, "zero_point", ()))


def as_weights(model, name):
    for tensor in ("weight", "weight_zero"):
        kept = initializer(model, tensor)
        kept.CopyFrom(of(name, tensor, tuple(kept.dims)))


def as_output_type(model, name):
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    del node.input[2:]
    node.attribute.append(helper.make_attribute("output_dtype", TensorProto.DataType.Value(name)))


def as_cast(model, name):
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    cast = helper.make_node("Cast", ["conv"], ["cast"], "cast", to=TensorProto.DataType.Value(name))
    back = helper.make_node("Cast", ["cast"], ["back"], "back", to=TensorProto.FLOAT)
    place = list(model.graph.node).index(conv) + 1
    nodes = [*model.graph.node[:place], cast, back, *model.graph.node[place:]]
    nodes[place + 2].input[0] = "back"
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize("change", [as_zero_point, as_weights, as_output_type, as_cast], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", NARROW)
def test_it_is_refused_wherever_it_stands(name, change):
    model = small_model(opset=min(21, onnx.defs.onnx_opset_version()))
    change(model, name)
    with pytest.raises(BridgeError):
        convert(model)


@pytest.mark.parametrize("change", [as_zero_point, as_weights, as_output_type, as_cast], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", FOUR_BITS)
def test_where_onnx_lends_it_the_name_of_another_it_is_called_by_its_own(name, change, monkeypatch):
    monkeypatch.setattr(element_types, "UNNAMED", frozenset(map(TensorProto.DataType.Value, NARROW)))
    model = small_model(opset=21)
    change(model, name)
    with pytest.raises(BridgeError, match=rf"is {name.lower()}, which onnx [\d.]+ has no name for[\s\S]*onnx>=1.19"):
        convert(model)


def test_a_model_without_such_types_is_read_whatever_onnx_knows(monkeypatch):
    monkeypatch.setattr(element_types, "UNNAMED", frozenset(map(TensorProto.DataType.Value, NARROW)))
    assert convert(small_model(opset=21)).tflite
