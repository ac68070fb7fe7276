"""The catalogue of mismatches: every module in here that is named after an entry, in the order of the ids."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache

from compare.mismatches.model import SEVERITIES, Effect, Mismatch, Severity, Sighting

__all__ = ["SEVERITIES", "Effect", "Mismatch", "Severity", "Sighting", "catalogue"]

_ENTRY = re.compile(r"m\d{2,}_\w+")


@cache
def catalogue() -> tuple[Mismatch, ...]:
    """Every entry, each from the `MISMATCH` of its module; raises `AssertionError` for an id that is given twice."""
    entries = [
        importlib.import_module(f"{__name__}.{module.name}").MISMATCH
        for module in pkgutil.iter_modules(__path__)
        if _ENTRY.fullmatch(module.name)
    ]
    ids = [entry.id for entry in entries]
    if len(set(ids)) != len(ids):
        raise AssertionError(f"ids given twice: {sorted({i for i in ids if ids.count(i) > 1})}")
    return tuple(sorted(entries, key=lambda entry: entry.id))
