"""Every entry of the catalogue: made, seen, undone and measured; nothing else is seen, and clean models are silent."""

from __future__ import annotations

import pytest

from compare.mismatches import catalogue

ENTRIES = catalogue()


def names(mismatch):
    return f"{mismatch.id} {mismatch.name}"


@pytest.fixture(scope="module")
def cases():
    """(broken, repaired) of an entry, made once."""
    made = {}

    def get(mismatch):
        if mismatch.id not in made:
            broken = mismatch.reproduce()
            made[mismatch.id] = (broken, mismatch.repair(broken))
        return made[mismatch.id]

    return get


@pytest.mark.parametrize("mismatch", ENTRIES, ids=names)
def test_is_seen_in_its_reproduction_and_not_after_the_repair(mismatch, cases):
    broken, repaired = cases(mismatch)

    assert list(mismatch.detect(broken))
    assert not list(mismatch.detect(repaired))


@pytest.mark.parametrize("mismatch", ENTRIES, ids=names)
def test_costs_at_least_what_is_recorded(mismatch, cases):
    assert mismatch.measure(*cases(mismatch)) >= mismatch.effect.at_least > 0


@pytest.mark.parametrize("mismatch", ENTRIES, ids=names)
def test_is_not_mistaken_for_another(mismatch, cases):
    broken, repaired = cases(mismatch)
    others = [entry for entry in ENTRIES if entry.id != mismatch.id and entry.id not in mismatch.brings]

    assert [entry.id for entry in others if list(entry.detect(broken))] == []
    assert [entry.id for entry in others if list(entry.detect(repaired))] == []


def test_a_sighting_names_the_place_the_numbers_and_what_to_do(cases):
    for mismatch in ENTRIES:
        for sighting in mismatch.detect(cases(mismatch)[0]):
            assert sighting.where
            assert any(character.isdigit() for character in sighting.fact) or "'" in sighting.fact
            assert sighting.remedy.endswith((".", ")"))
