"""A trained fake-quant model and an ONNX file made from it: what the entries that compare the two are made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bridge.verifying.onnx_runtime import outputs, session
from compare.subjects.case import Case


@dataclass(frozen=True, eq=False)
class Trained:
    """One fake-quant module of a prepared model."""

    path: str
    scale: np.ndarray
    """float32, (1,) or (channels,)."""
    limits: tuple[int, int]
    """The lowest and the highest code it lets through."""

    @property
    def is_weight(self) -> bool:
        return self.path.endswith("weight_fake_quant")


def trained(model: Any) -> Iterator[Trained]:
    """Every fake-quant module of a prepared model; none in a converted or float one."""
    for path, module in () if model is None else model.named_modules():
        observer: Any = getattr(module, "activation_post_process", None)
        if hasattr(module, "fake_quant_enabled") and hasattr(observer, "quant_min"):
            scale = module.scale.detach().numpy().reshape(-1).astype(np.float32)
            yield Trained(path, scale, (int(observer.quant_min), int(observer.quant_max)))


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Every constant of an ONNX model by name, undecoded (a model can be large): initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


SAME = 1e-5
"""Relative; what single and double precision make of one scale is apart by less."""


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two scales are the same number, computed in single or double precision."""
    return one.size == other.size and bool(np.allclose(one.reshape(-1), other.reshape(-1), rtol=SAME, atol=0))


def converted(model: Any, engine: str) -> Any:
    """What `torch.ao.quantization.convert` makes of a prepared model, for the named engine; the model is left as it is.

    The engine that was selected before is selected again.
    """
    import copy

    import torch
    from torch.ao import quantization as tq

    from torch_side.training import expected_warnings

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with expected_warnings():
            return tq.convert(copy.deepcopy(model).eval())
    finally:
        torch.backends.quantized.engine = before


def frozen_export(case: Case) -> bytes:
    """The ONNX file of the case's fake-quant model, frozen; shaped as the case's ONNX inputs are."""
    from torch_side.export import export_onnx, freeze

    assert case.onnx_model is not None  # noqa: S101 - the catalogue repairs what detect has seen
    constant = constants(case.onnx_model)
    inputs = [value for value in case.onnx_model.graph.input if value.name not in constant]
    examples = tuple(
        np.zeros([max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim], np.float32) for value in inputs
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(freeze(case.torch_model), examples, path)
        return path.read_bytes()


def apart(case: Case) -> np.ndarray:
    """How far ONNX Runtime's outputs on the case's inputs are from the fake-quant model's, in steps of its last scale."""
    import torch

    assert case.inputs is not None  # noqa: S101 - a measure knows its own reproduction
    assert case.onnx is not None  # noqa: S101 - the same
    (samples,) = case.inputs.values()
    (found,) = outputs(session(case.onnx), {"input": samples})
    with torch.no_grad():
        expected = case.torch_model(torch.from_numpy(samples)).numpy()
    (step,) = [each.scale for each in trained(case.torch_model) if not each.is_weight][-1]
    steps: np.ndarray = np.abs(found - expected) / step
    return steps
