"""Model to int8 .tflite: nothing in here trains or judges."""

from __future__ import annotations

from typing import Any

from bridge.errors import BridgeError

__all__ = ["BridgeError", "convert"]


def convert(model: Any, example_inputs: Any, path: Any, options: Any = None) -> Any:
    """An eager PyTorch model to int8 .tflite; see `bridge.from_torch.convert`, which needs torch."""
    try:
        import torch  # noqa: F401 - told apart from an import that fails inside
    except ImportError as error:
        raise BridgeError(
            where="bridge.convert", problem="needs torch, which is not installed", remedy="pip install '.[torch]'"
        ) from error
    from bridge.from_torch import convert as convert_torch

    return convert_torch(model, example_inputs, path, options)
