"""What a stranger's file or folder can do wrong: one `BridgeError` that names the place and the remedy, and no file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.convert import Conversion, convert, save

N_FLIPS = 300


def small_model(**changes: object) -> onnx.ModelProto:
    """input (1, 2, 4, 4) -> Q DQ -> Conv -> Relu -> Q DQ -> output, every number of it open to change."""
    numbers: dict[str, object] = {
        "scale": np.float32(0.1),
        "zero_point": np.int8(3),
        "weight": (np.arange(4, dtype=np.int8) - 2).reshape(2, 2, 1, 1),
        "weight_scale": np.array([0.5, 0.25], np.float32),
        "weight_zero": np.zeros(2, np.int8),
        "bias": np.array([1.0, -1.0], np.float32),
        "weight_axis": 0,
        "opset": 17,
        "shape": (1, 2, 4, 4),
    }
    assert changes.keys() <= numbers.keys()
    numbers |= changes
    constants = ("scale", "zero_point", "weight", "weight_scale", "weight_zero", "bias")
    initializers = [numpy_helper.from_array(np.asarray(numbers[name]), name) for name in constants]
    initializers.append(numpy_helper.from_array(np.float32(0.2), "y_scale"))
    initializers.append(numpy_helper.from_array(np.int8(-128), "y_zero"))
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero_point"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["dq"], "dequantize"),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], "weights", axis=numbers["weight_axis"]
        ),
        helper.make_node("Conv", ["dq", "w", "bias"], ["conv"], "conv", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("QuantizeLinear", ["relu", "y_scale", "y_zero"], ["y_q"], "y_quantize"),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], ["output"], "y_dequantize"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, numbers["shape"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, numbers["shape"])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", numbers["opset"])], ir_version=9)


def refused(source: Path | onnx.ModelProto, *parts: str, shapes: dict[str, list[int]] | None = None) -> None:
    """The conversion raises a `BridgeError` that says all of `parts` and leaves no file beside the model."""
    beside = set(source.parent.iterdir()) if isinstance(source, Path) and source.parent.is_dir() else set()
    with pytest.raises(BridgeError) as caught:
        convert(source, input_shapes=shapes)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.remedy
    if beside:
        assert set(source.parent.iterdir()) == beside


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_the_small_model_itself_converts(path):
    onnx.save(small_model(), path)
    assert isinstance(convert(path), Conversion)


# The file


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_file_cut_short_is_named_and_refused(path, share):
    whole = small_model().SerializeToString()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, "model.onnx")


@pytest.mark.parametrize("content", [b"", b"This is a text file, not a model.\n" * 20, b"\x00" * 100, b"\xff" * 100])
def test_what_is_no_onnx_file_is_refused(path, content):
    path.write_bytes(content)
    refused(path, "model.onnx", f"{len(content)} bytes read", "export it again")


def test_a_directory_is_no_model(tmp_path):
    refused(tmp_path, str(tmp_path), "cannot be read", "Check the path")


def test_a_missing_file_is_named(path):
    refused(path, str(path), "No such file")


def test_a_file_that_may_not_be_read_is_named(path, monkeypatch):
    onnx.save(small_model(), path)

    def denied(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)  # chmod does not stop root, which runs the tests in containers
    refused(path, str(path), "Permission denied")


# External data


def with_external_data(path: Path, location: str, **entries: int) -> None:
    model = small_model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


def test_external_data_beside_the_model_is_read(path):
    (path.parent / "weights.bin").write_bytes(bytes(4))
    with_external_data(path, "weights.bin")
    assert isinstance(convert(path), Conversion)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "folder/../../secret.bin", ""])
def test_external_data_outside_the_folder_is_not_touched(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    folder = tmp_path / "model"
    folder.mkdir()
    with_external_data(folder / "model.onnx", location)
    refused(folder / "model.onnx", "tensor 'weight'", "outside the model's folder", "Do not trust")


def test_external_data_behind_a_link_out_of_the_folder_is_not_touched(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with_external_data(folder / "model.onnx", "weights.bin")
    refused(folder / "model.onnx", "tensor 'weight'", "outside the model's folder")


@pytest.mark.parametrize(
    ("content", "entries"), [(None, {}), (b"12", {}), (b"1234", {"offset": 2}), (b"1234", {"offset": 900})]
)
def test_external_data_missing_or_too_short_is_refused(path, content, entries):
    if content is not None:
        (path.parent / "weights.bin").write_bytes(content)
    with_external_data(path, "weights.bin", **entries)
    refused(path, "weight")


@pytest.mark.parametrize("entries", [{"offset": -5}, {"length": -5}, {"length": 2**62}, {"offset": 2**62}])
def test_nonsense_about_external_data_is_refused(path, entries):
    (path.parent / "weights.bin").write_bytes(bytes(4))
    with_external_data(path, "weights.bin", **entries)
    refused(path, "weight")


def test_external_data_that_is_a_directory_is_refused(path):
    (path.parent / "weights.bin").mkdir()
    with_external_data(path, "weights.bin")
    refused(path, "tensor 'weight'", "missing or too short")


def test_external_data_in_a_constant_node_is_refused(path):
    model = small_model()
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "inner")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], "inner", value=tensor))
    path.write_bytes(model.SerializeToString())
    refused(path, "inner")


# The graph


@pytest.mark.parametrize("opset", [7, 9, 99])
def test_an_opset_outside_the_known_ones_is_refused(path, opset):
    path.write_bytes(small_model(opset=opset).SerializeToString())
    refused(path, "model.onnx", f"opset {opset}", "opset_version=17")


def test_an_operator_without_a_kernel_is_named():
    model = small_model()
    model.graph.node[4].op_type = "Erf"
    refused(model, "'relu' (Erf)", "cannot write this operator", "docs/operators.md")


@pytest.mark.parametrize("to", [TensorProto.FLOAT16, TensorProto.INT32, TensorProto.BOOL])
def test_a_cast_that_changes_numbers_is_named_and_no_scale_is_asked_for(to):
    model = small_model()
    relu = model.graph.node[4]
    back = helper.make_node("Cast", ["narrow"], list(relu.output), "back", to=TensorProto.FLOAT)
    narrow = helper.make_node("Cast", list(relu.input), ["narrow"], "narrow", to=to)
    del model.graph.node[4]
    model.graph.node.insert(4, back)
    model.graph.node.insert(4, narrow)
    refused(model, "'narrow' (Cast)", "cannot write this operator", "docs/operators.md")


def test_an_operator_of_a_foreign_domain_is_named():
    model = small_model()
    model.graph.node[4].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    refused(model, "com.example.Relu", "domain")


@pytest.mark.parametrize("batch", ["N", None, 0, -1])
def test_a_dynamic_shape_is_refused_with_the_option_that_fixes_it(batch):
    refused(small_model(shape=(batch, 2, 4, 4)), "input 'input'", "dynamic shape", "--input-shape input=")


def test_a_dynamic_shape_is_fixed_by_the_caller():
    assert isinstance(convert(small_model(shape=("N", 2, "H", "W")), input_shapes={"input": [1, 2, 4, 4]}), Conversion)


@pytest.mark.parametrize("shape", [[1, 3, 4, 4], [1, 2, 4], [0, 2, 4, 4], [-1, 2, 4, 4]])
def test_a_shape_that_does_not_fit_is_refused(shape):
    refused(small_model(shape=("N", 2, 4, 4)), "input 'input'", "does not fit", shapes={"input": shape})


def test_a_dimension_beyond_int32_is_refused_before_shape_inference_counts_it():
    refused(small_model(shape=(1, 2, 2**40, 4)), "input 'input'", "more than TFLite can count")


def test_a_variance_below_zero_is_refused():
    model = small_model()
    for name, value in {"gamma": [1, 1], "beta": [0, 0], "mean": [0, 0], "variance": [1, -1]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    norm = ["conv", "gamma", "beta", "mean", "variance"]
    model.graph.node[4].CopyFrom(helper.make_node("BatchNormalization", norm, ["relu"], "norm"))
    refused(model, "'norm'", "'variance'", "must be positive")


def test_a_window_larger_than_its_padded_input_is_refused():
    model = small_model(shape=("N", 2, "H", "W"), weight=np.ones((2, 2, 3, 3), np.int8))
    model.graph.node[3].attribute[0].ints[:] = [3, 3]
    refused(model, "conv", shapes={"input": [1, 2, 2, 2]})


def test_a_shape_for_no_input_lists_the_inputs():
    refused(small_model(), "input 'image'", "is not an input", "input", shapes={"image": [1]})


def test_a_shape_that_breaks_the_graph_further_down_is_refused():
    refused(small_model(shape=("N", "C", 4, 4)), "conv", "(1, 5, 4, 4)", shapes={"input": [1, 5, 4, 4]})


def without_qdq(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The model without the Q/DQ pairs of these nodes' names."""
    kept = [node for node in model.graph.node if node.name not in names]
    renamed = {node.output[0]: node.input[0] for node in model.graph.node if node.name in names}
    for node in kept:
        for index, name in enumerate(node.input):
            while name in renamed:
                name = renamed[name]
            node.input[index] = name
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def test_a_model_without_any_scale_is_told_from_one_that_lacks_a_few():
    model = without_qdq(small_model(), "quantize", "dequantize", "y_quantize", "y_dequantize")
    model.graph.output[0].name = "relu"
    refused(model, "no Q/DQ pair in this model", "Export the quantized model")


def test_one_tensor_without_a_scale_is_named():
    refused(without_qdq(small_model(), "quantize", "dequantize"), "'input'", "has no trained scale", "QuantStub")


@pytest.mark.parametrize("scale", [0.0, -0.1, np.nan, np.inf])
def test_a_scale_that_is_no_scale_is_refused(scale):
    refused(small_model(scale=np.float32(scale)), "quantize", "scale", "positive, finite")


@pytest.mark.parametrize("scale", [0.0, -0.1, np.nan, np.inf])
def test_a_weight_scale_that_is_no_scale_is_refused(scale):
    refused(
        small_model(weight_scale=np.array([0.5, scale], np.float32)),
        "weight",
        "NaN" if scale != scale or np.isinf(scale) else "positive, finite",
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int32])
def test_a_zero_point_of_another_type_is_refused(dtype):
    refused(small_model(zero_point=dtype(3)), "quantize", np.dtype(dtype).name, "int8 and uint8")


def test_a_zero_point_of_another_type_than_the_weight_is_refused():
    refused(small_model(weight_zero=np.zeros(2, np.uint8)), "'weight'", "are int8, and their zero point is uint8")


@pytest.mark.parametrize("axis", [1, 2, 5, -7])
def test_scales_along_the_wrong_axis_are_refused(axis):
    refused(small_model(weight_axis=axis), "weight")


def test_a_cyclic_graph_is_refused():
    model = small_model()
    model.graph.node[3].input[0] = "relu"
    refused(model, "model", "not a consistent ONNX graph")


def test_an_input_that_nothing_writes_is_refused():
    model = small_model()
    model.graph.node[4].input[0] = "nowhere"
    refused(model, "nowhere")


def test_a_tensor_written_twice_is_refused():
    model = small_model()
    model.graph.node.append(helper.make_node("Relu", ["conv"], ["relu"], "again"))
    refused(model, "relu")


def test_a_graph_output_that_nothing_writes_is_refused():
    model = small_model()
    model.graph.output.append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, (1,)))
    refused(model, "nowhere")


def test_an_initializer_twice_is_refused():
    model = small_model()
    model.graph.initializer.append(model.graph.initializer[5])
    refused(model, "bias")


def test_a_constant_node_that_writes_an_input_is_refused():
    model = small_model()
    name = model.graph.input[0].name
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], value_float=1.0))
    refused(model, "twice")


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_constants_that_are_no_numbers_are_refused(bias):
    refused(small_model(bias=np.array([1.0, bias], np.float32)), "'bias'", "NaN or infinity")


def test_weights_that_are_no_numbers_are_refused():
    weight = np.full((2, 2, 1, 1), np.nan, np.float32)
    model = small_model(weight=weight)
    parts = ["weight", "weight_scale", "weight_zero"]
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", parts, ["codes"], "weight_codes", axis=0))
    next(node for node in model.graph.node if node.name == "weights").input[0] = "codes"
    refused(model, "'weight'", "NaN or infinity")


def test_a_bias_beyond_int32_names_its_channel():
    refused(small_model(bias=np.array([1.0, 3e9], np.float32)), "conv", "bias channel 1", "does not fit int32")


def test_scales_computed_at_run_time_are_refused():
    model = small_model()
    dynamic = helper.make_node("DynamicQuantizeLinear", ["input"], ["q", "run_scale", "run_zero"], "dynamic")
    model.graph.node[0].CopyFrom(dynamic)
    model.graph.node[1].input[1:] = ["run_scale", "run_zero"]
    refused(model, "dynamic")


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_sixteen_bits_are_refused(dtype):
    refused(small_model(zero_point=dtype(0), opset=21), "quantize", "int16", "8-bit")


def test_four_bits_are_refused():
    model = small_model(opset=21)
    for tensor in model.graph.initializer:
        if tensor.name == "zero_point":
            tensor.CopyFrom(helper.make_tensor("zero_point", TensorProto.INT4, (), [0]))
    refused(model, "int4", "8-bit")


def test_a_string_tensor_is_refused():
    model = small_model()
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, (1,), [b"no"]))
    model.graph.node[3].input[2] = "words"
    refused(model, "'words'", "holds text")


def test_a_subgraph_is_refused():
    model = small_model()
    inner = helper.make_graph(
        [helper.make_node("Relu", ["conv"], ["inner"])], "branch", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    branch = helper.make_node("If", ["always"], ["relu"], "choice", then_branch=inner, else_branch=inner)
    model.graph.node[4].CopyFrom(branch)
    refused(model, "choice")


# Writing


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BridgeError, match="No such file"):
        save(b"TFL3", tmp_path / "missing" / "model.tflite")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BridgeError, match="Not a directory"):
        save(b"TFL3", tmp_path / "file" / "model.tflite")
    assert (tmp_path / "file").read_text() == ""


def test_an_output_that_is_a_folder_stays_one(tmp_path):
    (tmp_path / "model.tflite").mkdir()
    with pytest.raises(BridgeError, match="directory"):
        save(b"TFL3", tmp_path / "model.tflite")
    assert [item.name for item in tmp_path.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, code):
    target = tmp_path / "model.tflite"
    target.write_bytes(b"old")

    def failing(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(BridgeError, match=os.strerror(code)):
        save(b"TFL3 and more", target)
    assert [item.name for item in tmp_path.iterdir()] == ["model.tflite"]
    assert target.read_bytes() == b"old"


# Anything


def flipped(whole: bytes, random: np.random.Generator) -> bytes:
    content = bytearray(whole)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(content)))
        if random.random() < 0.3:
            del content[at : at + int(random.integers(1, 4))]
        else:
            content[at] = int(random.integers(256))
    return bytes(content)


@pytest.mark.parametrize("build", [small_model, lambda: small_model(opset=21)], ids=["opset 17", "opset 21"])
def test_flipped_and_deleted_bytes_convert_or_are_refused(path, build: Callable[[], onnx.ModelProto]):
    whole, random = build().SerializeToString(), np.random.default_rng(20)
    refusals = 0
    for attempt in range(N_FLIPS):
        path.write_bytes(flipped(whole, random))
        try:
            convert(path)
        except BridgeError:
            refusals += 1
        except BaseException as error:
            error.add_note(f"attempt {attempt}") if hasattr(error, "add_note") else None
            raise
        assert list(path.parent.iterdir()) == [path]
    assert 0 < refusals < N_FLIPS


@pytest.mark.parametrize("place", ["op_type", "domain", "name", "input", "output"])
@pytest.mark.parametrize("in_a_function", [False, True])
def test_a_name_that_is_no_text_is_refused(place, in_a_function):
    node = helper.make_node("Relu", ["?WRONG?"], ["?WRONG?"], "?WRONG?", domain="?WRONG?")
    node.op_type = "?WRONG?"
    for field in {"op_type", "domain", "name", "input", "output"} - {place}:
        node.ClearField(field)
    broken = onnx.NodeProto()
    broken.ParseFromString(node.SerializeToString().replace(b"?WRONG?", b"\xff" * 7))
    model = small_model()
    if in_a_function:
        function = model.functions.add(name="f", domain="own")
        function.node.append(broken)
    else:
        model.graph.node.append(broken)
    with pytest.raises(BridgeError, match="holds a name that is no UTF-8 text"):
        convert(model)


@pytest.mark.parametrize("elem_type", [0, 99])
def test_an_input_without_a_type_is_refused(elem_type):
    model = small_model()
    model.graph.input[0].type.tensor_type.elem_type = elem_type
    with pytest.raises(BridgeError, match="input 'input': does not say what type it is"):
        convert(model)


def test_real_numbers_are_no_codes():
    model = small_model()
    dequantize = next(node for node in model.graph.node if node.name == "dequantize")
    dequantize.input[0] = "input"
    with pytest.raises(BridgeError, match="'dequantize', input 'input': is float32, and its zero point is int8"):
        convert(model)


def test_codes_are_no_scale():
    model = small_model()
    dequantize = next(node for node in model.graph.node if node.name == "dequantize")
    dequantize.input[1] = "zero_point"
    with pytest.raises(BridgeError, match="scale 'zero_point': is of type int8, and must be a real number"):
        convert(model)


def test_operands_of_another_type_than_the_operator_takes_are_refused():
    model = small_model()
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    convolution.input[2] = "weight_zero"
    with pytest.raises(BridgeError, match=r"Conv .conv.: is not a consistent ONNX graph"):
        convert(model)


@pytest.mark.parametrize("elem_type", [TensorProto.BOOL, TensorProto.INT32, TensorProto.FLOAT16])
def test_an_input_that_is_quantized_is_a_real_number_in_float32(elem_type):
    model = small_model()
    model.graph.input[0].type.tensor_type.elem_type = elem_type
    with pytest.raises(BridgeError, match=r"'quantize', input 'input': is .*; a QuantizeLinear takes real numbers"):
        convert(model)


def test_codes_that_do_not_fit_the_shape_they_are_given_are_refused():
    model = small_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([7], np.int64), "seven"))
    reshape = helper.make_node("Reshape", ["w", "seven"], ["w7"], "reshape")
    place = [node.name for node in model.graph.node].index("conv")
    model.graph.node.insert(place, reshape)
    model.graph.node[place + 1].input[1] = "w7"
    with pytest.raises(BridgeError):
        convert(model)
