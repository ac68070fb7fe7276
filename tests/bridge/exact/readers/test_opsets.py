"""Opsets 10 to 12 as ONNX Runtime computes them, and opsets that the installed onnx does not know yet."""

import numpy as np
import onnx
import pytest
from onnx import helper

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.exact.readers import opsets
from tests.bridge.exact.graphs import Builder, Seeded
from tests.bridge.exact.judging import apart
from tests.bridge.exact.test_bad_input import small_model

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

OLD = (10, 11, 12)


def ints(b, name, numbers):
    """Numbers as opset 13 has them: an operand; before, an attribute."""
    return ([], {name: numbers}) if b.opset < 13 else ([b.constant(numbers, np.int64)], {})


def clip(b, x):
    if b.opset < 11:
        return b.add("Clip", [x], min=-0.5, max=0.75)
    return b.add("Clip", [x, b.constant(-0.5), b.constant(0.75)])


def clip_from_above(b, x):
    return b.add("Clip", [x], max=0.75) if b.opset < 11 else b.add("Clip", [x, "", b.constant(0.75)])


def pad(b, x):
    pads = [0, 0, 1, 2, 0, 0, 0, 1]
    if b.opset < 11:
        return b.add("Pad", [x], pads=pads, value=0.0)
    return b.add("Pad", [x, b.constant(pads, np.int64)])


def squeezed(b, x):
    operands, attrs = ints(b, "axes", [1])
    wide = b.add("Unsqueeze", [x, *operands], **attrs)
    operands, attrs = ints(b, "axes", [1])
    return b.add("Transpose", [b.add("Squeeze", [wide, *operands], **attrs)], perm=[0, 2, 3, 1])


def split(b, x):
    operands, attrs = ints(b, "split", [1, 3])
    return b.add("Concat", b.add("Split", [x, *operands], 2, axis=1, **attrs)[::-1], axis=1)


def dropout(b, x):
    return b.add("Relu", [b.add("Dropout", [x], **({"ratio": 0.3} if b.opset < 12 else {}))])


def softmax(axis):
    def write(b, x):
        return b.add("Softmax", [x], **({} if axis is None else {"axis": axis}))

    return write


def resize(mode, *scales):
    def write(b, x):
        factors = b.constant([1.0, 1.0, *scales])
        if b.opset < 11:
            return b.add("Resize", [x, factors], mode=mode)
        empty = b.constant(np.zeros(0))
        return b.add("Resize", [x, empty, factors], mode=mode, coordinate_transformation_mode="asymmetric",
                     nearest_mode="floor")  # fmt: skip

    return write


def average(b, x):
    normed = str(b.add("BatchNormalization", [x, *(b.constant(each) for each in NORM)]))
    return b.add("ReduceMean", [b.quantize(normed)], axes=[2, 3])


NORM = [[1.0, 0.5, 1.5, 1.0], [0.0, 0.1, 0.0, 0.2], [0.0, 0.1, 0.0, 0.0], [1.0, 1.0, 2.0, 1.0]]

SPELLINGS = {
    "Clip": clip,
    "Clip from above": clip_from_above,
    "Pad": pad,
    "Squeeze and Unsqueeze": squeezed,
    "Split": split,
    "Dropout": dropout,
    "Softmax": softmax(None),
    "Softmax over one axis": softmax(-1),
    "Softmax over two axes": softmax(2),
    "Softmax over three axes": softmax(1),
    "Resize to the nearest": resize("nearest", 2.0, 3.0),
    "Resize of one axis": resize("nearest", 1.0, 2.0),
    "Resize between": resize("linear", 2.0, 2.0),
    "averages and norms": average,
}


@pytest.mark.parametrize("opset", OLD)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_old_spelling_says_what_onnx_runtime_computes(spelling, opset):
    b = Builder(Seeded(1), opset=opset)
    x = b.quantize(b.input(2, 4, 5, 6, magnitude=1.5))
    model = b.finish([b.quantize(str(SPELLINGS[spelling](b, x)), at_least=1 / 256)])
    assert apart(model.proto, model.inputs) <= 1
    assert apart(model.proto, model.inputs, kernels="reference") <= 1


@pytest.mark.parametrize("opset", OLD)
@pytest.mark.parametrize("scale", [0.5, 0.25])
def test_a_nearest_resize_that_makes_smaller_takes_the_element_above(opset, scale):
    b = Builder(Seeded(2), opset=opset)
    x = b.quantize(b.input(1, 4, 8, 8, magnitude=1.5))
    model = b.finish([b.quantize(str(resize("nearest", scale, scale)(b, x)), at_least=1 / 256)])
    try:
        assert apart(model.proto, model.inputs) <= 1
    except BridgeError as error:
        assert "Resize" in error.where


@pytest.mark.parametrize("opset", OLD)
def test_a_classifier_of_an_old_opset_becomes_one_softmax(opset):
    b = Builder(Seeded(3), opset=opset)
    x = b.quantize(b.input(2, 10, magnitude=3.0))
    model = b.finish([b.quantize(str(b.add("Softmax", [x])), at_least=1 / 256)])
    assert convert(model.proto).operators_out["SOFTMAX"] == 1
    assert "RESHAPE" not in convert(model.proto).operators_out


@pytest.mark.parametrize("opset", OLD)
def test_a_model_of_an_old_opset_becomes_the_same_bytes(opset):
    new, old = small_model(), small_model(opset=opset)
    for model in (new, old):
        per_tensor = next(node for node in model.graph.node if node.name == "weights")
        del per_tensor.attribute[:]
        del per_tensor.input[1:]
        per_tensor.input.extend(["scale", "no zero"])
        model.graph.initializer.append(helper.make_tensor("no zero", onnx.TensorProto.INT8, (), [0]))
    assert convert(old).tflite == convert(new).tflite


@pytest.mark.parametrize("opset", OLD)
def test_a_scale_for_each_channel_is_refused_before_opset_13(opset):
    with pytest.raises(BridgeError, match=f"'weights': has an attribute 'axis', which opset {opset} does not know"):
        convert(small_model(opset=opset))


def test_an_operand_of_a_newer_opset_is_refused():
    b = Builder(Seeded(4))
    model = b.finish([b.quantize(str(clip(b, b.quantize(b.input(2, 4, magnitude=2.0)))))])
    model.proto.opset_import[0].version = 10
    with pytest.raises(BridgeError, match=r"Clip .*has an input number 2, which opset 10 does not know"):
        convert(model.proto)


@pytest.mark.parametrize("opset", [25, 26])
def test_an_opset_that_only_adds_types_and_operators_is_read_as_the_one_before(opset):
    if onnx.defs.onnx_opset_version() < 24:
        pytest.skip("read where onnx knows opset 24")
    new = small_model(opset=opset)
    new.ir_version = 13
    assert convert(new).tflite == convert(small_model(opset=24)).tflite
    opsets.settled(new, "model")
    assert opsets.opset_of(new) <= onnx.defs.onnx_opset_version()
    assert new.ir_version <= onnx.IR_VERSION


def test_the_next_opset_is_refused_with_what_is_read():
    with pytest.raises(BridgeError, match=f"the bridge reads 10 to {opsets.newest_opset()}"):
        convert(small_model(opset=opsets.newest_opset() + 1))
