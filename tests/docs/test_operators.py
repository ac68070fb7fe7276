"""docs/operators.md says what the code says."""

import importlib.util
import re
from pathlib import Path

import onnx
import pytest

from bridge.exact.lowering import LOWERINGS
from bridge.exact.passes.normalize import SPELLINGS

SCRIPT = Path(__file__).parents[2] / "docs" / "operators.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_operators", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_docstrings_say(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "stale: run `python docs/operators.py`"


def test_every_onnx_operator_that_can_be_converted_is_on_the_page(script):
    named = set(re.findall(r"`(\w+)`", script.PAGE.read_text(encoding="utf-8")))
    converted = {op for op in SPELLINGS | set(LOWERINGS) if onnx.defs.has(op)}
    assert converted - named == set()


def test_every_file_that_the_recipe_names_exists():
    recipe = (SCRIPT.parent / "adding-an-operator.md").read_text(encoding="utf-8")
    root = SCRIPT.parents[1]
    named = set(re.findall(r"`((?:bridge|tests|docs)/[\w/.-]+)`", recipe))
    assert named
    assert [path for path in sorted(named) if not (root / path).exists()] == []
