"""The doctor is right about files that other tools made, and about files in which one thing was broken by chance."""

import pytest

from benchmarks.doctor import answer
from benchmarks.foreign_files import planted

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file", tuple(planted(seeds=2)), ids=lambda file: file.name)
def test_what_was_planted_is_found_and_nothing_else(file):
    said = answer(file)

    assert said.missed == frozenset()
    assert said.false_alarms == frozenset()
    assert said.unexplained == file.unknown
