"""What the entries on packages share: versions as numbers, and what Python says in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

from compare.subjects.case import Case


def version_of(case: Case, *names: str) -> str:
    """The installed version of the first of these packages that is there; empty without one."""
    installed = {name.lower().replace("_", "-"): version for name, version in (case.packages or {}).items()}
    return next((installed[name] for name in names if name in installed), "")


def numbers(version: str) -> tuple[int, ...]:
    """(2, 13) of `2.13.0+cpu`; (0, 0) of what is no version, so that it is below every other."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def local_part(version: str) -> str:
    """`cpu` of `2.13.0+cpu`, empty where there is none (PEP 440, local version identifiers)."""
    return version.partition("+")[2]


@cache
def said_by_python(code: str) -> str:
    """The last line a new Python process writes when this code fails; empty when it works."""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    return done.stderr.strip().splitlines()[-1] + "\n" if done.returncode else ""
