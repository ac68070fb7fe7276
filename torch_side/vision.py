"""The one place that imports torchvision, also beside a torch that its compiled operators do not fit."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from torch import library

# As torchvision 0.28.0 declares them: torchvision/csrc/ops/nms.cpp, and for qnms the text in its compiled _C library.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@functools.cache
def import_torchvision() -> ModuleType:
    """torchvision, with datasets, transforms and models usable beside any build of torch.

    The package index carries torchvision built against the CUDA build of torch. Beside a CPU-only torch its compiled
    library does not load, so its operators are never registered; torchvision shrugs that off until, still during its
    import, it attaches shape functions to two of them: `RuntimeError: operator torchvision::nms does not exist`, then
    the same for `qnms`. Declaring those two, without an implementation, is all the import needs. Nothing here uses
    non-maximum suppression; who calls it still gets an error. A matching build is left as it is.

    Raises `BridgeError` when torch or torchvision is not installed.
    """
    _require("torch")
    _require("torchvision")
    _declare_missing_operators()
    return importlib.import_module("torchvision")


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise BridgeError(
            where=package,
            problem="is not installed",
            remedy="Install it with: pip install '.[report]'",
        )


@functools.cache  # keeps the Library alive: its declarations vanish with it
def _declare_missing_operators() -> library.Library | None:
    """Declare those of the two operators that torchvision's own library does not register; None when none is missing."""
    import torch
    from torch import library

    _load_own_operators(torch)
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    declared = library.Library("torchvision", "FRAGMENT")
    for name in missing:
        declared.define(_SCHEMAS[name])
    return declared


def _load_own_operators(torch: ModuleType) -> None:
    """Do first what torchvision's import does first, so that what is missing can be told before it stumbles on it."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    for library in sorted(path for folder in folders or () for path in Path(folder).glob("_C*.*")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            # Built for another torch. torchvision's own loader goes on in the same way (torchvision/extension.py).
            continue
