"""QUANTIZE operators put into a .tflite and taken out of it, by the entries that repair so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.graph import Node
from bridge.verifying.litert import KERNELS, Runner
from compare.mismatches import (
    m33_same_scale,
    m35_dense_per_channel,
    m38_float_borders,
    m67_fixed_scales,
    m68_rescaling_pools,
    m69_concatenated_scales,
)
from compare.mismatches.parts.files import activation, codes, shape_of, tflite_of
from compare.mismatches.parts.small_keras import images, real_outputs
from compare.subjects.case import Case


def test_what_copies_codes_that_have_a_scale_for_each_channel_is_seen_and_left_as_it_is():
    weight = codes("w", np.ones((2, 3)), [0.5, 0.25], axis=0)
    cut = [shape_of("begin", activation("", (0, 0), 1.0)), shape_of("size", activation("", (1, 3), 1.0))]
    node = Node("SLICE", "slice", ("w", "begin", "size"), ("y",))
    case = Case(tflite=tflite_of([node], [weight, *cut, activation("y", (1, 3), 0.5)], [], ["y"]))

    assert [sighting.where for sighting in m33_same_scale.detect(case)] == ["SLICE, tensor 'y'"]
    assert m33_same_scale.repair(case).file.graph.tensors["y"].q == case.file.graph.tensors["y"].q


def test_the_parts_of_a_split_take_the_scale_of_what_is_split_although_its_first_input_is_the_axis():
    axis = shape_of("axis", activation("", (1,), 1.0))
    tensors = [axis, activation("x", (1, 4), 0.5), activation("a", (1, 2), 0.5), activation("b", (1, 2), 0.75)]
    node = Node("SPLIT", "split", ("axis", "x"), ("a", "b"), {"num_splits": 2})
    case = Case(tflite=tflite_of([node], tensors, ["x"], ["a", "b"]))

    assert [sighting.where for sighting in m33_same_scale.detect(case)] == ["SPLIT, tensor 'b'"]
    assert not list(m33_same_scale.detect(m33_same_scale.repair(case)))


@pytest.mark.parametrize("kernels", KERNELS)
def test_two_concatenations_in_a_row_with_one_branch_read_twice(kernels):
    sizes = {"a": (4, 0.5), "b": (4, 0.25), "y": (8, 0.5), "z": (12, 1.0)}
    tensors = [activation(name, (1, size), scale) for name, (size, scale) in sizes.items()]
    nodes = [
        Node("CONCATENATION", "first", ("b", "b"), ("y",), {"axis": 1}),
        Node("CONCATENATION", "second", ("a", "y"), ("z",), {"axis": 1}),
    ]

    repaired = m69_concatenated_scales.repair(Case(tflite=tflite_of(nodes, tensors, ["a", "b"], ["z"])))

    assert repaired.log == ""
    fed = {"a": np.array([[4, 8, 12, 16]], np.int8), "b": np.array([[8, 16, 24, 32]], np.int8)}
    assert Runner(repaired.tflite, kernels)(fed)["z"].tolist() == [[2, 4, 6, 8, 2, 4, 6, 8, 2, 4, 6, 8]]


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_constant_branch_of_a_concatenation_is_rescaled_too(kernels):
    constant = codes("b", [[2, 4, 6, 8]], 0.25)
    tensors = [activation("a", (1, 4), 0.5), constant, activation("y", (1, 8), 0.5)]
    node = Node("CONCATENATION", "cat", ("a", "b"), ("y",), {"axis": 1})

    repaired = m69_concatenated_scales.repair(Case(tflite=tflite_of([node], tensors, ["a"], ["y"])))

    found = Runner(repaired.tflite, kernels)({"a": np.array([[1, 2, 3, 4]], np.int8)})["y"]
    assert found.tolist() == [[1, 2, 3, 4, 1, 2, 3, 4]]


@pytest.mark.parametrize("kernels", KERNELS)
def test_uint8_concatenation_rescales_by_itself_and_is_not_reported(kernels):
    tensors = [activation(name, (1, size), scale, 128, np.uint8) for name, size, scale in
               (("a", 2, 0.5), ("b", 2, 0.25), ("y", 4, 0.5))]  # fmt: skip
    content = tflite_of([Node("CONCATENATION", "cat", ("a", "b"), ("y",), {"axis": 1})], tensors, ["a", "b"], ["y"])

    assert not list(m69_concatenated_scales.detect(Case(tflite=content)))
    fed = {"a": np.array([[128, 130]], np.uint8), "b": np.array([[128, 132]], np.uint8)}
    assert Runner(content, kernels)(fed)["y"].tolist() == [[128, 130, 128, 130]]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_a_repaired_activation_gives_the_same_real_numbers_as_the_function(op, kernels):
    x, y = activation("x", (1, 256), 0.05), activation("y", (1, 256), 1 / 64, 10)
    case = Case(tflite=tflite_of([Node(op, op, ("x",), ("y",))], [x, y], ["x"], ["y"]))

    assert [sighting.sure for sighting in m67_fixed_scales.detect(case)] == [op == "LOGISTIC"]
    repaired = m67_fixed_scales.repair(case)

    fed = np.arange(-128, 128).astype(np.int8)[None]
    real = 0.05 * fed.astype(np.float64)
    expected = np.tanh(real) if op == "TANH" else 1 / (1 + np.exp(-real))
    found = (Runner(repaired.tflite, kernels)({"x": fed})["y"].astype(np.float64) - 10) / 64
    assert np.abs(found - expected).max() <= 1.01 / 64  # half a step, and the half step of the finer scale before


def test_what_litert_does_with_other_scales_is_as_recorded():
    def refused(op, scale, zero_point):
        x, y = activation("x", (1, 8), 0.05), activation("y", (1, 8), scale, zero_point)
        attrs = {"beta": 1.0} if op == "SOFTMAX" else {}
        content = tflite_of([Node(op, op, ("x",), ("y",), attrs)], [x, y], ["x"], ["y"])
        return [line.partition(":")[0] for line in m67_fixed_scales.refusals(content).splitlines()]

    assert refused("SOFTMAX", 1 / 255, -128) == refused("SOFTMAX", 1 / 256, 0) == ["xnnpack", "reference"]
    assert refused("LOGISTIC", 1 / 255, -128) == ["reference"]
    assert refused("LOGISTIC", 1 / 256, 0) == refused("TANH", 1 / 255, -128) == []


@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_a_repaired_pool_rescales(op):
    x, y = activation("x", (1, 4, 4, 1), 0.5, 3), activation("y", (1, 2, 2, 1), 0.25, -3)
    window = {"stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    node = Node(op, "pool", ("x",), ("y",), {"padding": "VALID", "fused_activation": "NONE", **window})
    case = Case(tflite=tflite_of([node], [x, y], ["x"], ["y"]))

    repaired = m68_rescaling_pools.repair(case)

    for kernels in KERNELS:
        found = Runner(repaired.tflite, kernels)({"x": np.full((1, 4, 4, 1), 13, np.int8)})["y"]
        assert found.tolist() == [[[[17], [17]], [[17], [17]]]]  # 5.0 at the output's scale


def test_without_float_borders_a_model_computes_the_same():
    broken = m38_float_borders.reproduce()
    repaired = m38_float_borders.repair(broken)

    np.testing.assert_array_equal(real_outputs(broken.tflite, images()), real_outputs(repaired.tflite, images()))
    assert Runner(repaired.tflite, "reference")._interpreter.get_signature_list()


def test_float_borders_alone_are_no_mismatch():
    assert not list(m38_float_borders.detect(replace(m38_float_borders.reproduce(), packages=None)))


def test_a_dense_layer_with_one_scale_stays_close():
    broken = m35_dense_per_channel.reproduce()
    before, after = (real_outputs(case.tflite, images()) for case in (broken, m35_dense_per_channel.repair(broken)))

    assert np.abs(before - after).max() <= 0.05 * np.abs(before).max()
