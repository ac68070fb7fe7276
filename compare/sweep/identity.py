"""What decides a task's figures, and the name that follows from it: equal names, equal figures."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compare.sweep.plan import Task

FORM = 1
"""Counts the changes of what a row holds; part of every name."""
_PACKAGES = (
    "torch", "onnx", "onnxscript", "onnxruntime", "onnx2tf", "onnxsim", "tensorflow", "tf-keras",
    "tensorflow-model-optimization", "ai-edge-litert", "numpy", "protobuf", "flatbuffers", "tflite",
)  # fmt: skip
_ROOMS = ("bridge", "torch_side", "keras_side")
_FILES = (
    "arrays", "measuring", "metrics", "networks", "routes", "settings", "shared_start", "tflite_file", "tflite_graph",
    "sweep/job", "sweep/making", "sweep/toolchain",
)  # fmt: skip
"""The files of this package that figures come from; the catalogue, reports and NPUs have no part in them."""


@cache
def environment() -> Mapping[str, str]:
    """Versions of the packages that make and measure files, and `code`, the digest of our own files that do."""
    found = {"python": platform.python_version(), "code": _code()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def _code() -> str:
    root = Path(__file__).parents[2]
    files = [path for room in _ROOMS for path in (root / room).rglob("*.py")]
    files += [root / "compare" / f"{name}.py" for name in _FILES]
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


def name(task: Task, data: str, where: Mapping[str, str]) -> str:
    """The task's name, 32 hexadecimal digits: from the task, the digest of the images and `environment`."""
    from compare.sweep.toolchain import pins

    facts = {
        "form": FORM,
        "task": task.record(),
        "settings": asdict(task.settings),
        "data": data,
        "environment": dict(where),
        "toolchain": pins(task.toolchain),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
