"""Whole small models: what the file holds, what is noted, what is refused, and that it is always the same file."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert, save
from bridge.verifying.litert import Runner
from compare.tflite.file import read
from tests.builders import Pair, constant, float_constant, integers, notes, ops, qdq_model, weight

U8 = np.uint8
KERNEL = weight("w", [[[[2]]], [[[-4]]]], [0.25, 0.125])
BIAS = float_constant("b", [1.0, -0.5])


def small(**pairs):
    """Conv, Relu, MaxPool, Flatten, Gemm; `pairs` replace those given here."""
    trained = {"x": Pair(0.5, -3), "r": Pair(0.25, -128), "y": Pair(0.125, 7), **pairs}
    return qdq_model(
        ("Conv", "x w b", "c"),
        ("Relu", "c", "r"),
        ("MaxPool", "r", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", "p", "f"),
        ("Gemm", "f d", "y", {"transB": 1}),
        inputs={"x": (1, 1, 4, 4)},
        pairs={name: pair for name, pair in trained.items() if pair is not None},
        outputs="y",
        constants=[KERNEL, BIAS, weight("d", np.arange(24).reshape(3, 8), [0.5, 0.25, 0.125])],
    )


def named(conversion):
    return {tensor.name: tensor for tensor in read(conversion.tflite, "small").tensors}


def test_a_whole_network_is_integer_and_as_small_as_it_can_be():
    done = convert(small())
    file = read(done.tflite, "small")
    assert [operator.name for operator in file.operators] == ["CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert all(file.is_integer(operator) for operator in file.operators)


def test_every_trained_scale_is_in_the_file():
    tensors = named(convert(small()))
    assert (tensors["x"].scale, tensors["x"].zero_point) == ((0.5,), (-3,))
    assert (tensors["y"].scale, tensors["y"].zero_point) == ((0.125,), (7,))
    hidden = [tensor for tensor in tensors.values() if not tensor.constant and tensor.shape == (1, 4, 4, 2)]
    assert [(tensor.scale, tensor.zero_point) for tensor in hidden] == [((0.25,), (-128,))]


def test_the_network_computes_what_one_can_compute_by_hand():
    model = qdq_model(
        ("Conv", "x w b", "y"),
        inputs={"x": (1, 1, 1, 1)}, pairs={"x": Pair(0.5, -3), "y": Pair(0.125, 7)}, outputs="y",
        constants=[KERNEL, BIAS],
    )  # fmt: skip
    got = Runner(convert(model).tflite, "reference")({"x": np.array([[[[1]]]], np.int8)})["y"]
    # x = 0.5 * (1 + 3) = 2; 2 * 0.5 + 1 = 2 and 2 * -0.5 - 0.5 = -1.5; / 0.125 + 7
    assert got.reshape(-1).tolist() == [23, -5]


def test_operators_in_and_out_are_counted():
    done = convert(small())
    assert done.operators_in["QuantizeLinear"] == 3
    assert done.operators_out == {"CONV_2D": 1, "MAX_POOL_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}


def test_the_same_model_gives_the_same_bytes():
    assert convert(small()).tflite == convert(small()).tflite


def test_the_model_in_memory_is_not_changed():
    model = small()
    before = model.SerializeToString()
    convert(model)
    assert model.SerializeToString() == before


def test_a_file_gives_the_same_bytes_as_the_model_in_memory(tmp_path):
    onnx.save(small(), tmp_path / "small.onnx")
    assert convert(tmp_path / "small.onnx").tflite == convert(small()).tflite
    assert convert(str(tmp_path / "small.onnx")).tflite == convert(small()).tflite


def test_uint8_and_int8_models_of_the_same_numbers_give_the_same_bytes():
    as_uint8 = {"x": Pair(0.5, 125, U8), "r": Pair(0.25, 0, U8), "y": Pair(0.125, 135, U8)}
    assert convert(small(**as_uint8)).tflite == convert(small()).tflite


def seven_bit(*between, outputs="y"):
    """x -> Conv -> between -> h clamped to 0..127 -> LeakyRelu -> y."""
    return qdq_model(
        ("Conv", "x w b", "c"),
        *between,
        ("LeakyRelu", "h", "y"),
        inputs={"x": (1, 1, 2, 2)},
        pairs={"x": Pair(0.5, 0, U8, (0, 127)), "h": Pair(0.25, 0, U8, (0, 127)), "y": Pair(0.25)},
        outputs=outputs,
        constants=[KERNEL, BIAS],
    )


def test_a_seven_bit_relu_keeps_its_codes_and_saturation_is_its_clamp():
    done = convert(seven_bit(("Relu", "c", "h")))
    assert ops(done.graph) == ["CONV_2D", "LEAKY_RELU"]
    hidden = done.graph.output(done.graph.nodes[0])
    assert str(hidden.q) == "scale 0.25, zero point 0"
    assert done.graph.nodes[0].attrs["fused_activation"] == "RELU"
    runner = Runner(convert(seven_bit(("Relu", "c", "h"), outputs="y h")).tflite, "reference")
    got = runner({"x": np.full((1, 2, 2, 1), 127, np.int8)})["h"]
    assert got[0, 0, 0].tolist() == [127, 0]  # 63.5 * 0.5 + 1 = 32.75 is 131 steps; -32.25 is none


def test_a_lower_clamp_without_relu_is_a_maximum_of_its_own():
    done = convert(seven_bit(("Identity", "c", "h")))
    assert ops(done.graph) == ["CONV_2D", "MAXIMUM", "LEAKY_RELU"]
    assert done.graph.operands(done.graph.nodes[1])[1].values == 0
    assert [note.where for note in notes(done.graph, "clamped")] == ["tensor 'c'"]
    assert [note.what for note in notes(done.graph, "fed")] == ["feed codes from 0 to 127 only"]


def test_a_lower_clamp_at_a_model_output_is_kept_too():
    done = convert(small(y=Pair(0.125, 64, U8, (0, 127))))
    assert ops(done.graph)[-2:] == ["FULLY_CONNECTED", "MAXIMUM"]
    assert done.graph.outputs == ("y",)


def test_a_tensor_without_a_pair_is_refused_by_name():
    with pytest.raises(BridgeError, match=r"Conv 'c', tensor 'r': has no trained scale \(3 tensors of this model"):
        convert(small(r=None))


def test_a_model_without_any_pair_is_refused_as_float():
    with pytest.raises(BridgeError, match="there is no Q/DQ pair in this model"):
        convert(small(x=None, r=None, y=None))


def test_allow_float_puts_borders_where_the_scales_end_and_notes_every_operator():
    done = convert(small(r=None), Options(allow_float=True))
    assert ops(done.graph)[0] == "DEQUANTIZE"
    assert ops(done.graph)[-1] == "QUANTIZE"
    assert len(notes(done.graph, "float")) == 4
    tensors = named(done)
    assert (tensors["x"].dtype, tensors["y"].dtype) == ("int8", "int8")


def test_allow_float_changes_nothing_where_every_scale_is_trained():
    assert convert(small(), Options(allow_float=True)).tflite == convert(small()).tflite


def test_an_unknown_operator_is_refused_before_any_pass():
    model = qdq_model(("Erf", "x", "y"), inputs={"x": (1, 4)}, pairs={"x": Pair(0.5), "y": Pair(0.5)}, outputs="y")
    with pytest.raises(BridgeError, match=r"node 'y' \(Erf\): the exact bridge cannot write this operator"):
        convert(model)


def test_all_unknown_operators_are_named_at_once():
    chain = [("Erf", "x", "y"), ("Erf", "y", "z"), ("Relu", "z", "v"), ("Gelu", "v", "w")]
    model = qdq_model(*chain, inputs={"x": (1, 4)}, pairs={"x": Pair(0.5)}, outputs="w", opset=20)
    with pytest.raises(BridgeError, match=r"node 'y' \(Erf\): .* in all 3 of this model: Erf 2, Gelu 1"):
        convert(model)


def test_an_unknown_operator_of_constants_only_that_is_unused_does_no_harm():
    model = qdq_model(
        ("Erf", "k", "e"), ("Relu", "x", "y"),
        inputs={"x": (1, 4)}, pairs={"x": Pair(0.5), "y": Pair(0.5)}, outputs="y", constants=[float_constant("k", [1])],
    )  # fmt: skip
    assert ops(convert(model).graph) == ["RELU"]


def test_a_model_that_computes_nothing_is_refused():
    model = qdq_model(("Identity", "x", "y"), inputs={"x": (1, 4)}, pairs={"x": Pair(0.5)}, outputs="y")
    with pytest.raises(BridgeError, match="hands its input on without computing anything"):
        convert(model)


def test_an_input_shape_fixes_a_dynamic_batch():
    model = qdq_model(
        ("Relu", "x", "y"), inputs={"x": ("batch", 4)}, pairs={"x": Pair(0.5), "y": Pair(0.5)}, outputs="y"
    )
    assert convert(model, None, {"x": (2, 4)}).graph.tensors["y"].shape == (2, 4)


def test_a_batch_norm_after_a_convolution_leaves_no_operator():
    parameters = [float_constant(n, v) for n, v in zip("gomv", ([2, -2], [1, 1], [0, 0], [1, 1]), strict=True)]
    model = qdq_model(
        ("Conv", "x w", "c"), ("BatchNormalization", "c g o m v", "y", {"epsilon": 0.0}),
        inputs={"x": (1, 1, 2, 2)}, pairs={"x": Pair(0.5), "y": Pair(0.5)}, outputs="y",
        constants=[KERNEL, *parameters],
    )  # fmt: skip
    done = convert(model)
    kernel = done.graph.operands(done.graph.nodes[0])[1]
    assert ops(done.graph) == ["CONV_2D"]
    assert_array_equal(kernel.q.scale, [0.5, 0.25])
    assert_array_equal(kernel.values.reshape(-1), [2, 4])


def test_per_channel_codes_in_a_reshaped_constant_keep_their_values():
    model = qdq_model(
        ("Reshape", "k s", "flat"), ("Add", "x flat", "y"),
        inputs={"x": (1, 4)}, pairs={"x": Pair(1.0), "y": Pair(1.0)}, outputs="y",
        constants=[weight("k", [[10, 20], [30, 40]], [1.0, 2.0]), integers("s", [4])],
    )  # fmt: skip
    got = Runner(convert(model).tflite, "reference")({"x": np.zeros((1, 4), np.int8)})["y"]
    assert_array_equal(got, [[10, 20, 60, 80]])


def test_operands_of_a_maximum_at_different_scales_are_compared_as_numbers():
    model = qdq_model(
        ("Max", "x z", "y"),
        inputs={"x": (1, 2), "z": (1, 2)}, pairs={"x": Pair(1.0), "z": Pair(2.0, 5), "y": Pair(1.0)}, outputs="y",
    )  # fmt: skip
    x, z = np.array([[10, 10]], np.int8), np.array([[9, 11]], np.int8)  # z is 8 and 12
    assert_array_equal(Runner(convert(model).tflite, "reference")({"x": x, "z": z})["y"], [[10, 12]])


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    save(b"TFL3", tmp_path / "model.tflite")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert (tmp_path / "model.tflite").read_bytes() == b"TFL3"


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BridgeError, match=r"gone/model\.tflite: cannot be written \(No such file"):
        save(b"TFL3", tmp_path / "gone" / "model.tflite")


def test_a_scalar_index_takes_an_axis_away():
    model = qdq_model(
        ("Gather", "x i", "y", {"axis": 1}),
        inputs={"x": (1, 3)}, pairs={"x": Pair(1.0)}, outputs="y", constants=[constant("i", np.array(2, np.int64))],
    )  # fmt: skip
    got = Runner(convert(model).tflite, "reference")({"x": np.array([[1, 2, 3]], np.int8)})["y"]
    assert_array_equal(got, [3])


def handed_on(outputs="y z", **pair):
    """y: a dense layer; z: the quantized input itself."""
    return qdq_model(
        ("Gemm", "x d", "y", {"transB": 1}),
        ("Identity", "x", "z"),
        ("Identity", "z", "z2"),
        inputs={"x": (1, 2)},
        pairs={"x": Pair(0.5, 3, **pair), "y": Pair(1.0)},
        outputs=outputs,
        constants=[weight("d", [[1, 1]], [1.0])],
    )


@pytest.mark.parametrize("outputs", ["y z", "z y", "y z z2"])
@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_an_output_that_is_an_input_has_its_own_name_and_the_values_on_the_grid(io, outputs):
    done = convert(handed_on(outputs), Options(io=io))
    assert done.graph.outputs == tuple(outputs.split())
    fed = {"int8": [[5, -7]], "uint8": [[133, 121]], "float32": [[1.1, -4.9]]}[io]  # codes 5 and -7: 1.0 and -5.0
    got = Runner(done.tflite, "reference")({"x": np.array(fed, io)})
    wanted = {"int8": [5, -7], "uint8": [133, 121], "float32": [1.0, -5.0]}[io]
    for name in set(outputs.split()) - {"y"}:
        assert got[name].tolist() == [wanted]


@pytest.mark.parametrize(
    ("io", "said"),
    [("int8", ["feed codes from 0 to 127 only"]), ("uint8", ["feed codes from 128 to 255 only"]), ("float32", [])],
)
def test_an_input_that_training_clamped_says_which_codes_it_takes(io, said):
    done = convert(handed_on(dtype=U8, clip=(0, 127)), Options(io=io))
    assert [note.what for note in notes(done.graph, "fed")] == said


def test_a_model_of_copies_alone_is_refused():
    model = qdq_model(("Identity", "x", "y"), inputs={"x": (1, 2)}, pairs={"x": Pair(0.5, 3)}, outputs="y")
    with pytest.raises(BridgeError, match="hands its input on without computing anything"):
        convert(model)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_a_batch_norm_behind_a_dense_layer_over_three_axes_is_of_axis_1(kernels):
    """As many channels on axis 1 as the layer has outputs: taken for those, the file would be wrong without a word."""
    channel = [
        float_constant(name, value) for name, value in [("g", [1, 4]), ("o", [0, 0]), ("m", [0, 0]), ("v", [1, 1])]
    ]
    model = qdq_model(
        ("MatMul", "x w", "h"),
        ("BatchNormalization", "h g o m v", "y", {"epsilon": 1e-12}),
        inputs={"x": (1, 2, 2)},
        pairs={"x": Pair(1.0), "h": Pair(1.0), "y": Pair(1.0)},
        outputs="y",
        constants=[weight("w", [[1, 0], [0, 1]], [1.0, 1.0], axis=1), *channel],
    )
    bare = qdq_model(
        ("MatMul", "x w", "h"),
        ("BatchNormalization", "h g o m v", "y", {"epsilon": 1e-12}),
        inputs={"x": (1, 2, 2)},
        pairs={"x": Pair(1.0), "y": Pair(1.0)},
        outputs="y",
        constants=[weight("w", [[1, 0], [0, 1]], [1.0, 1.0], axis=1), *channel],
    )
    x = np.array([[[1, 2], [3, 4]]], np.int8)
    for each in (model, bare):
        try:
            got = Runner(convert(each).tflite, kernels)({"x": x})["y"]
        except BridgeError as error:
            assert "has no trained scale" in error.problem
        else:
            assert_array_equal(got, [[[1, 2], [12, 16]]])


def test_sizes_of_a_split_that_the_model_computes_from_constants_are_computed():
    """onnx infers no shape behind them, which is not the shape of a scalar."""
    model = qdq_model(
        ("Abs", "n", "sizes"),
        ("Split", "x sizes", "a b", {"axis": 1}),
        ("Relu", "a", "y"),
        ("Relu", "b", "z"),
        inputs={"x": (1, 5)},
        pairs={"x": Pair(1.0), "y": Pair(1.0), "z": Pair(1.0)},
        outputs="y z",
        constants=[constant("n", np.array([-2, 3], np.int64))],
    )
    for value, size in zip(model.graph.output, (2, 3), strict=True):
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, [1, size]))
    done = convert(model)
    assert [done.graph.tensors[name].shape for name in done.graph.outputs] == [(1, 2), (1, 3)]


@pytest.mark.parametrize(("low", "zero_point"), [(0.5, -128), (-1.0, 127)], ids=["above zero", "below zero"])
def test_a_mean_of_numbers_on_one_side_of_zero_has_a_zero_point_of_int8(low, zero_point):
    model = qdq_model(
        ("Clip", "x low high", "c"),
        ("GlobalAveragePool", "c", "y"),
        inputs={"x": (1, 1, 4, 4)},
        pairs={"x": Pair(1 / 255, zero_point)},
        outputs="y",
        constants=[float_constant("low", low), float_constant("high", low + 0.25)],
    )
    done = convert(model)
    zero = int(done.graph.tensors["y"].q.zero_point)
    assert -128 <= zero <= 127
    codes = np.linspace(-128, 127, 16).astype(np.int8).reshape(1, 4, 4, 1)
    got = Runner(done.tflite, "xnnpack")({"x": codes})["y"].item()
    mean = np.clip((codes.astype(float) - zero_point) / 255, low, low + 0.25).mean()
    assert abs((got - zero) * float(done.graph.tensors["y"].q.scale) - mean) <= 1 / 255
