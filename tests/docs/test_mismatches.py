"""docs/mismatches.md says what the catalogue says."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "mismatches.py"


def test_the_page_is_what_the_catalogue_says():
    spec = importlib.util.spec_from_file_location("docs_mismatches", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "stale: run `python docs/mismatches.py`"
