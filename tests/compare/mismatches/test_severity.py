"""How much an entry weighs: what a gate stops at, and what it only says."""

from __future__ import annotations

import pytest

from compare.explaining.diagnosis import Diagnosis
from compare.mismatches import SEVERITIES, Sighting, catalogue

CATALOGUE = {entry.id: entry for entry in catalogue()}


def diagnosis(entry, *sightings):
    return Diagnosis(CATALOGUE[entry], tuple(sightings), None)


def seen(*, sure=True, severity=None):
    return Sighting(where="tensor 'x'", fact="is so", remedy="Change it.", sure=sure, severity=severity)


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.id)
def test_every_entry_says_how_much_it_weighs(entry):
    assert entry.severity in SEVERITIES


def test_a_fault_fails_a_risk_and_a_note_do_not():
    assert diagnosis("M33", seen()).fails
    assert not diagnosis("M04", seen()).fails
    assert not diagnosis("M30", seen()).fails


def test_what_may_be_innocent_does_not_fail():
    assert not diagnosis("M33", seen(sure=False)).fails


def test_the_worst_sure_place_decides():
    assert diagnosis("M05", seen(), seen(severity="fault")).severity == "fault"
    assert diagnosis("M05", seen(), seen(severity="fault", sure=False)).severity == "risk"
    assert diagnosis("M25", seen(severity="risk")).severity == "risk"
