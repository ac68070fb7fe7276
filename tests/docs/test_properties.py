"""docs/properties.md says what the bench would write, and names every operator that has a limit."""

import re
from pathlib import Path

from benchmarks.properties import INTRODUCTION
from bridge.exact.accumulators import CHANNEL_AXIS, LONGEST_SOFTMAX
from bridge.exact.limits import INPUT_SCALES, LIMITS, OUTPUT_SCALES
from bridge.exact.ranks import LEAST_AXES

PAGE = Path(__file__).parents[2] / "docs" / "properties.md"


def test_the_words_of_the_page_are_those_of_the_bench():
    assert PAGE.read_text(encoding="utf-8").startswith(INTRODUCTION), (
        "stale: run `python -m benchmarks.properties --write docs/properties.md`"
    )


def test_every_operator_with_a_limit_is_in_the_table_of_what_kernels_cannot_compute():
    table = [line.split("|")[1] for line in INTRODUCTION.splitlines() if line.startswith("| ")]
    named = {word for cell in table for word in re.findall(r"[A-Z][A-Z0-9_]+", cell)}
    limited = {*LIMITS, *INPUT_SCALES, *OUTPUT_SCALES, *CHANNEL_AXIS, *LEAST_AXES, "RESHAPE"}
    assert limited - named == set()
    assert f"over {LONGEST_SOFTMAX + 1} nearly equal" in INTRODUCTION
