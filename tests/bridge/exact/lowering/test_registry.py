"""The table of lowerings: complete, without doubles, each with its tests."""

import pkgutil
import re
from pathlib import Path

import pytest

import bridge.exact.lowering as families
from bridge.exact.graph import Lowered
from bridge.exact.lowering import LOWERINGS
from bridge.exact.lowering.registry import lowers
from bridge.exact.schema import OPERATORS

HERE = Path(__file__).parent
PACKAGE = Path(families.__file__).parent


@pytest.mark.parametrize("op", LOWERINGS)
def test_every_operator_is_named_in_the_tests_of_its_family(op):
    family = LOWERINGS[op].__module__.rpartition(".")[2]
    tests = HERE / f"test_{family}.py"
    assert tests.exists(), f"{family}.py has no tests"
    assert f'"{op}"' in tests.read_text(), f"{tests.name} has no test of {op}"


def test_every_module_that_registers_is_imported():
    registering = {
        module.name
        for module in pkgutil.iter_modules([str(PACKAGE)])
        if re.search(r"^@lowers\(", (PACKAGE / f"{module.name}.py").read_text(), re.MULTILINE)
    }
    assert registering <= set(families.__all__)


def test_every_lowering_says_what_it_becomes():
    for op, lowering in LOWERINGS.items():
        first = (lowering.__doc__ or "").split("\n\n")[0]
        assert "->" in first, f"{lowering.__name__} ({op})"


def test_every_tflite_operator_a_docstring_names_is_in_the_schema():
    for lowering in LOWERINGS.values():
        becomes = re.split(r"[.:;]", (lowering.__doc__ or "").partition("->")[2])[0]
        named = set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", becomes))
        assert named, lowering.__name__
        assert named <= set(OPERATORS), lowering.__name__


def test_a_second_lowering_of_an_operator_is_our_defect():
    with pytest.raises(AssertionError, match="two lowerings for Conv"):
        lowers("Conv")(lambda node, graph: Lowered(()))  # noqa: ARG005 - the registry's form


def test_a_lowering_of_an_operator_whose_record_says_nothing_of_it_is_our_defect():
    with pytest.raises(
        AssertionError, match=r"a lowering for Erf, whose record \(bridge/exact/operators\) says nothing"
    ):
        lowers("Erf")(lambda node, graph: Lowered(()))  # noqa: ARG005 - the registry's form
