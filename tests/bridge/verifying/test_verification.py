"""A file held against its reference: what is compared, on which kernels, and what is refused."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Node
from bridge.exact.writer import write
from bridge.verifying.batches import onnx_shape
from bridge.verifying.litert import KERNELS, Runner
from bridge.verifying.operators import single
from bridge.verifying.record import lines
from bridge.verifying.verification import compare_outputs, verify
from tests.builders import Pair, qdq_model, weight


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    w = weight("w", np.arange(-9, 9).reshape(2, 1, 3, 3), [0.25, 0.125])
    onnx.save(
        qdq_model(
            ("Conv", "x w", "c"), ("Relu", "c", "r"), ("MaxPool", "r", "y", {"kernel_shape": [2, 2]}),
            inputs={"x": (1, 1, 5, 5)}, pairs={"x": Pair(0.5), "r": Pair(0.5, -128), "y": Pair(0.5, -128)}, outputs="y",
            constants=[w],
        ),
        path,
    )  # fmt: skip
    return path


def samples(count=4):
    return {"x": np.random.default_rng(0).normal(size=(count, 1, 5, 5)).astype(np.float32) * 10}


def test_a_conversion_is_held_against_onnx_runtime_on_both_kernel_sets(model):
    done = convert(model)
    found = verify(model, done.graph, done.tflite, samples())
    assert found.samples == 4
    assert set(found.outputs) == set(KERNELS)
    # Scales are powers of two: the accumulator is exact in float32. A tie may fall either way: 1 LSB.
    assert all(outputs["y"].worst <= 1 for outputs in found.outputs.values())


def test_every_operator_is_measured_alone(model):
    done = convert(model)
    found = verify(model, done.graph, done.tflite, samples())
    measured = {(item.op, item.kernels) for item in found.operators}
    assert measured == {(op, kernels) for op in ("CONV_2D", "MAX_POOL_2D") for kernels in KERNELS}


def test_a_wrong_file_is_found_and_the_operator_named(model):
    done = convert(model)
    nodes = tuple(replace(node, attrs={**node.attrs, "fused_activation": "NONE"}) for node in done.graph.nodes)
    shifted = {
        name: replace(tensor, data=tensor.data + np.int8(1)) if name.startswith("w") else tensor
        for name, tensor in done.graph.tensors.items()
    }
    found = verify(model, replace(done.graph, nodes=nodes, tensors=shifted), done.tflite, samples())
    assert found.guilty()[0].op == "CONV_2D"


def test_outputs_can_be_held_against_any_reference(model):
    done = convert(model)
    runner = Runner(done.tflite, "reference")
    x = samples(1)
    stored = np.clip(np.rint(x["x"] / 0.5), -128, 127).astype(np.int8).reshape(1, 5, 5, 1)
    real = (runner({"x": stored})["y"].astype(np.float32) + 128) * 0.5
    found = compare_outputs(done.graph, done.tflite, x, [real.transpose(0, 3, 1, 2)])
    assert found["reference"]["y"].worst == 0


def test_the_onnx_shape_of_a_tensor_stored_otherwise(model):
    assert onnx_shape(convert(model).graph.tensors["x"]) == (1, 1, 5, 5)
    assert onnx_shape(convert(model).graph.tensors["y"]) == (1, 2, 2, 2)


def test_a_single_operator_is_a_model_of_its_own(model):
    graph = convert(model).graph
    alone = single(graph, graph.nodes[1])
    assert (alone.inputs, alone.outputs) == (graph.nodes[0].outputs, ("y",))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, r"input 'x': is not among the arrays given \(none\)"),
        ({"x": np.zeros((4, 5, 5, 1))}, r"input 'x': has shape \(4, 5, 5, 1\) .* the model takes \(1, 1, 5, 5\)"),
        ({"x": np.zeros((0, 1, 5, 5))}, r"has shape \(0, 1, 5, 5\)"),
        ({"x": np.full((1, 1, 5, 5), np.nan)}, "holds NaN or infinity"),
        ({"x": np.array(["a"])}, r"has shape \(1,\)"),
    ],
    ids=["missing", "layout", "empty", "nan", "text"],
)
def test_inputs_that_do_not_fit_are_refused(model, inputs, text):
    done = convert(model)
    with pytest.raises(BridgeError, match=text):
        verify(model, done.graph, done.tflite, inputs)


def test_a_model_that_gives_a_single_number_can_be_verified(tmp_path):
    path = tmp_path / "scalar.onnx"
    pairs = dict.fromkeys("xy", Pair(0.5))
    onnx.save(
        qdq_model(("ReduceMean", "x", "y", {"keepdims": 0}), inputs={"x": (1, 2)}, pairs=pairs, outputs="y"), path
    )
    done = convert(path)
    found = verify(path, done.graph, done.tflite, {"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert found.outputs["reference"]["y"].count == 2


def test_inputs_of_different_length_are_refused(tmp_path):
    path = tmp_path / "two.onnx"
    pairs = dict.fromkeys("xzy", Pair(0.5))
    onnx.save(qdq_model(("Add", "x z", "y"), inputs={"x": (1, 2), "z": (1, 2)}, pairs=pairs, outputs="y"), path)
    done = convert(path)
    arrays = {"x": np.zeros((2, 2), np.float32), "z": np.zeros((3, 2), np.float32)}
    with pytest.raises(BridgeError, match="hold different numbers of samples"):
        verify(path, done.graph, done.tflite, arrays)


def test_a_file_that_the_runtime_refuses_is_reported_with_its_words(model):
    graph = convert(model).graph
    broken = replace(graph, nodes=(Node("MEAN", "m", ("x",), ("y",)),))
    with pytest.raises(BridgeError, match=r"\.tflite: LiteRT refuses the model on its reference kernels: .*MEAN"):
        Runner(write(broken), "reference")


# Other types at the border --------------------------------------------------------------------------------------------


def saved(model, path):
    onnx.save(model, path)
    return path


def with_codes(path, dtype, inside):
    """x -> Q/DQ -> Relu -> Q/DQ -> y, where `inside` is the type at the border: codes come in, or go out."""
    types = {"float32": onnx.TensorProto.FLOAT, dtype: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    made = [onnx.helper.make_node(op, [*takes.split(), *rest], [gives], op + gives) for op, takes, gives, *rest in (
        *([] if inside == "input" else [("QuantizeLinear", "x s z", "a")]),
        ("DequantizeLinear", "x s z" if inside == "input" else "a s z", "b"),
        ("Relu", "b", "c"),
        ("QuantizeLinear", "c s z", "d" if inside == "input" else "y"),
        *([("DequantizeLinear", "d s z", "y")] if inside == "input" else []),
    )]  # fmt: skip
    ends = [
        onnx.helper.make_tensor_value_info(name, types[dtype if inside == end else "float32"], [1, 6])
        for name, end in (("x", "input"), ("y", "output"))
    ]
    constants = {"s": np.float32(0.1), "z": np.array(np.iinfo(dtype).max - 100, dtype)}
    graph = onnx.helper.make_graph(
        made, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return saved(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("inside", ["input", "output"])
def test_a_model_that_takes_or_gives_codes_is_compared_in_them(inside, dtype, io, tmp_path):
    path = with_codes(tmp_path / "model.onnx", dtype, inside)
    done = convert(path, Options(io=io))
    x = {"x": np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32) * 3}

    found = verify(path, done.graph, done.tflite, x)
    assert {outputs["y"].worst for outputs in found.outputs.values()} == {0}
    assert found.guilty() == ()

    # The same file held against a model whose output lies one step lower.
    wrong = convert(path, Options(io=io)).graph
    nodes = tuple(replace(node, op="RELU_N1_TO_1") if node.op == "RELU" else node for node in wrong.nodes)
    far = verify(path, done.graph, write(replace(wrong, nodes=nodes)), x)
    assert all(outputs["y"].worst > 10 for outputs in far.outputs.values())


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("clip", [(0, 127), (20, 100)])
def test_codes_that_training_clamps_are_clamped_before_they_are_fed(io, clip, tmp_path):
    path = tmp_path / "model.onnx"
    pairs = {"x": Pair(0.1, 64, np.uint8, clip), "y": Pair(0.1, 60, np.uint8, clip)}
    w = weight("w", np.eye(4, dtype=int) * 100, 0.01)
    onnx.save(
        qdq_model(("Gemm", "x w", "y", {"transB": 1}), inputs={"x": (1, 4)}, pairs=pairs, outputs="y", constants=[w]),
        path,
    )
    done = convert(path, Options(io=io))
    x = {"x": np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32) * 10}

    found = verify(path, done.graph, done.tflite, x)

    assert {outputs["y"].worst for outputs in found.outputs.values()} == {0}
    assert found.guilty() == ()


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_a_single_number_for_each_sample_is_compared_in_every_type(io, tmp_path):
    path = tmp_path / "scalar.onnx"
    pairs = dict.fromkeys("xy", Pair(0.5))
    steps = ("ReduceMean", "x", "y", {"keepdims": 0})
    onnx.save(qdq_model(steps, inputs={"x": (1, 2)}, pairs=pairs, outputs="y"), path)
    done = convert(path, Options(io=io))

    found = verify(path, done.graph, done.tflite, {"x": np.array([[1, 3], [3, 5], [5, 5]], np.float32)})

    assert found.outputs["reference"]["y"].histogram == {0: 3}


# What the network itself does -----------------------------------------------------------------------------------------


def test_the_baseline_is_what_one_step_of_one_input_code_does(tmp_path):
    """Ten weights of 12.5 steps: whichever code moves, the output moves by 12 or 13 codes, and by none where it rounds."""
    path = tmp_path / "model.onnx"
    w = weight("w", np.full((1, 10), 125), 0.1)
    pairs = {"x": Pair(1.0), "y": Pair(1.0)}
    onnx.save(
        qdq_model(("Gemm", "x w", "y", {"transB": 1}), inputs={"x": (1, 10)}, pairs=pairs, outputs="y", constants=[w]),
        path,
    )
    done = convert(path)
    x = {"x": np.random.default_rng(0).integers(-1, 2, (50, 10)).astype(np.float32)}

    found = verify(path, done.graph, done.tflite, x)
    again = verify(path, done.graph, done.tflite, x)

    assert set(found.baseline["y"].histogram) <= {12, 13}
    assert found.baseline == again.baseline
    assert found.guilty() == ()


def test_a_chaotic_network_is_far_from_its_file_and_no_operator_is_blamed(tmp_path):
    """Ties that fall the other way, amplified by 60 in every layer: the baseline is as far, and nobody is guilty."""
    path = tmp_path / "model.onnx"
    random = np.random.default_rng(3)
    steps, pairs, constants, before = [], {"x": Pair(0.1)}, [], "x"
    for layer in range(4):
        constants.append(weight(f"w{layer}", random.integers(-127, 128, (16, 16)), 0.05))
        steps.append(("Gemm", f"{before} w{layer}", f"y{layer}", {"transB": 1}))
        pairs[f"y{layer}"] = Pair(0.1)
        steps.append(("Relu", f"y{layer}", f"r{layer}"))
        pairs[f"r{layer}"] = Pair(0.1)
        before = f"r{layer}"
    onnx.save(qdq_model(*steps, inputs={"x": (1, 16)}, pairs=pairs, outputs=before, constants=constants), path)
    done = convert(path)
    found = verify(path, done.graph, done.tflite, {"x": random.normal(size=(40, 16)).astype(np.float32) * 0.2})
    assert found.baseline[before].worst > 20
    assert found.guilty() == ()


def test_samples_that_prove_little_are_said(model):
    done = convert(model)
    x = {"x": np.full((3, 1, 5, 5), 1e4, np.float32)}

    found = verify(model, done.graph, done.tflite, x)

    assert found.clipped == {"x": 1.0}
    assert found.constant == ("y",)
    said = "\n".join(lines(found))
    assert "100.0% of input x lie outside of the range it was trained with" in said
    assert "the reference gives the same y for all 3" in said
    assert "samples  " not in "\n".join(lines(verify(model, done.graph, done.tflite, samples())))


def test_a_local_function_is_looked_into(tmp_path, model):
    """ONNX Runtime runs the function; the operators inside of it are judged like all others."""
    proto = onnx.load(model)
    (relu,) = (node for node in proto.graph.node if node.op_type == "Relu")
    inner = onnx.helper.make_node("Relu", ["a"], ["b"], "inside")
    opsets = [onnx.helper.make_opsetid("", 17)]
    proto.functions.append(onnx.helper.make_function("own", "Limit", ["a"], ["b"], [inner], opsets))
    relu.op_type, relu.domain = "Limit", "own"
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    path = saved(proto, tmp_path / "function.onnx")
    done = convert(path)

    found = verify(path, done.graph, done.tflite, samples())

    assert {item.op for item in found.operators} == {"CONV_2D", "MAX_POOL_2D"}
    assert found.guilty() == ()
