"""What a cell is worth, and which entries of the catalogue explain it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bridge.exact.graph import Node
from compare.mismatches.parts.files import activation, tflite_of
from compare.report.records.versions import NOT_FINITE
from compare.subjects.model import Form
from compare.versions import judging
from tests.compare.report.pages.versions.records import ran


def form(expected: np.ndarray, lsb: float) -> Form:
    return Form(Path("model.onnx"), expected, lsb, onnx=True, inputs={}, calibration={}, kind="qdq")


@pytest.mark.parametrize(
    ("runs", "spread", "expected"),
    [
        ((ran("a"), ran("b")), 0.0, "clean"),
        ((ran("a", changed=10), ran("b")), 1.0, "clean"),
        ((ran("a"), ran("b")), 2.0, "differs"),
        ((ran("a"), ran("b", None, None, "says no")), 0.0, "refused"),
        ((ran("a", changed=11), ran("b", None, None, "says no")), 0.0, "loses"),
        ((ran("a"), ran("b", None, None, NOT_FINITE)), 0.0, "loses"),
    ],
)
def test_the_worst_that_is_seen_is_the_status(runs, spread: float, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert judging.status(True, runs, spread, samples=1000, max_changed=0.01) == expected


def test_what_was_not_made_failed() -> None:
    assert judging.status(False, (), 0.0, 1000, 0.01) == "failed"


def test_one_file_on_one_runtime_in_figures() -> None:
    outputs = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    expected = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    found = judging.run_record("r", outputs, form(expected, 0.25), outputs + np.float32(0.5), 0.75)
    assert found.accuracy == 0.75
    assert found.changed == 1
    assert found.max_lsb == 2.0


def test_without_a_reference_the_network_is_what_the_distance_is_from() -> None:
    outputs, expected = np.array([[1.0, 0.0]], np.float32), np.array([[1.0, 0.5]], np.float32)
    assert judging.run_record("r", outputs, form(expected, 0.5), None, None).max_lsb == 1.0


def test_where_outputs_are_no_classes_more_than_one_lsb_is_a_change() -> None:
    expected = np.zeros((2, 4), np.float32)
    outputs = expected + np.array([[0, 0, 0, 1], [0, 0, 0, 1.5]], np.float32)
    picture = replace(form(expected, 1.0), output_shapes=((1, 2, 2),))
    assert judging.run_record("r", outputs, picture, None, None).changed == 1


@pytest.mark.parametrize(
    ("shapes", "classifies"), [((), True), (((10,),), True), (((1,),), False), (((10,), (10,)), False)]
)
def test_one_number_is_no_choice_between_classes(shapes, classifies: bool) -> None:  # type: ignore[no-untyped-def]
    one = replace(form(np.zeros((2, 1), np.float32), 1.0), output_shapes=shapes)
    assert one.classifies is classifies


ERRORS = {
    "M23": "ValueError: `to_quantize` can only either be a keras Sequential or Functional model.",
    "M36": "ValueError: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of this builtin",
    "M63": "model.cc:179 Unsupported model IR version: 10, max supported IR version: 9",
    "M64": "AttributeError: module 'ml_dtypes' has no attribute 'float4_e2m1fn'",
    "M65": "ImportError: cannot import name 'mapping' from 'onnx'",
    "M71": "AttributeError: _ARRAY_API not found",
}


@pytest.mark.parametrize("identity", ERRORS)
def test_an_error_is_explained_by_its_entry(identity: str) -> None:
    assert [each.id for each in judging.causes_of_failure(ERRORS[identity], {})] == [identity]


def test_packages_alone_explain_nothing() -> None:
    """TF-MOT without tf_keras is an entry of its own, but says nothing about this error."""
    packages = {"tensorflow": "2.19.0", "tensorflow-model-optimization": "0.8.1"}
    assert judging.causes_of_failure("OSError: No space left on device", packages) == ()


def test_an_error_nobody_knows_is_explained_by_nobody() -> None:
    assert judging.causes_of_failure("RuntimeError: the moon is in the wrong place", {"numpy": "1.26.4"}) == ()


def test_operators_have_their_versions_and_floats_are_counted() -> None:
    nodes = [Node("RELU", "relu", ("x",), ("y",))]
    content = tflite_of(nodes, [activation("x", (1, 4), 0.5), activation("y", (1, 4), 0.5)], ["x"], ["y"])
    versions, floating = judging.operators_of(content, "small")
    assert set(versions) == {"RELU"}
    assert floating == 0
    assert judging.output_step(content, "small", 9.0) == 0.5
