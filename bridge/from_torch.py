"""A team's own eager QAT model to .tflite in one call: freeze, export, convert, write."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.convert import Conversion, Options, save
from bridge.exact.convert import convert as convert_onnx
from bridge.verifying.batches import onnx_shape
from bridge.verifying.distance import Distance
from bridge.verifying.litert import Kernels
from bridge.verifying.verification import compare_outputs


def convert(model: Any, example_inputs: Any, path: str | Path, options: Options | None = None) -> Conversion:
    """Write an eager PyTorch model as int8 .tflite, every trained scale kept, and return what was done.

    `model`: a model prepared for QAT and trained, or one that `torch.ao.quantization.convert` made. `example_inputs`:
    one float32 tensor or array, or a tuple of them, shaped as the device will feed the model, batch included. The
    model is left as it is.

    Raises `BridgeError` for a model without trained scales, for one that ONNX cannot express, and for everything that
    cannot be kept exactly; then no file is written.
    """
    import torch

    from torch_side import bias_grid, export

    if not isinstance(model, torch.nn.Module):
        raise BridgeError(
            where="bridge.convert",
            problem=f"takes a torch.nn.Module, not {type(model).__name__}",
            remedy="For an ONNX file: python -m bridge model.onnx, or bridge.exact.convert.convert(Path(...)).",
        )
    examples = _arrays(example_inputs)
    ready = model
    if any(isinstance(module, torch.ao.quantization.FakeQuantizeBase) for module in model.modules()):
        ready = export.freeze(model)
        bias_grid.round_frozen(ready, examples)
    elif not any(hasattr(module, "scale") and hasattr(module, "zero_point") for module in model.modules()):
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="has no fake-quant and no quantized module, so there is no trained scale to keep",
            remedy="Prepare it with torch.ao.quantization.prepare_qat and qconfig 'tflite', and fine-tune it.",
        )
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        export.export_onnx(ready, examples, onnx_file)
        conversion = convert_onnx(onnx_file, options)
    save(conversion.tflite, Path(path))
    return conversion


def verify(model: Any, conversion: Conversion, inputs: Any) -> dict[Kernels, dict[str, Distance]]:
    """Distances of a conversion's outputs from what the PyTorch model says, by kernel set and output name.

    `inputs`: as `example_inputs` of `convert`, any number of samples along the first axis (a multiple of the model's
    batch). The model is the reference: a fake-quant model, or one of PyTorch's int8 engine. Takes a conversion with
    int8 inputs and outputs.
    """
    import torch

    arrays = _arrays(inputs)
    batch = onnx_shape(conversion.graph.tensors[conversion.graph.inputs[0]])[0]
    said = []
    with torch.no_grad():
        for start in range(0, len(arrays[0]), batch):
            result = model.eval()(*(torch.from_numpy(array[start : start + batch]) for array in arrays))
            said.append([each.numpy() for each in (result if isinstance(result, (tuple, list)) else (result,))])
    expected = [np.concatenate(parts) for parts in zip(*said, strict=True)]
    given = dict(zip(conversion.graph.inputs, arrays, strict=True))
    return compare_outputs(conversion.graph, conversion.tflite, given, expected)


def _arrays(example_inputs: Any) -> tuple[np.ndarray, ...]:
    several = example_inputs if isinstance(example_inputs, Sequence) else (example_inputs,)
    arrays = tuple(np.asarray(each, np.float32) for each in several)
    if not arrays or any(array.size == 0 for array in arrays):
        raise BridgeError(
            where="example inputs",
            problem="are empty",
            remedy="Give one float32 array or tensor for each input of the model, with its batch axis.",
        )
    return arrays
