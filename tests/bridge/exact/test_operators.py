"""The records of operators: complete, without doubles or contradictions, and true of what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bridge.exact import operators
from bridge.exact.graph import per_tensor
from bridge.exact.lowering import LOWERINGS
from bridge.exact.operators import OPERATORS
from bridge.exact.operators.record import Axes, Operator, Output, Spelling
from bridge.exact.passes.fold import _FOLDERS
from bridge.exact.passes.layout import _RULES
from bridge.exact.passes.normalize import _NORMALIZERS
from bridge.exact.schema import OPERATORS as ROWS
from bridge.verifying import onnx_runtime

WRITTEN = [name for name, operator in OPERATORS.items() if operator.becomes]
ONE_OPERAND = [
    name
    for name in WRITTEN
    if OPERATORS[name].reads and onnx.defs.get_schema(name, 17, "").max_input == 1  # and so at least one
]


def test_what_a_record_says_it_becomes_has_a_lowering_and_nothing_else_has():
    assert set(LOWERINGS) == set(WRITTEN), "bridge/exact/operators (becomes) and bridge/exact/lowering disagree"


@pytest.mark.parametrize("name", WRITTEN)
def test_what_an_operator_becomes_has_a_row(name):
    assert set(OPERATORS[name].becomes) <= set(ROWS), "add it to bridge/exact/schema.py"


@pytest.mark.parametrize("name", WRITTEN)
def test_the_page_says_what_an_operator_becomes(name):
    """docs/operators.md is written from the docstrings of the lowerings."""
    said = LOWERINGS[name].__doc__ or ""
    assert [row for row in OPERATORS[name].becomes if row not in said] == []


def test_every_row_is_what_some_operator_becomes():
    """Or what a lowering puts around it: the kernel that cuts out of a transposed convolution."""
    become = {row for operator in OPERATORS.values() for row in operator.becomes}
    assert set(ROWS) - become == {"SLICE"}


def test_what_is_read_and_not_written_is_computed_from_constants():
    computed = {name for name, operator in OPERATORS.items() if operator.reads and not operator.is_written}
    assert computed <= set(_FOLDERS) | {"Shape"}


def test_what_is_computed_from_constants_is_read():
    assert set(_FOLDERS) <= operators.named(lambda each: each.reads)


def test_every_record_can_be_read_or_is_made_by_a_pass():
    made = operators.named(lambda each: not each.reads)
    assert made == {"Limit", "Clamp", "ChannelAffine", "Mean", "Quantize", "Dequantize"}


def test_every_way_of_storing_and_every_spelling_has_its_function():
    assert set(_RULES) == set(Axes)
    assert set(_NORMALIZERS) == {None, *Spelling}


def test_two_records_of_one_operator_are_our_defect():
    with pytest.raises(AssertionError, match="two records of Erf"):
        operators._by_name((Operator(name="Erf"), Operator(name="Erf")))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"becomes": ("ABS",), "output": Output.COMPUTED}, "Erf: says what it becomes, and not its axes or its output"),
        ({"becomes": ("ABS",), "axes": Axes.AS_STORED}, "Erf: says what it becomes, and not its axes or its output"),
        ({"output": Output.PRESCRIBED}, "Erf: a prescribed scale and the output"),
        ({"output": Output.COMPUTED, "prescribed": per_tensor(0.5, 0)}, "Erf: a prescribed scale and the output"),
    ],
    ids=["no axes", "no output", "no scale", "a scale too many"],
)
def test_a_record_that_contradicts_itself_is_our_defect(said, problem):
    with pytest.raises(AssertionError, match=problem):
        Operator(name="Erf", **said)


def computed(name: str, x: np.ndarray) -> np.ndarray | None:
    """What ONNX Runtime makes of x by an operator without attributes; None where it needs some."""
    values = [helper.make_tensor_value_info(each, TensorProto.FLOAT, x.shape) for each in ("x", "y")]
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"])], "one", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        (y,) = onnx_runtime.session(model).run(None, {"x": x})
    except Exception:  # noqa: BLE001 - whatever it says, the operator does not work without attributes
        return None
    return np.asarray(y)


def is_element_wise(name: str) -> bool:
    """Whether elements in another order give the results in that order."""
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    order = np.random.default_rng(0).permutation(x.size)
    y, moved = computed(name, x), computed(name, x.reshape(-1)[order].reshape(x.shape))
    if y is None or moved is None or y.shape != x.shape:
        return False
    return np.array_equal(y.reshape(-1)[order], moved.reshape(-1))


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_an_operator_that_treats_every_element_alike_is_stored_as_it_comes(name):
    """In any other way its file has a TRANSPOSE that nothing needs, and computes the same."""
    pytest.importorskip("onnxruntime")
    assert is_element_wise(name) == (OPERATORS[name].axes is Axes.AS_STORED), "bridge/exact/operators, axes"


@pytest.mark.parametrize("name", [name for name in ONE_OPERAND if OPERATORS[name].axes is Axes.AS_STORED])
def test_what_chooses_among_its_inputs_values_says_so_and_nothing_else_does(name):
    pytest.importorskip("onnxruntime")
    x = np.linspace(-3, 2.5, 24, dtype=np.float32).reshape(2, 3, 4)
    assert np.isin(computed(name, x), x).all() == OPERATORS[name].preserves, "bridge/exact/operators, output"
