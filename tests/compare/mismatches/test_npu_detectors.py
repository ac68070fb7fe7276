"""What the entries on NPUs and runtimes say of cases that the generated tests do not make."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.graph import Node
from bridge.verifying import litert
from compare.mismatches import m35_dense_per_channel, m36_newer_operators, m38_float_borders, m70_scales_far_apart
from compare.mismatches.parts.files import activation, tflite_of
from compare.mismatches.parts.small_keras import converted, dense_only_network, images, refusal
from compare.subjects.case import Case


def dense_onnx(scales: int) -> bytes:
    """A Gemm whose weight has this many scales."""
    constants = [
        numpy_helper.from_array(np.ones((3, 4), np.int8), "w"),
        numpy_helper.from_array(np.full(scales, 0.1, np.float32).reshape(() if scales == 1 else (scales,)), "s"),
        numpy_helper.from_array(np.zeros(scales, np.int8).reshape(() if scales == 1 else (scales,)), "z"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["weight"], axis=0),
        helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph(nodes, "dense", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.mark.parametrize(("scales", "seen"), [(1, True), (3, False)])
def test_dense_scales_are_compared_with_the_onnx_model(scales, seen):
    file = m35_dense_per_channel.reproduce().tflite

    found = list(m35_dense_per_channel.detect(Case(onnx=dense_onnx(scales), tflite=file)))

    assert bool(found) == seen
    assert all("training had one" in sighting.fact for sighting in found)


def test_calibration_gives_a_dense_layer_that_tf_mot_trained_several_scales():
    file = converted(dense_only_network(), representative=images())

    found = list(m35_dense_per_channel.detect(Case(keras_model=dense_only_network(), tflite=file)))

    assert "has 3 scales; training had one" in found[0].fact


@pytest.mark.parametrize("packages", [None, {"ethos-u-vela": "5.2.0"}, {"ethos-u-vela": "4.2.0"}])
def test_dense_scales_are_no_mismatch_where_nothing_asks_for_one(packages):
    file = m35_dense_per_channel.reproduce().tflite

    assert not list(m35_dense_per_channel.detect(Case(tflite=file, packages=packages)))


def test_the_runtimes_own_message_names_operator_and_version():
    x, y = activation("x", (1, 4), 0.5), activation("y", (1, 4), 0.5)
    content = bytearray(tflite_of([Node("RELU", "relu", ("x",), ("y",))], [x, y], ["x"], ["y"]))
    from ai_edge_litert import schema_py_generated as schema

    table = schema.Model.GetRootAs(content, 0).OperatorCodes(0)._tab
    content[table.Pos + table.Offset(8)] = 99  # OperatorCode.version
    log = refusal(lambda: litert.as_users_make_it(bytes(content)))

    (found,) = m36_newer_operators.detect(Case(log=log))
    assert (found.where, found.fact) == ("operator RELU", "has version 99, which the runtime does not register")


@pytest.mark.parametrize(
    ("packages", "seen"),
    [
        ({"tflite-runtime": "2.14.0"}, True),
        ({"tensorflow": "2.15.0"}, True),
        ({"tensorflow": "2.17.0"}, False),
        ({"tensorflow": "2.15.0", "ai-edge-litert": "2.1.0"}, False),
        ({}, False),
    ],
)
def test_the_runtime_is_what_is_installed_to_run(packages, seen):
    file = m36_newer_operators.reproduce().tflite

    assert bool(list(m36_newer_operators.detect(Case(tflite=file, packages=packages)))) == seen


def test_floats_fed_to_an_integer_model():
    file = m38_float_borders.repair(m38_float_borders.reproduce()).tflite
    interpreter = litert.interpreter(file)
    index = interpreter.get_input_details()[0]["index"]
    log = refusal(lambda: interpreter.set_tensor(index, images()[:1]))

    (found,) = m38_float_borders.detect(Case(tflite=file, log=log))
    assert "Got value of type FLOAT32 but expected type INT8" in found.fact
    assert "zero point -128" in found.fact


def test_the_edge_tpu_compilers_refusal():
    log = "ERROR: Invalid model: model.tflite\nModel not quantized"
    broken = m38_float_borders.reproduce()

    assert [each.sure for each in m38_float_borders.detect(Case(tflite=broken.tflite, log=log))] == [True]
    assert not list(m38_float_borders.detect(Case(tflite=m38_float_borders.repair(broken).tflite, log=log)))


@pytest.mark.parametrize(("op", "exponent", "seen"), [
    ("ADD", 7, False), ("ADD", 8, True), ("MUL", 8, True), ("SUB", 12, False), ("SUB", 19, True),
])  # fmt: skip
def test_the_limit_is_the_operators_own(op, exponent, seen):
    a, b, y = (activation(name, (1, 4), scale) for name, scale in (("a", 1.0), ("b", 1.0), ("y", 2.0**-exponent)))
    node = Node(op, op, ("a", "b"), ("y",), {"fused_activation": "NONE"})

    found = list(m70_scales_far_apart.detect(Case(tflite=tflite_of([node], [a, b, y], ["a", "b"], ["y"]))))

    assert bool(found) == seen
