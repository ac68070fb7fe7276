"""The rooms of the house: no import goes up, none in a circle, and the page says what there is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "house.py"


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location("house", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its records look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def arrows(house):
    return house.arrows()


def test_every_room_has_its_floor(house):
    rooms = {house.room(name) for name in house.modules()} - {"compare"}
    assert rooms == set(house.floors())


def test_no_import_goes_up(house, arrows):
    assert not house.upwards(arrows)


def test_no_import_goes_in_a_circle(house, arrows):
    assert not house.circles(arrows)


def test_the_page_is_what_the_script_writes(house):
    assert (ROOT / "docs" / "house.md").read_text() == "\n".join(house.page()) + "\n"


def written(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_it_sees_an_arrow_that_goes_up_wherever_it_stands(house, tmp_path):
    written(tmp_path, compare__tflite__a="def f():\n    from compare.npu import b\n", compare__npu__b="")
    assert house.upwards(house.arrows(tmp_path)) == [("compare.tflite.a", "compare.npu.b")]


def test_it_sees_a_circle_over_three_and_none_that_only_type_checkers_see(house, tmp_path):
    written(
        tmp_path, bridge__a="import bridge.b\n", bridge__b="from bridge import c\n", bridge__c="from bridge.a import x\n",
        bridge__d="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bridge.e\n", bridge__e="import bridge.d\n",
    )  # fmt: skip
    assert house.circles(house.arrows(tmp_path)) == [("bridge.a", "bridge.b", "bridge.c")]


def test_a_small_house_can_be_counted_by_hand(house, tmp_path):
    written(
        tmp_path, bridge__x="", compare__a="import compare.b\n", compare__b="import compare.a\nimport bridge.x\n",
        compare__c__one="import compare.b\nimport compare.c.two\n", compare__c__two="import bridge.x\n",
    )  # fmt: skip
    assert house.counted(tmp_path) == house.Counted(
        places=3, floors=3, arrows=5, circles=1, rooms_in_circles=2, module_circles=1
    )


def test_the_house_before_is_what_its_commit_says(house):
    """Skipped where the history is not there, and nowhere else: whatever else goes wrong is a failure."""
    asked = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"],  # noqa: S607 - where git is differs
        cwd=house.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.stdout.strip() != "false":
        pytest.skip("a shallow clone does not have that commit")
    assert house.at(house.BEFORE) == house.COUNTED_BEFORE
