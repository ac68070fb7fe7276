"""Choosing by name."""

import pytest

from bridge.errors import BridgeError
from compare.running.globs import chosen

NAMED = {"a-1": 1, "b-1": 2, "a-2": 3}


@pytest.mark.parametrize(
    ("patterns", "found"), [((), (1, 2, 3)), (("a-*",), (1, 3)), (("a-2", "b*"), (2, 3)), (("*", "a-1"), (1, 2, 3))]
)
def test_what_matches_any_of_the_globs_in_its_own_order(patterns: tuple[str, ...], found: tuple[int, ...]) -> None:
    assert chosen(NAMED, patterns, "--things", "matches none") == found


@pytest.mark.parametrize("named", [NAMED, {}])
def test_a_glob_that_matches_nothing_is_refused_with_what_there_is(named: dict[str, int]) -> None:
    with pytest.raises(BridgeError) as caught:
        chosen(named, ("a-*", "c"), "--things", "matches none")
    assert str(caught.value).startswith("--things '")
    assert ("a-1, b-1, a-2" in str(caught.value)) == bool(named)
