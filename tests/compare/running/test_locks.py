"""Locks: one for each file of pins, made for it, and nothing in it that is not held by a hash."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compare
from bridge.errors import BridgeError
from compare import npu, toolchains
from compare.npu import locked
from compare.running import locks
from compare.toolchains.environments import Environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(compare.__file__).parent
TOOLCHAINS = tuple(found for each in toolchains.toolchains() if (found := each.environment()) is not None)
TARGETS = tuple(locked.on(python, each) for each in npu.environments() for python in locked.PYTHONS)
ENVIRONMENTS = TOOLCHAINS + TARGETS
PACKAGES = tuple(
    locks.Package(name, "1.2", (f"sha256:{digit * 64}", f"sha256:{(digit + 'f') * 32}"))
    for name, digit in (("one", "1"), ("two-parts", "2"), ("three", "3"))
)
FOR = ("tool", ("two_parts==1.2", "one[extra]"), "3.11", "2024-03-01")
TEXT = locks.head(*FOR) + "".join(f"{each.line}\n" for each in PACKAGES)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: f"{each.name}-{each.python}")
def test_pins_and_lock_agree_and_every_line_has_a_hash(environment: Environment) -> None:
    packages = {each.name: each for each in environment.packages()}
    for pin in map(Requirement, environment.requirements):
        assert pin.specifier.contains(packages[canonicalize_name(pin.name)].version), pin
    assert environment.from_source == () or set(environment.from_source) <= set(packages)

    text = environment.lock.read_text()
    lines = text.replace("\\\n", " ").splitlines()
    assert all(line.startswith("# ") or re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line) for line in lines)
    assert not re.search(r"://|--(?!hash=)|@", text), "an index, an option or a file of somebody's machine"


def test_every_lock_is_that_of_an_environment_and_of_one_alone() -> None:
    here = [*(ROOT / "toolchains" / "pins").glob("*.txt"), *(ROOT / "npu" / "locks").iterdir()]
    assert sorted(here) == sorted(each.lock for each in ENVIRONMENTS)


def test_locks_are_part_of_the_installed_package() -> None:
    with (ROOT.parent / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["compare"]
    packed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert {each.lock for each in ENVIRONMENTS} <= packed


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(TEXT)
    assert locks.read(path, *FOR) == PACKAGES


def test_a_lock_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="cannot be read") as caught:
        locks.read(tmp_path / "lock.txt", *FOR)
    assert str(tmp_path / "lock.txt") in caught.value.where


@pytest.mark.parametrize(
    "other",
    [
        ("tool", ("two_parts==1.3", "one[extra]"), "3.11", "2024-03-01"),
        ("tool", ("two_parts==1.2",), "3.11", "2024-03-01"),
        ("tool", ("two_parts==1.2", "one[extra]"), "3.12", "2024-03-01"),
        ("tool", ("two_parts==1.2", "one[extra]"), "3.11", "2024-03-02"),
        ("loot", ("two_parts==1.2", "one[extra]"), "3.11", "2024-03-01"),
    ],
    ids=["a version", "a requirement", "the Python", "the date", "the name"],
)
def test_a_lock_of_other_pins_is_refused(tmp_path: Path, other: tuple[str, tuple[str, ...], str, str]) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(TEXT)
    with pytest.raises(BridgeError, match="was not made for these pins"):
        locks.read(path, *other)


DAMAGES: dict[str, Callable[[str], str]] = {
    "no hash": lambda line: line.split(" ")[0],
    "another kind of hash": lambda line: line.replace("sha256:", "md5:", 1),
    "a short hash": lambda line: line[:-1],
    "a loose version": lambda line: line.replace("==", ">=", 1),
    "any version": lambda line: line.replace("==1.2", "", 1),
    "a wildcard": lambda line: line.replace("==1.2", "==1.*", 1),
    "an address": lambda line: line.replace("==1.2", "@https://example.org/x.whl", 1),
    "an option": lambda line: f"--index-url=https://example.org {line}",
    "an option behind": lambda line: f"{line} --no-binary=x",
    "an option alone": lambda line: f"{line}\n--trusted-host=example.org",
    "another file": lambda line: f"{line}\n-r other.txt",
    "twice": lambda line: f"{line}\n{line}",
}


@given(st.integers(0, len(PACKAGES) - 1), st.sampled_from(sorted(DAMAGES)))
def test_a_line_that_a_hash_does_not_hold_is_refused_wherever_it_stands(position: int, damage: str) -> None:
    lines = [each.line for each in PACKAGES]
    lines[position] = DAMAGES[damage](lines[position])
    with pytest.raises(BridgeError, match=r"is not one version with its hashes|twice"):
        list(locks.parse("\n".join(lines) + "\n", Path("lock.txt")))


@pytest.mark.parametrize("lost", ["one", "two-parts"])
def test_a_lock_that_lost_a_pin_is_refused(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(locks.head(*FOR) + "".join(f"{each.line}\n" for each in PACKAGES if each.name != lost))
    with pytest.raises(BridgeError, match=f"lacks {lost}"):
        locks.read(path, *FOR)


def test_an_environment_that_the_script_does_not_know_is_refused_with_those_it_knows() -> None:
    script = ROOT.parent / "requirements" / "lock_environments.py"
    done = subprocess.run([sys.executable, script, "caffe"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "matches no environment" in done.stderr
    assert "tf-2.15" in done.stderr
    assert "vela-3.10.0" in done.stderr
