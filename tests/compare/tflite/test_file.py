"""Reading .tflite files, whole and damaged."""

import flatbuffers
import pytest
import tflite

from bridge.errors import BridgeError
from compare.tflite.file import OperatorInfo, read


def relu_file() -> bytes:
    """One RELU from an int8 tensor 'x' with scale 0.5 and zero point -3 to a float tensor 'y'."""
    b = flatbuffers.Builder(256)
    tflite.QuantizationParametersStartScaleVector(b, 1)
    b.PrependFloat32(0.5)
    scale = b.EndVector()
    tflite.QuantizationParametersStartZeroPointVector(b, 1)
    b.PrependInt64(-3)
    zero_point = b.EndVector()
    tflite.QuantizationParametersStart(b)
    tflite.QuantizationParametersAddScale(b, scale)
    tflite.QuantizationParametersAddZeroPoint(b, zero_point)
    quantization = tflite.QuantizationParametersEnd(b)
    tensors = [tensor(b, "x", tflite.TensorType.INT8, quantization), tensor(b, "y", tflite.TensorType.FLOAT32, None)]
    x, y = ints(b, [0]), ints(b, [1])
    tflite.OperatorStart(b)
    tflite.OperatorAddInputs(b, x)
    tflite.OperatorAddOutputs(b, y)
    operators = offsets(b, [tflite.OperatorEnd(b)])
    tensors_vector = offsets(b, tensors)
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensors_vector)
    tflite.SubGraphAddInputs(b, x)
    tflite.SubGraphAddOutputs(b, y)
    tflite.SubGraphAddOperators(b, operators)
    graphs = offsets(b, [tflite.SubGraphEnd(b)])
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddBuiltinCode(b, tflite.BuiltinOperator.RELU)
    codes = offsets(b, [tflite.OperatorCodeEnd(b)])
    tflite.BufferStart(b)
    buffers = offsets(b, [tflite.BufferEnd(b)])
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, buffers)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def tensor(b, name, dtype, quantization):
    text, shape = b.CreateString(name), ints(b, [1, 2])
    tflite.TensorStart(b)
    tflite.TensorAddName(b, text)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, dtype)
    if quantization is not None:
        tflite.TensorAddQuantization(b, quantization)
    return tflite.TensorEnd(b)


def ints(b, values):
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependInt32(value)
    return b.EndVector()


def offsets(b, values):
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependUOffsetTRelative(value)
    return b.EndVector()


def test_operators_tensors_and_quantization_are_read():
    file = read(relu_file(), "relu")
    assert file.operators == (OperatorInfo("RELU", (0,), (1,)),)
    x, y = file.tensors
    assert (x.name, x.shape, x.dtype, x.scale, x.zero_point) == ("x", (1, 2), "int8", (0.5,), (-3,))
    assert (y.dtype, y.scale, y.floating, y.constant) == ("float32", (), True, False)
    assert (file.inputs, file.outputs) == ((0,), (1,))


def test_an_operator_with_one_float_operand_is_not_integer():
    file = read(relu_file(), "relu")
    assert not file.is_integer(file.operators[0])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08\x00\x00\x00ONNX" + bytes(50)])
def test_another_kind_of_file_is_refused_by_its_identifier(content):
    with pytest.raises(BridgeError, match=r"model\.tflite: is not a \.tflite file"):
        read(content, "model.tflite")


def test_a_truncated_file_is_refused_or_read_and_never_a_bare_traceback():
    whole = relu_file()
    refused = 0
    for end in range(8, len(whole)):
        try:
            read(whole[:end], "cut")
        except BridgeError as error:
            assert "damaged" in error.problem
            refused += 1
    assert refused > len(whole) / 2


def test_flipped_bytes_are_refused_or_read_and_never_a_bare_traceback():
    whole = relu_file()
    for position in range(8, len(whole)):
        for value in (0x00, 0x7F, 0xFF):
            broken = whole[:position] + bytes([value]) + whole[position + 1 :]
            try:
                read(broken, "flipped")
            except BridgeError:
                continue
