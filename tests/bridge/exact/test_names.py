"""A name that the bridge makes never meets one of the file, whatever the file calls its tensors and nodes."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper

import bridge.exact
from bridge.errors import BridgeError
from bridge.exact import names
from bridge.exact.convert import Conversion, Options, convert
from bridge.exact.graph import Graph, Node, Tensor, add_made, check_constants, check_node_names, constant
from bridge.exact.names import free_name, reserved
from bridge.verifying.batches import onnx_shape
from bridge.verifying.litert import Runner
from tests.bridge.exact.graphs import Builder, Model, Seeded, Unusable, draw_model
from tests.bridge.exact.judging import apart
from tests.bridge.exact.steps import STEPS
from tests.bridge.exact.test_bad_input import small_model

OPTIONS = (
    Options(),
    Options(layout="nchw"),
    Options(requantize="QUANTIZE"),
    Options(per_channel_dense="CONV_2D"),
    Options(io="uint8"),
    Options(io="float32"),
)


def test_a_free_name_is_the_wanted_one_until_it_is_taken():
    with reserved(["dense/bias", "dense/bias_2"]):
        assert [free_name("dense/bias") for _ in range(2)] == ["dense/bias_3", "dense/bias_4"]
        assert free_name("conv/bias") == "conv/bias"
        with reserved(["inner"]):
            assert free_name("inner") == "inner_2"
            assert free_name("conv/bias") == "conv/bias_2"
        assert free_name("inner") == "inner_3"
    assert free_name("dense/bias") == "dense/bias"


def test_a_made_tensor_never_overwrites_another_one():
    tensors = {"a": constant("a", np.zeros(2, np.float32))}
    add_made(tensors, tensors["a"], constant("b", np.zeros(1, np.int32)))
    with pytest.raises(AssertionError, match="made tensor 'b' would overwrite another one"):
        add_made(tensors, constant("b", np.zeros(1, np.int32)))


def test_a_pass_that_overwrites_a_constant_is_named():
    before = Graph((), {"a": constant("a", np.zeros(2, np.float32))}, (), ())
    check_constants(before, Graph((), {"a": constant("a", np.zeros(2, np.float32))}, (), ()), after="fuse")
    for other in (constant("a", np.ones(2, np.float32)), Tensor("a", (2,), np.dtype(np.float32))):
        with pytest.raises(AssertionError, match="fuse: constant 'a' was overwritten"):
            check_constants(before, Graph((), {"a": other}, (), ()), after="fuse")


def test_two_operators_of_one_name_are_a_defect():
    graph = Graph((Node("ADD", "n", (), ("a",)), Node("SUB", "n", (), ("b",))), {}, (), ())
    with pytest.raises(AssertionError, match="several operators are called \\['n'\\]"):
        check_node_names(graph)


def test_the_bias_of_the_file_and_the_bias_that_the_bridge_makes_are_two():
    """The file's bias is called what the bridge calls the zeros of the convolution that has none."""
    model = small_model()
    model.graph.node.insert(4, helper.make_node("Conv", ["dq", "w"], ["conv2"], "second", kernel_shape=[1, 1]))
    model.graph.node.insert(5, helper.make_node("QuantizeLinear", ["conv2", "scale", "zero_point"], ["conv2_q"], "q2"))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["conv2_q", "scale", "zero_point"], ["output2"], "d2"))
    model.graph.output.append(helper.make_tensor_value_info("output2", TensorProto.FLOAT, (1, 2, 4, 4)))
    assert_array_equal(
        outputs(convert(renamed(model, {"bias": "second/bias"}, {})), seed=0), outputs(convert(model), seed=0)
    )


SOURCES = sorted(Path(bridge.exact.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_tensor_or_node_gets_a_name_that_was_put_together_elsewhere(path):
    """An f-string as the name of a `Tensor`, a `Node` or a constant is a name that can collide."""
    bare = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and _bare(node)]
    assert not bare, f"{path.name}: names made without free_name in lines {bare}"


def _bare(call: ast.Call) -> bool:
    called = call.func.id if isinstance(call.func, ast.Name) else ""
    place = {"Tensor": 0, "constant": 0, "shape_of": 0, "Node": 1}.get(called)
    named = [word.value for word in call.keywords if word.arg == "name" and called in ("Tensor", "Node", "replace")]
    given = [*named, *(call.args[place : place + 1] if place is not None else [])]
    return any(isinstance(value, ast.JoinedStr | ast.BinOp) for value in given)


def renamed(model: onnx.ModelProto, tensors: dict[str, str], nodes: dict[str, str]) -> onnx.ModelProto:
    """The same model with other names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.initializer, *copy.graph.value_info):
        value.name = tensors.get(value.name, value.name)
    for node in copy.graph.node:
        node.name = nodes.get(node.name, node.name)
        for field in (node.input, node.output):
            field[:] = [tensors.get(name, name) for name in field]
    return copy


def made_names(model: onnx.ModelProto, options: Options) -> list[str]:
    """Every name that the bridge makes while it converts the model, whether it is left at the end or not."""
    with reserved([]):
        convert(model, options)
        taken = set(names._taken.get() or ())
    return sorted(taken - set(tensor_names(model)) - {node.name for node in model.graph.node})


def tensor_names(model: onnx.ModelProto) -> list[str]:
    found = dict.fromkeys(tensor.name for tensor in (*model.graph.input, *model.graph.initializer))
    found |= dict.fromkeys(name for node in model.graph.node for name in node.output)
    return [name for name in found if name]


def outputs(conversion: Conversion, seed: int) -> np.ndarray:
    """What the outputs hold on XNNPACK for drawn inputs, in the order of the model, as one row of numbers."""
    random = np.random.default_rng(seed)
    graph = conversion.graph
    feeds = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        drawn = random.integers(-128, 128, onnx_shape(tensor))
        if tensor.dtype.kind == "f":
            drawn = drawn * 0.01
        arranged = drawn if tensor.origin is None else tensor.origin.arrange(drawn, tensor.shape)
        feeds[name] = arranged.astype(tensor.dtype)
    got = Runner(conversion.tflite, "xnnpack")(feeds)
    return np.concatenate([got[name].reshape(-1).astype(np.float64) for name in graph.outputs])


def drawn(seeds: Iterator[int], most: int) -> tuple[int, Model]:
    """The next model that can be drawn and converted."""
    for seed in seeds:
        try:
            model = draw_model(Seeded(seed), STEPS, most)
            convert(model.proto)
        except (Unusable, BridgeError):
            continue
        return seed, model
    raise AssertionError("no seed is left")


def test_drawn_models_under_the_names_that_the_bridge_would_make_give_the_same_codes():
    """The file's tensors and nodes are called, one after the other, what the bridge calls its own."""
    seeds = itertools.count(1000)
    met = 0
    for round_ in range(40):
        seed, model = drawn(seeds, most=4)
        options = OPTIONS[round_ % len(OPTIONS)]
        expected = outputs(convert(model.proto, options), seed)
        random = np.random.default_rng(seed)
        hostile = model.proto
        for _ in range(3):  # what is made next follows from the names of now
            wanted = made_names(hostile, options)
            taking = random.permutation(tensor_names(hostile))[: random.integers(1, 6)]
            giving = dict(zip(taking.tolist(), random.permutation(wanted).tolist(), strict=False))
            named = {node.name: wanted[random.integers(len(wanted))] for node in hostile.graph.node} if wanted else {}
            for name in [name for name in named if random.integers(3)]:
                del named[name]
            hostile = renamed(hostile, giving, named)
            onnx.checker.check_model(hostile)
            met += len(
                set(made_names(hostile, options)) & {f"{name}_2" for name in (*giving.values(), *named.values())}
            )
            assert_array_equal(outputs(convert(hostile, options), seed), expected, f"seed {seed}: {giving}, {named}")
    assert met > 40  # the names did meet


def test_drawn_models_whose_nodes_and_tensors_all_have_one_name_give_the_same_codes():
    """ONNX lets nodes share a name, and with a tensor too."""
    seeds = itertools.count(2000)
    for round_ in range(20):
        seed, model = drawn(seeds, most=4)
        options = OPTIONS[round_ % len(OPTIONS)]
        expected = outputs(convert(model.proto, options), seed)
        name = tensor_names(model.proto)[seed % 3]
        same = renamed(model.proto, {}, {node.name: name for node in model.proto.graph.node})
        assert_array_equal(outputs(convert(same, options), seed), expected, f"seed {seed}")


def shared_outputs(b: Builder, seed: int) -> tuple[Model, list[str]]:
    """A model some of whose outputs are one value: an input, codes and their real numbers, an Identity of another."""
    random = np.random.default_rng(seed)
    given = b.input(1, 2, 3, 3, magnitude=2.0)
    scale, zero = b.constant(0.02), b.constant(3, np.int8)
    codes = b.add("QuantizeLinear", [given, scale, zero])
    x = str(b.add("DequantizeLinear", [codes, scale, zero]))
    pool_codes = b.add("QuantizeLinear", [b.add("MaxPool", [x], kernel_shape=[2, 2]), scale, zero])
    y = str(b.add("DequantizeLinear", [pool_codes, scale, zero]))
    again = str(b.add("DequantizeLinear", [pool_codes, scale, zero]))
    one_of = [str(x), codes, y, again, pool_codes, str(b.add("Identity", [y])), str(b.add("Identity", [x]))]
    picked = random.permutation(one_of)[: random.integers(2, 6)].tolist()
    picked = picked if set(picked) & {y, again, pool_codes} else [*picked, y]
    return b.finish(picked), picked


@pytest.mark.parametrize("seed", range(30))
def test_every_output_keeps_its_own_name_and_order(seed):
    model, picked = shared_outputs(Builder(Seeded(seed)), seed)
    options = OPTIONS[seed % len(OPTIONS)]
    assert convert(model.proto, options).graph.outputs == tuple(picked)
    assert apart(model.proto, model.inputs, Options(layout=options.layout)) == 0
