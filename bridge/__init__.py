"""Model to int8 .tflite: nothing in here trains or judges."""

from __future__ import annotations

from typing import Any

from bridge.errors import BridgeError, ConversionWarning

__all__ = ["BridgeError", "ConversionWarning", "convert", "convert_pt2", "freeze_observers", "prepare", "verify"]


def convert(model: Any, example_inputs: Any, path: Any, options: Any = None) -> Any:
    """A PyTorch model (eager, FX, PT2E, exported) to int8 .tflite; see `bridge.from_torch.convert`, which needs torch."""
    return _from_torch().convert(model, example_inputs, path, options)


def prepare(model: Any, example_inputs: Any, target: str = "cpu") -> Any:
    """A float PyTorch model, ready for quantization-aware training; see `torch_side.prepare.prepare`."""
    _from_torch()
    from torch_side import prepare as preparing

    return preparing.prepare(model, example_inputs, target)


def freeze_observers(prepared: Any) -> Any:
    """Ranges and batch norm statistics stand still from here on; see `torch_side.prepare.freeze_observers`."""
    _from_torch()
    from torch_side import prepare as preparing

    return preparing.freeze_observers(prepared)


def convert_pt2(path: Any, options: Any = None) -> Any:
    """A .pt2 file of torch.export, converted and not yet written; see `bridge.from_torch.convert_pt2`."""
    return _from_torch().convert_pt2(path, options)


def verify(model: Any, conversion: Any, inputs: Any) -> Any:
    """How far a conversion's outputs are from the PyTorch model's; see `bridge.from_torch.verify`."""
    return _from_torch().verify(model, conversion, inputs)


def _from_torch() -> Any:
    try:
        import torch  # noqa: F401 - told apart from an import that fails inside
    except ImportError as error:
        raise BridgeError(
            where="bridge",
            problem="needs torch for a PyTorch model, and it is not installed",
            remedy="pip install '.[torch]'",
        ) from error
    from bridge import from_torch

    return from_torch
