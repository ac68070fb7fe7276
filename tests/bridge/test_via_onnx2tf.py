"""What onnx2tf makes of small ONNX files; every conversion in a process of its own, offline."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge import via_onnx2tf
from bridge.errors import BridgeError
from compare.measuring import metrics
from compare.mismatches import m44_reordered_biases
from compare.mismatches.parts.clipped_pairs import clips
from compare.running.workers import captured
from compare.subjects.case import Case
from compare.tflite import file as tflite_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def converter():
    """Converts in one spawned process that cannot reach any network; onnx2tf is imported once."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=cut_the_network) as pool:
        yield lambda *arguments, **options: pool.submit(
            captured, functools.partial(via_onnx2tf.convert, **options), arguments
        ).result()


def cut_the_network():
    def refuse(*_):
        raise OSError("this test has no network")

    socket.socket.connect = refuse


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def dense_with_int8_bias(path: Path, bias_codes) -> None:
    """x (1, 4) -> Q/DQ -> Gemm with identity-like weights and an int32 bias behind DequantizeLinear -> Q/DQ."""
    weight = np.zeros((4, 4), np.int8)
    np.fill_diagonal(weight, 64)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zu"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "zu"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"]),
        helper.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bd"]),
        helper.make_node("Gemm", ["xd", "wd", "bd"], ["g"], name="dense", transB=1),
        helper.make_node("QuantizeLinear", ["g", "so", "zo"], ["gq"]),
        helper.make_node("DequantizeLinear", ["gq", "so", "zo"], ["y"]),
    ]
    constants = [
        constant("s", 1 / 128),
        constant("zu", 0, np.uint8),
        constant("w", weight, np.int8),
        constant("sw", 1 / 64),
        constant("zw", 0, np.int8),
        constant("b", bias_codes, np.int32),
        constant("sb", 1 / 8192),
        constant("zb", 0, np.int32),
        constant("so", 1 / 32),
        constant("zo", 0, np.uint8),
    ]
    save(path, nodes, constants, (1, 4), (1, 4))


def convolution(path: Path, channels: int, clip: bool) -> None:
    """x -> Q [-> Clip 127] -> DQ -> 1x1 convolution summing the channels."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        *([helper.make_node("Clip", ["q", "", "top"], ["c"])] if clip else []),
        helper.make_node("DequantizeLinear", ["c" if clip else "q", "s", "z"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    constants = [constant("s", 0.25), constant("z", 4, np.uint8), constant("w", np.ones((2, channels, 1, 1)))]
    if clip:
        constants.append(constant("top", 127, np.uint8))
    save(path, nodes, constants, (1, channels, 6, 6), (1, 2, 6, 6))


def save(path, nodes, constants, shape, output_shape):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def outputs(content: bytes, x: np.ndarray) -> np.ndarray:
    ready = metrics.interpreter(content)
    source, result = ready.get_input_details()[0], ready.get_output_details()[0]
    ready.set_tensor(source["index"], metrics.quantize_input(x, *source["quantization"], source["dtype"]))
    ready.invoke()
    scale, zero_point = result["quantization"]
    return (ready.get_tensor(result["index"]).astype(np.float32) - zero_point) * scale


def test_three_channels_convert_offline_and_the_onnx_file_stays_as_it_was(converter, tmp_path):
    convolution(tmp_path / "rgb.onnx", channels=3, clip=False)
    before = (tmp_path / "rgb.onnx").read_bytes()
    (tmp_path / "work").mkdir()
    images = np.random.default_rng(0).random((8, 6, 6, 3), np.float32)
    outcome = converter(tmp_path / "rgb.onnx", "x", images, tmp_path / "work")
    assert outcome.error is None
    assert (tmp_path / "rgb.onnx").read_bytes() == before
    file = tflite_file.read(outcome.value, "rgb")
    assert all(file.is_integer(operator) for operator in file.operators)
    assert outcome.log  # onnx2tf talks a lot; none of it reached this terminal


def test_a_pair_with_a_clip_between_is_dequantized_twice(converter, tmp_path):
    """x = 8 everywhere: once dequantized the sum is 2 * 8 = 16; twice, it is 2 * (8 - 4) * 0.25 = 2."""
    images = np.full((4, 6, 6, 2), 8, np.float32)
    found = {}
    for clip in (False, True):
        path = tmp_path / f"{clip}.onnx"
        convolution(path, channels=2, clip=clip)
        (tmp_path / f"work{clip}").mkdir()
        outcome = converter(path, "x", images, tmp_path / f"work{clip}")
        assert outcome.error is None
        found[clip] = float(outputs(outcome.value, images[:1]).mean())
        assert len(list(clips(onnx.load(path)))) == int(clip)
    assert found[False] == pytest.approx(16, abs=0.2)
    assert found[True] == pytest.approx(2, abs=0.2)


def test_an_int32_bias_comes_out_with_its_second_entry_last(converter, tmp_path):
    dense_with_int8_bias(tmp_path / "dense.onnx", [8192, 16384, 24576, 4096])  # 1, 2, 3, 0.5
    (tmp_path / "work").mkdir()
    images = np.zeros((1, 1, 1, 4), np.float32)
    outcome = converter(tmp_path / "dense.onnx", "x", images.reshape(1, 1, 1, 4), tmp_path / "work")
    if outcome.error is not None:  # 2-D inputs take 2-D calibration data only in some versions
        pytest.fail(outcome.error)
    found = outputs(outcome.value, np.zeros((1, 4), np.float32)).reshape(-1)
    assert found == pytest.approx([1, 3, 0.5, 2], abs=0.05)
    case = Case(onnx=(tmp_path / "dense.onnx").read_bytes(), tflite=outcome.value)
    assert [sighting.where for sighting in m44_reordered_biases.detect(case)] == ["bias of 'dense'"]


def with_all_seven_files(*arguments):
    via_onnx2tf._one_file = lambda **_: contextlib.nullcontext()
    return via_onnx2tf.convert(*arguments)


def test_leaving_out_the_other_six_files_changes_no_byte_of_the_integer_one(tmp_path):
    """Each in a new process: names in the file count what the process converted before."""
    convolution(tmp_path / "m.onnx", channels=2, clip=True)
    images = np.random.default_rng(0).random((8, 6, 6, 2), np.float32)
    made = {}
    for name, convert in (("short", via_onnx2tf.convert), ("full", with_all_seven_files)):
        (tmp_path / name).mkdir()
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            job = (tmp_path / "m.onnx", "x", images, tmp_path / name)
            made[name] = pool.submit(captured, convert, job).result().value
    sizes = [path.stat().st_size for path in (tmp_path / "full" / "out").glob("*.tflite")]
    assert len(sizes) == 7
    assert min(sizes) > 0
    assert made["short"] == made["full"]


def test_unquantized_it_is_the_float_model(converter, tmp_path):
    convolution(tmp_path / "m.onnx", channels=2, clip=False)
    (tmp_path / "work").mkdir()
    images = np.random.default_rng(0).random((8, 6, 6, 2), np.float32)
    outcome = converter(tmp_path / "m.onnx", "x", images, tmp_path / "work", quantized=False)
    file = tflite_file.read(outcome.value, "m")
    assert {file.tensors[index].dtype for index in (*file.inputs, *file.outputs)} == {"float32"}


def test_a_broken_onnx_file_is_one_clear_error(converter, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    (tmp_path / "work").mkdir()
    outcome = converter(tmp_path / "broken.onnx", "x", np.zeros((1, 6, 6, 2), np.float32), tmp_path / "work")
    assert outcome.value is None
    assert outcome.error.startswith("onnx2tf on broken.onnx: gave up")


def test_calibration_data_of_another_rank_is_refused(tmp_path):
    with pytest.raises(BridgeError, match="takes NHWC images"):
        via_onnx2tf.convert(tmp_path / "m.onnx", "x", np.zeros((4, 28, 28), np.float32), tmp_path)
