"""Files made to harm: each ends with code 0 or 2 and a sentence, within 2 s of work and 1 GB, whatever it asks for."""

from __future__ import annotations

import itertools
import os
import re
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.attributes import READ as TAKEN
from bridge.exact.budget import MAX_ELEMENTS, MAX_NODES
from tests.bridge.bounded import Ended, Server, server

WORK_SECONDS = 2.0
PEAK_MB = 1024


@pytest.fixture(scope="module")
def commands() -> Iterator[Server]:
    with server() as started:
        yield started


def ended_well(ended: Ended, *, work: float = WORK_SECONDS) -> None:
    """Code 0, or code 2 with one error of two lines; no traceback, no signal, no more work and memory than allowed."""
    assert ended.code in (0, 2), ended
    assert "Traceback" not in ended.stderr, ended
    if ended.code == 2:
        assert re.match(r"[^\n]+: [^\n]+\n  [^\n]+", ended.stderr), ended
    assert ended.seconds < work, ended
    assert ended.peak_mb < PEAK_MB, ended


# Models


def small(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: Sequence[int] = (1, 4),
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """input -> Q DQ -> `h`, the nodes, `t` -> Add to `h` -> Q DQ -> output: a model around what is to be tried."""
    made = {"s": np.float32(0.5), "z": np.int8(0), **(constants or {})}
    around = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["h"]),
        *nodes,
        helper.make_node("Add", ["h", "t"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "s", "z"], ["sum_q"]),
        helper.make_node("DequantizeLinear", ["sum_q", "s", "z"], ["output"]),
    ]
    graph = helper.make_graph(
        around,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None] * max(len(shape), 2))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in made.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def node(op: str, inputs: str, outputs: str = "t", **attrs: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def function(name: str, nodes: Sequence[onnx.NodeProto], domain: str = "my", opset: int = 17) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_function(domain, name, ["a"], ["b"], list(nodes), opsets)


def call(name: str, inputs: str, outputs: str) -> onnx.NodeProto:
    return node(name, inputs, outputs, domain="my")


def chain(levels: int, times: int) -> list[onnx.FunctionProto]:
    """F0 calls F1 `times` times, F1 calls F2, and so on: times ** levels nodes."""
    functions = [function(f"F{levels}", [node("Relu", "a", "b")])]
    for level in range(levels):
        names = ["a", *(f"x{i}" for i in range(times - 1)), "b"]
        calls = [call(f"F{level + 1}", one, other) for one, other in itertools.pairwise(names)]
        functions.append(function(f"F{level}", calls))
    return functions


def doubling(op: str, levels: int, first: str, **attrs: object) -> list[onnx.NodeProto]:
    names = [first, *(f"d{i}" for i in range(levels - 1)), "t"]
    return [node(op, f"{a} {a}", b, **attrs) for a, b in itertools.pairwise(names)]


def with_attribute(made: onnx.NodeProto, name: str, value: object) -> onnx.NodeProto:
    made.attribute.append(helper.make_attribute(name, value))
    return made


def named_twice(kind: str) -> onnx.ModelProto:
    model = small([node("Relu", "h")])
    graph = model.graph
    if kind == "initializer":
        graph.initializer.append(numpy_helper.from_array(np.float32(9), "s"))
    elif kind == "node output":
        graph.node.insert(3, node("Neg", "h"))
    elif kind == "input":
        graph.input.append(graph.input[0])
    elif kind == "output":
        graph.output.append(graph.output[0])
    elif kind == "input is output":
        graph.output[0].name = "input"
    elif kind == "node writes input":
        graph.node.insert(0, node("Relu", "s", "input"))
    elif kind == "node writes initializer":
        graph.node.insert(3, node("Relu", "h", "z"))
    elif kind == "constant node and initializer":
        graph.node.insert(0, node("Constant", "", "s", value_float=9.0))
        del graph.node[0].input[:]
    elif kind == "sparse and dense":
        graph.sparse_initializer.append(sparse("s", [1.0], [[0]], [1]))
    return model


NAMED_TWICE = (
    "initializer", "node output", "input", "output", "node writes input", "node writes initializer",
    "constant node and initializer", "sparse and dense",
)  # fmt: skip


def sparse(name: str, values: Sequence[float], indices: object, dims: Sequence[int]) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=dims)
    made.values.CopyFrom(numpy_helper.from_array(np.array(values, np.float32), name))
    made.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64), ""))
    return made


def with_sparse(values: Sequence[float], indices: object, dims: Sequence[int]) -> onnx.ModelProto:
    model = small([node("Identity", "k")])
    model.graph.sparse_initializer.append(sparse("k", values, indices, dims))
    return model


def without_data(dims: Sequence[int], data_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = small([node("Identity", "k")])
    model.graph.initializer.add(name="k", data_type=data_type, dims=dims)
    return model


def many(count: int) -> onnx.ModelProto:
    one = node("Relu", "h")
    model = small([one])
    serialized = one.SerializeToString()
    del one
    model.graph.node.extend(onnx.NodeProto.FromString(serialized) for _ in range(count))
    return model


BIG = 2**20
BOMBS: dict[str, Callable[[], onnx.ModelProto]] = {
    "expand": lambda: small([node("Expand", "o e", "x"), node("Slice", "x b c")],
                            {"o": np.float32(1), "e": ints(50000, 50000), "b": ints(0, 0), "c": ints(1, 1)}),
    "expand of an activation": lambda: small([node("Expand", "h e")], {"e": ints(BIG, BIG, 1, 4)}),
    "range": lambda: small([node("Range", "b e d", "x"), node("Slice", "x u v", "y"), node("Cast", "y", to=1)],
                           {"b": np.int64(0), "e": np.int64(2**40), "d": np.int64(1), "u": ints(0), "v": ints(1)}),
    "range without end": lambda: small([node("Range", "b e d")],
                                       {"b": np.float32(0), "e": np.float32(np.inf), "d": np.float32(1)}),
    "range without step": lambda: small([node("Range", "b e d")],
                                        {"b": np.float32(0), "e": np.float32(9), "d": np.float32(0)}),
    "range of a tiny step": lambda: small([node("Range", "b e d")],
                                          {"b": np.float32(0), "e": np.float32(1), "d": np.float32(1e-30)}, shape=(1, 1)),
    "constant of shape": lambda: small([node("ConstantOfShape", "e")], {"e": ints(2**15, 2**15, 4)}),
    "many constants of shape": lambda: small(
        [*(node("ConstantOfShape", "e", f"k{i}") for i in range(64)), node("Max", " ".join(f"k{i}" for i in range(64)))],
        {"e": ints(2**13, 2**10)}, shape=(1, 1)),
    "doubling concat of constants": lambda: small(doubling("Concat", 40, "k", axis=0), {"k": np.ones((1, 4), np.float32)}),
    "doubling concat of activations": lambda: small(doubling("Concat", 60, "h", axis=0)),
    "doubling concat of shapes": lambda: small([*doubling("Concat", 40, "k", axis=0)[:-1],
                                                node("ConstantOfShape", "d38")], {"k": ints(1, 1)}),
    "doubling concat of a shape": lambda: small([node("Shape", "h", "k"), *doubling("Concat", 30, "k", axis=0)[:-1],
                                                 node("Gather", "d28 i", "g"), node("Expand", "h g")], {"i": ints(0)}),
    "outer product": lambda: small([node("Mul", "a b")], {"a": np.ones((BIG, 1), np.float32), "b": np.ones(BIG, np.float32)}),
    "outer products in a row": lambda: small(
        [node("Mul", "a b", "x0"), *(node("Mul", f"x{i} a", f"x{i + 1}") for i in range(40)), node("Identity", "x40")],
        {"a": np.ones((2**12, 1), np.float32), "b": np.ones(2**12, np.float32)}, shape=(1, 1)),
    "outer product of activations": lambda: small(
        [node("MatMul", "h y")], {"y": np.ones((1, 2**14), np.float32)}, shape=(BIG, 1)),
    "outer product of whole numbers": lambda: small(
        [node("Mul", "a b", "x"), node("Cast", "x", to=1)],
        {"a": np.ones((2**12, 1), np.int64), "b": np.ones(2**12, np.int64)}, shape=(1, 1)),
    "where": lambda: small([node("Where", "c a b")], {"c": np.ones((2**12, 1, 1), bool),
                                                     "a": np.ones((2**12, 1), np.float32), "b": np.ones(2**12, np.float32)}),
    "gather": lambda: small([node("Gather", "a i")], {"a": np.ones((1, 2**16), np.float32), "i": np.zeros(2**16, np.int64)}),
    "tile": lambda: small([node("Tile", "h e")], {"e": ints(2**30, 2**30)}),
    "pad": lambda: small([node("Pad", "h e")], {"e": ints(0, 0, 2**20, 2**20)}),
    "reshape": lambda: small([node("Reshape", "h e")], {"e": ints(*[1] * 4000, 4)}),
    "unsqueeze": lambda: small([node("Unsqueeze", "h e")], {"e": ints(*range(1000))}),
    "resize": lambda: small([helper.make_node("Resize", ["h", "", "e"], ["t"])], {"e": np.array([2e4, 2e4, 1e4, 1e4], np.float32)}, shape=(1, 1, 4, 4)),
    "a huge input": lambda: small([node("Relu", "h")], shape=(2**31 - 1, 2**31 - 1)),
    "an input of many axes": lambda: small([node("Relu", "h")], shape=[1] * 100),
    "one hot": lambda: small([node("OneHot", "i d v")], {"i": ints(1), "d": np.int64(2**40), "v": np.ones(2, np.float32)}),
    "split in many": lambda: small([with_attribute(node("Split", "h", "t u"), "num_outputs", 2**62)], opset=18),
    "an initializer without data": lambda: without_data([2**20, 2**20]),
    "an empty initializer of huge axes": lambda: without_data([0, 2**62, 2**62]),
    "an initializer of negative axes": lambda: without_data([-1]),
    "an initializer of int4 without data": lambda: without_data([2**40], TensorProto.INT4),
    "sparse, huge": lambda: with_sparse([1.0], [5], [2**40]),
    "a million nodes": lambda: many(10**6),
    "one function calls itself": lambda: small([call("F", "h", "t")], functions=[function("F", [call("F", "a", "b")])]),
    "two functions call each other": lambda: small([call("F", "h", "t")], functions=[
        function("F", [call("G", "a", "b")]), function("G", [call("F", "a", "b")])]),
    "functions that double": lambda: small([call("F0", "h", "t")], functions=chain(60, 2)),
    "functions that square": lambda: small([call("F0", "h", "t")], functions=chain(3, 200)),
    "a chain of functions": lambda: small([call("F0", "h", "t")], functions=chain(20000, 1)),
    "a function in the place of an operator": lambda: small([node("Relu", "h")], functions=[
        function("Relu", [node("LeakyRelu", "a", "b", alpha=0.5)], domain="")]),
    "a function in the place of an operator, ai.onnx": lambda: small([node("Relu", "h")], functions=[
        function("Relu", [node("LeakyRelu", "a", "b", alpha=0.5)], domain="ai.onnx")]),
    "a function in the place of an operator, called by a function": lambda: small([call("F", "h", "t")], functions=[
        function("F", [node("Relu", "a", "b")]), function("Relu", [node("Neg", "a", "b")], domain="")]),
    "a function of another opset": lambda: small([call("F", "h", "t")], functions=[
        function("F", [node("Relu", "a", "b")], opset=13)]),
    "a function twice": lambda: small([call("F", "h", "t")], functions=[function("F", [node("Relu", "a", "b")])] * 2),
    "a function called with too much": lambda: small([call("F", "h h", "t u")], functions=[
        function("F", [node("Relu", "a", "b")])]),
    "text": lambda: small([with_attribute(helper.make_node("Constant", [], ["t"]), "value_string", "no number")]),
    "texts": lambda: small([with_attribute(helper.make_node("Constant", [], ["t"]), "value_strings", ["a", "b"])]),
    "a tensor of text": lambda: small([node("Identity", "k")], {"k": np.array(["a"], object)}),
    "a sparse tensor of text": lambda: small([with_attribute(
        helper.make_node("Constant", [], ["t"]), "sparse_value", sparse("k", [1.0], [7], [4]))]),
    "a graph inside": lambda: small([node("If", "k", then_branch=small([node("Relu", "h")]).graph,
                                          else_branch=small([node("Relu", "h")]).graph)], {"k": np.array(True)}),
    "a name of a million letters": lambda: small([helper.make_node("Erf", ["h"], ["t"], name="n" * 10**6)]),
    "an attribute of nobody": lambda: small([node("Relu", "h"), helper.make_node("Constant", [], ["c"])]),
    "cast of a number to nothing": lambda: small([node("Cast", "h", to=999)]),
    "gather of a far axis": lambda: small([node("Gather", "k i", axis=2**40)], {"k": np.ones(4, np.float32), "i": ints(0)}),
    "integer division by zero": lambda: small([node("Div", "a b", "x"), node("Cast", "x", to=1)], {"a": ints(1), "b": ints(0)}),
    "integer power": lambda: small([node("Pow", "a b", "x"), node("Cast", "x", to=1)], {"a": ints(2**62), "b": ints(-2**62)}),
}  # fmt: skip


LONG_LISTS = (
    ("Slice", 3, 7), ("Reshape", 1, 7), ("Expand", 1, 7), ("ConstantOfShape", 0, 7), ("Unsqueeze", 1, 7), ("Squeeze", 1, 7),
    ("Pad", 1, 7), ("Split", 1, 7), ("ReduceMean", 1, 7), ("Resize", 1, 1), ("Resize", 2, 1), ("Resize", 3, 7),
)  # fmt: skip
"""(operator, the operand that is a list, its element type)"""


@pytest.mark.parametrize(("op", "place", "elem_type"), LONG_LISTS)
def test_a_list_of_millions_that_the_file_computes_is_refused_at_once(op, place, elem_type, commands, tmp_path):
    operands = ["h", *(["e"] * (place - 1) if op == "Slice" else [""] * (place - 1)), "long"] if place else ["long"]
    path = tmp_path / "list.onnx"
    path.write_bytes(
        small(
            [
                node("ConstantOfShape", "n", "zeros"),
                node("Cast", "zeros", "long", to=elem_type),
                helper.make_node(op, operands, ["t"]),
            ],
            {"n": ints(2**24), "e": ints(0)},
            opset=18,
        ).SerializeToString()
    )

    ended = commands.run(path, "-o", tmp_path / "out.tflite")

    ended_well(ended)
    assert ended.code == 2


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_with_a_sentence_and_at_once(name, commands, tmp_path):
    path = tmp_path / "bomb.onnx"
    path.write_bytes(BOMBS[name]().SerializeToString())

    ended = commands.run(path, "-o", tmp_path / "out.tflite")

    ended_well(ended, work=WORK_SECONDS + path.stat().st_size / 10e6)  # a file of megabytes is read first
    assert ended.code == 2
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize("kind", NAMED_TWICE)
def test_a_name_that_is_taken_twice_is_refused(kind, commands, tmp_path):
    (tmp_path / "m.onnx").write_bytes(named_twice(kind).SerializeToString())
    ended = commands.run(tmp_path / "m.onnx")
    ended_well(ended)
    assert ended.code == 2


def test_an_input_that_is_an_output_ends_well(commands, tmp_path):
    (tmp_path / "m.onnx").write_bytes(named_twice("input is output").SerializeToString())
    ended_well(commands.run(tmp_path / "m.onnx"))


def test_what_the_budget_allows_is_said_and_an_option_raises_it(commands, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(small([node("ConstantOfShape", "e", "k"), node("Slice", "k b c")],
                           {"e": ints(1, 4000), "b": ints(0, 0), "c": ints(1, 4)}).SerializeToString())  # fmt: skip
    refused, nodes = commands.run(path, "--max-elements", 3999), commands.run(path, "--max-nodes", 6)

    assert refused.code == nodes.code == 2
    assert "has 4,000 elements; 3,999 are allowed" in refused.stderr
    assert "--max-elements" in refused.stderr
    assert "has 7 operators; 6 are allowed" in nodes.stderr
    assert "--max-nodes" in nodes.stderr
    assert commands.run(path).code == commands.run(path, "--max-elements", 4000, "--max-nodes", 7).code == 0
    assert (MAX_ELEMENTS, MAX_NODES) == (2**26, 100_000)


@pytest.mark.parametrize("levels", [1, 5, 99])
def test_functions_that_end_are_written_out(levels, commands, tmp_path):
    (tmp_path / "m.onnx").write_bytes(small([call("F0", "h", "t")], functions=chain(levels, 1)).SerializeToString())
    ended = commands.run(tmp_path / "m.onnx")
    ended_well(ended)
    assert ended.code == 0, ended
    assert "Relu 1" in ended.stdout


@pytest.mark.parametrize(("values", "indices", "dims"), [([2.0], [[0, 1]], [1, 4]), ([2.0, -1.0], [1, 3], [1, 4])])
def test_a_sparse_constant_is_read(values, indices, dims, commands, tmp_path):
    (tmp_path / "m.onnx").write_bytes(with_sparse(values, indices, dims).SerializeToString())
    ended = commands.run(tmp_path / "m.onnx")
    ended_well(ended)
    assert ended.code == 0, ended


@pytest.mark.parametrize(
    ("values", "indices", "dims"),
    [([1.0], [4], [4]), ([1.0], [-1], [4]), ([1.0, 2.0], [1, 1], [4]), ([1.0], [[0, 4]], [1, 4]), ([1.0], [0, 1], [4]),
     ([1.0], [0], [-4]), ([1.0], [[0, -1]], [1, 4]), ([1.0], [[[0]]], [4])],
)  # fmt: skip
def test_a_sparse_constant_whose_indices_lie_outside_is_refused(values, indices, dims, commands, tmp_path):
    (tmp_path / "m.onnx").write_bytes(with_sparse(values, indices, dims).SerializeToString())
    ended = commands.run(tmp_path / "m.onnx")
    ended_well(ended)
    assert "sparse constant 'k'" in ended.stderr


# Every operator taken, on operands of every rank, with attributes that make no sense


ODD = [0, 1, 2, 3, -1, -2, 7, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63)]


def odd_model(op: str, random: np.random.Generator) -> onnx.ModelProto:
    """One operator of the table with 0 to 6 axes for each operand, constant or not, and odd attributes."""
    opset = int(random.choice([opset for opset in (13, 17, 19, 21) if onnx.defs.has(op, opset, "")]))
    schema = onnx.defs.get_schema(op, opset)
    constants: dict[str, np.ndarray] = {}
    names: list[str] = []
    for place in range(int(random.integers(max(schema.min_input, 1), max(min(schema.max_input, 5), 1) + 1))):
        shape = [int(random.choice([0, 1, 2, 3])) for _ in range(int(random.integers(0, 7)))]
        allowed = [each for each in ("float", "int64", "bool", "int8")
                   if f"tensor({each})" in schema.inputs[min(place, len(schema.inputs) - 1)].types]  # fmt: skip
        if (place == 0 and random.random() < 0.6) or not allowed:
            names.append("h")
            continue
        kind = {"float": np.float32, "int64": np.int64, "bool": bool, "int8": np.int8}[str(random.choice(allowed))]
        constants[f"k{place}"] = random.choice([0, 1, 2, 3, -1, 100], shape).astype(kind)
        names.append(f"k{place}")
    made = helper.make_node(op, names, ["t", *(f"u{i}" for i in range(int(random.integers(0, 2))))])
    for name, attribute in schema.attributes.items():
        if attribute.required or random.random() < 0.5:
            value = odd_value(attribute.type, random)
            if value is not None:
                made.attribute.append(helper.make_attribute(name, value, attr_type=int(attribute.type)))
    shape = [int(size) for size in random.choice([1, 2, 3], random.integers(0, 7))]
    return small([made], constants, shape=shape, opset=opset)


def odd_value(kind: object, random: np.random.Generator) -> object:
    kinds = onnx.defs.OpSchema.AttrType
    numbers = [ODD[int(i)] for i in random.integers(0, len(ODD), random.integers(0, 7))]
    if kind == kinds.INT:
        return ODD[int(random.integers(len(ODD)))]
    if kind == kinds.INTS:
        return numbers
    if kind == kinds.FLOAT:
        return float(random.choice([0.0, 1.0, -1.0, np.nan, np.inf]))
    if kind == kinds.FLOATS:
        return [float(number) for number in numbers]
    if kind == kinds.STRING:
        return str(random.choice(["", "NOTSET", "VALID", "SAME_UPPER", "linear", "nearest", "reflect", "x\x1b[2J"]))
    if kind == kinds.TENSOR:
        return numpy_helper.from_array(np.zeros(int(random.choice([0, 1, 3])), np.float32))
    return None


@pytest.mark.parametrize("op", sorted(op for op in TAKEN if onnx.defs.has(op, 21, "") and op != "Constant"))
def test_an_operator_of_any_ranks_and_attributes_ends_well(op, commands, tmp_path):
    random = np.random.default_rng(sum(op.encode()))
    for case in range(6):
        model = odd_model(op, random)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        ended = commands.run(tmp_path / "m.onnx")
        try:
            ended_well(ended)
        except AssertionError:
            pytest.fail(f"case {case}: {ended}\n{onnx.printer.to_text(model)[:2000]}")


@pytest.mark.parametrize("rank", range(5))
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_convolution_whose_weight_has_another_rank_never_reaches_onnx(op, rank, commands, tmp_path):
    model = small([node(op, "h w")], {"w": np.ones((2, 2, 1, 1, 1)[:rank], np.float32)}, shape=(1, 2, 4, 4))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    ended = commands.run(tmp_path / "m.onnx", "--allow-float")
    ended_well(ended)
    assert ended.code == (0 if rank == 4 else 2)


# Damaged bytes


def test_changed_bytes_end_well(commands, tmp_path):
    whole = small(
        [node("MatMul", "h w", "x"), node("Relu", "x")], {"w": np.eye(4, dtype=np.float32)}
    ).SerializeToString()
    random = np.random.default_rng(6)
    for case in range(200):
        content = bytearray(whole)
        for _ in range(int(random.integers(1, 6))):
            at = int(random.integers(len(content)))
            what = random.integers(4)
            if what == 0:
                content[at] = int(random.integers(256))
            elif what == 1:
                content[at] ^= 1 << int(random.integers(8))
            elif what == 2:
                del content[at : at + int(random.integers(1, 9))]
            else:
                content[at:at] = random.bytes(int(random.integers(1, 9)))
        (tmp_path / "m.onnx").write_bytes(content)
        ended = commands.run(tmp_path / "m.onnx")
        try:
            ended_well(ended)
        except AssertionError:
            pytest.fail(f"case {case}: {ended}")


# Paths


def test_what_is_no_file_is_no_model(commands, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), Path("/dev/null"), tmp_path):
            ended = commands.run(path, "-o", tmp_path / "out.tflite")
            ended_well(ended)
            assert ended.code == 2
            assert str(path) in ended.stderr


def test_a_file_that_is_too_large_for_protobuf_is_not_read(commands, tmp_path):
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)  # sparse on the disk
    ended = commands.run(tmp_path / "m.onnx")
    ended_well(ended)
    assert "one ONNX file holds at most" in ended.stderr


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(small([node("Relu", "h")]).SerializeToString())
    return path


def test_an_output_that_is_no_regular_file_is_kept(good, commands, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.tflite").mkdir()
    (tmp_path / "to device").symlink_to("/dev/null")
    (tmp_path / "to itself").symlink_to(tmp_path / "to itself")
    for name in ("pipe", "folder.tflite", "to device", "to itself", "/dev/null", "missing/out.tflite"):
        ended = commands.run(good, "-o", tmp_path / name)
        ended_well(ended)
        assert ended.code == 2, name
    assert (tmp_path / "pipe").is_fifo()
    assert Path("/dev/null").is_char_device()
    assert not list(tmp_path.glob("*.part*"))
    assert not list(tmp_path.glob(".*"))


def test_an_output_through_a_link_writes_the_file_that_it_leads_to(good, commands, tmp_path):
    (tmp_path / "real.tflite").write_bytes(b"old")
    (tmp_path / "real.tflite").chmod(0o640)
    (tmp_path / "link.tflite").symlink_to("real.tflite")
    (tmp_path / "dangling.tflite").symlink_to("new.tflite")
    for link, real in (("link.tflite", "real.tflite"), ("dangling.tflite", "new.tflite")):
        assert commands.run(good, "-o", tmp_path / link).code == 0
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / real).read_bytes()[4:8] == b"TFL3"
    assert (tmp_path / "real.tflite").stat().st_mode & 0o777 == 0o640


def test_what_the_command_reads_is_never_written(good, commands, tmp_path):
    model = onnx.load(good)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    onnx.save(model, good, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.savez(tmp_path / "inputs.npz", input=np.ones((1, 4), np.float32))
    (tmp_path / "hard.tflite").hardlink_to(good)
    (tmp_path / "soft.tflite").symlink_to(good)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("model.onnx", "hard.tflite", "soft.tflite", "inputs.npz", "weights.bin"):
        ended = commands.run(good, "-o", tmp_path / name, "--verify", tmp_path / "inputs.npz")
        ended_well(ended)
        assert "another file that this command reads" in ended.stderr, name
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Archives


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("input.npy", content)


def header(text: str) -> bytes:
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("latin1")


ARCHIVES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"no archive"),
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)),
    "a cut header": lambda path: archive(path, b"\x93NUMPY\x01\x00"),
    "no array": lambda path: archive(path, b"text"),
    "a header that claims terabytes": lambda path: archive(
        path, header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }")),
    "a header of negative size": lambda path: archive(path, header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }")),
    "a header that is code": lambda path: archive(path, header("__import__('os').system('true')")),
    "a header of another format": lambda path: archive(path, b"\x93NUMPY\x09\x09" + bytes(100)),
    "a pickle": lambda path: np.savez(path, input=np.array([{"a": 1}], object)),
    "a type of nobody": lambda path: archive(path, header("{'descr': 'x99', 'fortran_order': False, 'shape': (1,), }")),
    "a bomb": lambda path: archive(path, bytes(2**29), zipfile.ZIP_DEFLATED),
    "an npy that claims terabytes": lambda path: path.write_bytes(
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }")),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_one_sentence(name, good, commands, tmp_path):
    ARCHIVES[name](tmp_path / "inputs.npz")
    ended = commands.run(good, "--verify", tmp_path / "inputs.npz")
    ended_well(ended)
    assert ended.code == 2
    assert "is not a readable .npz archive of plain arrays" in ended.stderr


def test_changed_bytes_of_an_archive_end_well(good, commands, tmp_path):
    np.savez_compressed(tmp_path / "inputs.npz", input=np.arange(400, dtype=np.float32).reshape(100, 4))
    whole, random = (tmp_path / "inputs.npz").read_bytes(), np.random.default_rng(7)
    for case in range(60):
        content = bytearray(whole)
        for at in random.integers(0, len(content), random.integers(1, 4)):
            content[at] = int(random.integers(256))
        (tmp_path / "changed.npz").write_bytes(content[: len(content) - int(random.choice([0, 0, 5]))])
        ended = commands.run(good, "--verify", tmp_path / "changed.npz", "--max-elements", 1)
        assert ended.code == 2, (case, ended)
        assert "Traceback" not in ended.stderr, (case, ended)


def test_names_of_a_file_never_act_on_the_terminal(commands, tmp_path):
    evil = "\x1b]0;title\x07\x1b[2Jx\u202ey\x9b"
    for made in (node("Erf", "h"), node("Relu", "h")):
        made.name = evil
        model = small([made])
        model.graph.output[0].name = model.graph.node[-1].output[0] = evil
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        for options in ((), ("--notes",), ("--json",)):
            ended = commands.run(tmp_path / "m.onnx", *options)
            assert ended.code == (2 if made.op_type == "Erf" else 0), ended
            assert not set("\x1b\x07\x9b\u202e") & set(ended.stdout + ended.stderr)
