"""Verdicts of slow tools, kept in the cache by tool and file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compare.npu.model import TargetVerdict

_VERDICT = TypeAdapter(TargetVerdict)
FORM = 4
"""Raised when this code reads a tool's answer differently: old verdicts are then made again."""


def kept(cache: Path, software: str, content: bytes, make: Callable[[], TargetVerdict]) -> TargetVerdict:
    """The verdict of `software` on this very file, made once; a damaged entry is made again."""
    name = re.sub(r"[^\w.]+", "-", software)
    path = cache / "npu" / f"{name}-{FORM}-{hashlib.sha256(content).hexdigest()[:24]}.json"
    try:
        return _VERDICT.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        verdict = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    beside.write_bytes(_VERDICT.dump_json(verdict))
    beside.replace(path)
    return verdict
