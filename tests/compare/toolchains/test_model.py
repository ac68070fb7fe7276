"""Files of pins: each is a toolchain somebody could have installed, and a wrong one is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare import toolchains
from compare.toolchains.model import ABILITIES, Toolchain, read

GOOD = 'about = "x"\npython = "3.11"\nas_of = "2024-03-01"\nrequirements = ["a==1"]\nruntime = "tensorflow"\n'


def test_every_pinned_toolchain_reads_and_the_current_one_comes_first() -> None:
    found = toolchains.toolchains()
    assert found[0].id == toolchains.CURRENT
    assert [each.as_of for each in found] == sorted(each.as_of for each in found)
    assert len(found) >= 9


def test_there_is_a_toolchain_for_each_thing_a_worker_can_do() -> None:
    assert {ability for each in toolchains.toolchains() for ability in each.routes} == set(ABILITIES)


@pytest.mark.parametrize("toolchain", toolchains.toolchains()[1:], ids=lambda each: each.id)
def test_a_pinned_toolchain_pins_what_it_is_named_after(toolchain: Toolchain) -> None:
    package = toolchain.id.rpartition("-")[0].removesuffix("-2.14").removesuffix("-1.29")
    named = {"tf": "tensorflow", "ort": "onnxruntime", "litert": "ai-edge-litert"}.get(package, package)
    pinned = [each for each in toolchain.requirements if each.startswith(f"{named}==")]
    assert len(pinned) == 1
    version = toolchain.id.removesuffix("-unpinned").rpartition("-")[2]
    assert pinned[0].partition("==")[2].startswith(version)


def test_a_file_of_pins_becomes_a_toolchain_named_after_it(tmp_path: Path) -> None:
    path = tmp_path / "tool-1.toml"
    path.write_text(GOOD)
    found = read(path)
    assert (found.id, found.python, found.requirements, found.runtime) == ("tool-1", "3.11", ("a==1",), "tensorflow")
    environment = found.environment()
    assert environment is not None
    assert (environment.as_of, environment.python) == ("2024-03-01", "3.11")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("2024-03-01", "yesterday"), "needs a date as_of"),
        (('["a==1"]', "[]"), "requirements"),
        (('"tensorflow"', '"caffe"'), "does not know caffe"),
        (("runtime =", "interpreter ="), "interpreter"),
        (('runtime = "tensorflow"', ""), "neither makes models nor runs them"),
        (("about = ", "about "), "cannot be read"),
    ],
)
def test_a_wrong_file_of_pins_is_refused_by_name(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "tool.toml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(BridgeError, match=said) as caught:
        read(path)
    assert "toolchain 'tool'" in caught.value.where
    assert "requirements" in caught.value.remedy


def test_globs_choose_toolchains_and_one_that_matches_nothing_is_refused() -> None:
    assert [each.id for each in toolchains.matching(["tf-2.1*"])] == ["tf-2.15", "tf-2.17", "tf-2.19"]
    assert toolchains.matching([]) == toolchains.toolchains()
    with pytest.raises(BridgeError, match="matches no toolchain") as caught:
        toolchains.matching(["torch-*"])
    assert "onnx2tf-1.20" in caught.value.remedy
