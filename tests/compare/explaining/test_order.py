"""Right files that list inputs and outputs in another order than their models, as TensorFlow's converter writes them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bridge.exact.convert import convert
from compare.explaining.verdict import judge
from compare.subjects.case import Case
from compare.testing import assert_bridge_exact, assert_no_mismatch
from compare.tflite.unpacked import packed, unpacked

RANDOM = np.random.default_rng(0)
INPUTS = {name: RANDOM.uniform(-1, 1, (5, 6)).astype(np.float32) for name in ("left", "right")}
NAMES = {
    "kept": {},
    "tensorflow's": {
        "left": "serving_default_left:0", "right": "serving_default_right:0", "first": "PartitionedCall:0",
        "second": "PartitionedCall:1",
    },
}  # fmt: skip


def two_branches() -> ModelProto:
    """left and right of one shape, each times its own weights: first and second of one shape."""
    nodes, constants = [], [helper.make_tensor("z", TensorProto.INT8, [], [0])]

    def pair(x: str, y: str, scale: float) -> None:
        constants.append(helper.make_tensor(f"{y}_s", TensorProto.FLOAT, [], [scale]))
        nodes.append(helper.make_node("QuantizeLinear", [x, f"{y}_s", "z"], [f"{y}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{y}_q", f"{y}_s", "z"], [y]))

    for place, (x, y) in enumerate((("left", "first"), ("right", "second"))):
        weight = np.random.default_rng(place).integers(-127, 128, (4, 6)).astype(np.int8)
        constants += [
            numpy_helper.from_array(weight, f"{x}_w"), helper.make_tensor(f"{x}_ws", TensorProto.FLOAT, [], [0.00973]),
            helper.make_tensor(f"{x}_b", TensorProto.FLOAT, [4], [0.0] * 4),
        ]  # fmt: skip
        pair(x, f"{x}_d", 0.01013 + 0.0021 * place)
        nodes.append(helper.make_node("DequantizeLinear", [f"{x}_w", f"{x}_ws", "z"], [f"{x}_wd"]))
        nodes.append(helper.make_node("Gemm", [f"{x}_d", f"{x}_wd", f"{x}_b"], [f"{x}_g"], transB=1))
        pair(f"{x}_g", y, 0.05171 + 0.00917 * place)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "two", [value(name, TensorProto.FLOAT, [1, 6]) for name in INPUTS],
        [value(name, TensorProto.FLOAT, [1, 4]) for name in ("first", "second")], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def turned(content: bytes, names: dict[str, str]) -> bytes:
    """Inputs and outputs listed the other way round, and called so."""
    model = unpacked(content)
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        tensor.name = names.get(tensor.name.decode(), tensor.name.decode()).encode()
    graph.inputs, graph.outputs = list(graph.inputs)[::-1], list(graph.outputs)[::-1]
    model.signatureDefs = []
    return packed(model)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    path = tmp_path_factory.mktemp("two") / "two.onnx"
    path.write_bytes(two_branches().SerializeToString())
    return path.read_bytes(), convert(path).tflite


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_it_is_a_right_file(files: tuple[bytes, bytes], names: dict[str, str]) -> None:
    onnx, tflite = files[0], turned(files[1], names)
    assert_bridge_exact(onnx, tflite, INPUTS, max_lsb=0)
    assert_no_mismatch(onnx, tflite, INPUTS)
    verdict = judge(Case(onnx=onnx, tflite=tflite, inputs=INPUTS))
    assert not verdict.fails
    assert max(layer.max_lsb for layer in verdict.traced.layers) <= 0.01  # type: ignore[union-attr]


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_one_whose_outputs_are_really_swapped_is_not(files: tuple[bytes, bytes], names: dict[str, str]) -> None:
    onnx, other = files[0], names or {"first": "first", "second": "second"}
    swapped = dict(other, first=other["second"], second=other["first"])
    with pytest.raises(AssertionError):
        assert_bridge_exact(onnx, turned(files[1], swapped), INPUTS, max_lsb=1)
