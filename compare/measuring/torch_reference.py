"""An eager PyTorch model as ONNX, in memory: what its .tflite is compared with where no ONNX file was given."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bridge.errors import BridgeError


def exported(model: Any, shapes: Sequence[tuple[int, ...]], inputs: Mapping[str, np.ndarray] | None) -> onnx.ModelProto:
    """The model, frozen where it is prepared for QAT, through PyTorch's exporter; the caller's model is left as it is.

    `shapes`: of the .tflite's inputs, channels last or as the model has them; `inputs` decide where they are given.
    Raises `BridgeError` for a model without trained scales, and for one that does not run or export.
    """
    import copy

    import torch

    from torch_side import export

    fake = any(isinstance(module, torch.ao.quantization.FakeQuantizeBase) for module in model.modules())
    if not fake and not any(hasattr(module, "scale") and hasattr(module, "zero_point") for module in model.modules()):
        raise _not_exported("it has no trained scales")
    ready = export.freeze(model) if fake else copy.deepcopy(model).eval()
    reasons = []
    for examples in _examples(shapes, inputs):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            try:
                with torch.no_grad():
                    ready(*(torch.from_numpy(example) for example in examples))
                export.export_onnx(ready, examples, path)
                return onnx.load(path)
            except BridgeError as error:
                reasons.append(error.problem)
            except (
                RuntimeError,
                ValueError,
                TypeError,
                IndexError,
            ) as error:  # a team's own module raises what it likes
                reasons.append((str(error).strip().splitlines() or [type(error).__name__])[0])
    raise _not_exported(reasons[0])


def _examples(
    shapes: Sequence[tuple[int, ...]], inputs: Mapping[str, np.ndarray] | None
) -> list[tuple[np.ndarray, ...]]:
    batches = [shape[0] if shape else 1 for shape in shapes]
    if inputs and len(inputs) == len(shapes):
        return [
            tuple(
                np.ascontiguousarray(array[:batch], np.float32)
                for array, batch in zip(inputs.values(), batches, strict=True)
            )
        ]
    first = tuple(
        np.zeros((shape[0], shape[-1], *shape[1:-1]) if len(shape) == 4 else shape, np.float32) for shape in shapes
    )
    as_it_is = tuple(np.zeros(shape, np.float32) for shape in shapes)
    return [first] if all(a.shape == b.shape for a, b in zip(first, as_it_is, strict=True)) else [first, as_it_is]


def _not_exported(reason: str) -> BridgeError:
    return BridgeError(
        where="PyTorch model",
        problem=reason,
        remedy="Give its ONNX file, which holds the same weights and scales.",
    )
