"""A team's own code, MODULE:FACTORY: imported and run as it is, which only the team itself can vouch for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.errors import BridgeError


def is_code(model: str) -> bool:
    """Whether `--model` names code, MODULE:FACTORY, and no file."""
    return ":" in model and not Path(model).exists()


def made_by(option: str, target: str) -> Any:
    """What MODULE:FACTORY returns. The module is the user's own: whatever it raises is said as it is.

    Raises `BridgeError` with that.
    """
    return _said(option, target, function_of(option, target))


def called(option: str, target: str, *arguments: Any) -> Any:
    """What MODULE:FUNCTION returns of these arguments; raises `BridgeError` with whatever it raises."""
    function = function_of(option, target)
    return _said(option, target, lambda: function(*arguments))


def function_of(option: str, target: str) -> Any:
    """MODULE:FUNCTION, imported; raises `BridgeError` with whatever that raises."""
    module, _, name = target.partition(":")
    return _said(option, target, lambda: getattr(importlib.import_module(module), name))


def _said(option: str, target: str, act: Callable[[], Any]) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return act()
    except BridgeError:
        raise
    except Exception as error:
        raise BridgeError(
            where=f"{option} {target}",
            problem=f"cannot be called ({type(error).__name__}: {error})",
            remedy="Give MODULE:FACTORY as Python would import it, for example 'my_package.models:build_qat'.",
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
