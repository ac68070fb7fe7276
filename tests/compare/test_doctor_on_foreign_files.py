"""The doctor is right about files that other tools made, and about files in which one thing was broken by chance."""

import pytest

from benchmarks.doctor import answers
from benchmarks.foreign_files import planted

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file", tuple(planted(seeds=2)), ids=lambda file: file.name)
def test_what_was_planted_is_found_and_nothing_else(file):
    for said in answers(file):
        assert said.missed == frozenset(), said.inputs
        assert said.false_alarms == frozenset(), said.inputs
        assert said.unexplained == file.unknown, said.inputs
        assert said.another == file.another, said.inputs
        assert said.verdict.fails == said.must_fail, said.inputs
        assert said.right
