"""Locks: every package of an environment with the hashes of its files, so that nothing else can be installed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import BridgeError

_PACKAGE = re.compile(r"(?P<name>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)==(?P<version>[0-9][0-9A-Za-z.+!]*)")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Package:
    """One package of a lock, at one version. Always true: it has at least one hash; else `ValueError`."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """`sha256:` and 64 digits, one for each file that the index has of this version."""

    def __post_init__(self) -> None:
        if not self.hashes:
            raise ValueError(f"{self} has no hash")

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def line(self) -> str:
        """As pip and uv read it."""
        return " \\\n    ".join([str(self), *(f"--hash={each}" for each in self.hashes)])


def head(name: str, requirements: Sequence[str], python: str, as_of: str) -> str:
    """The first lines of a lock: what it was made for. Another set of pins has another head."""
    return (
        f"# Every package of '{name}' with the hashes of its files: Linux x86-64, Python {python}, as of {as_of}.\n"
        f"# From: {', '.join(sorted(requirements))}\n"
        "# Written by requirements/lock_environments.py; do not edit.\n"
    )


def read(path: Path, name: str, requirements: Sequence[str], python: str, as_of: str) -> tuple[Package, ...]:
    """The packages of the lock of these pins, in its order.

    Raises `BridgeError` where there is no lock, where it was made for other pins or lacks one of them, and where a line is
    not one package at one version with its hashes.
    """
    text = content(path)
    if not text.startswith(head(name, requirements, python, as_of)):
        raise _wrong(path, "was not made for these pins")
    packages = tuple(parse(text, path))
    missing = {name_of(each) for each in requirements} - {each.name for each in packages}
    if missing:
        raise _wrong(path, f"lacks {', '.join(sorted(missing))}")
    return packages


def name_of(requirement: str) -> str:
    """The package that `setuptools_scm[toml]==7.1.0` names, as an index spells it: `setuptools-scm`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()


def content(path: Path) -> str:
    """The text of a lock; raises `BridgeError` where there is none."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read ({error})") from error


def parse(text: str, path: Path) -> Iterator[Package]:
    """The packages of a lock's text; `path` is for the error, a `BridgeError`."""
    seen: set[str] = set()
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pin, *hashes = line.split()
        package, found = _PACKAGE.fullmatch(pin), [_HASH.fullmatch(each) for each in hashes]
        if package is None or not found or None in found:
            raise _wrong(path, f"has a line that is not one version with its hashes: {line[:100]!r}")
        if package["name"] in seen:
            raise _wrong(path, f"has {package['name']} twice")
        seen.add(package["name"])
        yield Package(package["name"], package["version"], tuple(each[1] for each in found if each is not None))


def _wrong(path: Path, problem: str) -> BridgeError:
    return BridgeError(
        where=f"lock {path}",
        problem=problem,
        remedy="Install this package again; in a checkout, write its locks again: python requirements/lock_environments.py",
    )
