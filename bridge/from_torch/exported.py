"""Models of torch.export and PT2E: graphs of aten operators, in which `quantized_decomposed` says what is rounded."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Note
from bridge.from_torch.building import Misread, Unknown
from bridge.from_torch.reading import first_line, outputs_of, paths_of, random_inputs, run, same_tensors
from torch_side.export import FrozenLayer, one_signed_channels


def is_exported(model: Any) -> bool:
    """An ExportedProgram, or the GraphModule of one, prepared or converted by PT2E or not."""
    if isinstance(model, torch.export.ExportedProgram):
        return True
    overload = torch._ops.OpOverload  # noqa: SLF001 - torch has no public name for it
    return isinstance(model, fx.GraphModule) and any(isinstance(node.target, overload) for node in model.graph.nodes)


def settled(model: Any) -> Any:
    """A copy for inference: a prepared one converted by torchao's `convert_pt2e`, batch norms and dropouts in eval.

    Raises `BridgeError` where that needs torchao and it is not installed, and where nothing is quantized.
    """
    module: Any = model.module() if isinstance(model, torch.export.ExportedProgram) else copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _is_prepared(module):
            module = _torchao("quantize_pt2e").convert_pt2e(module)
    _to_eval(module)
    if not any("quantized_decomposed" in str(node.target) for node in module.graph.nodes):
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="is exported, and nothing in it is quantized, so there is no trained scale to keep",
            remedy="Prepare it with torchao's prepare_qat_pt2e and a quantizer, fine-tune it, and call convert_pt2e.",
        )
    return module


def _is_prepared(module: fx.GraphModule) -> bool:
    return any(
        isinstance(each, (torch.ao.quantization.FakeQuantizeBase, torch.ao.quantization.ObserverBase))
        or type(each).__module__.startswith("torchao.quantization.pt2e")
        for each in module.modules()
    )


_TRAIN_FLAG = {
    "batch_norm": 5,
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), 2),
}
"""Where their `training` argument stands (native_functions.yaml)."""


def _to_eval(module: fx.GraphModule) -> None:
    """Every batch norm and dropout in inference; torchao's `move_exported_model_to_eval` leaves `dropout_` out."""
    for node in module.graph.nodes:
        name = node.target.name().partition(".")[0].removeprefix("aten::") if hasattr(node.target, "name") else ""
        place = _TRAIN_FLAG.get(name.removesuffix("_"))
        if place is not None and place < len(node.args):
            node.args = (*node.args[:place], False, *node.args[place + 1 :])
    module.recompile()


def _torchao(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"torchao.quantization.pt2e.{module}")
    except ImportError as error:
        raise BridgeError(
            where="model GraphModule",
            problem="is prepared for PT2E, and to convert it torchao is needed, which is not installed",
            remedy="pip install torchao, or call convert_pt2e yourself.",
        ) from error


def read_exported(module: fx.GraphModule, examples: Sequence[np.ndarray]) -> Graph:
    """The graph of a settled model; `examples`: float32, shaped as it was exported.

    Raises `Unknown`, naming every operator that has no emitter, and `BridgeError` for dynamic quantization.
    """
    inputs = random_inputs(examples)
    return run(module, inputs, outputs_of(module, inputs), paths_of(module))


def read_by_export(model: torch.nn.Module, examples: Sequence[np.ndarray]) -> Graph:
    """An eager model in eval mode, its fake-quant frozen, through torch.export; raises as `reading.read`."""
    inputs = random_inputs(examples)
    expected = outputs_of(model, inputs)
    if not same_tensors(outputs_of(model, inputs), expected):
        raise Misread("its forward computes something else each time it is called")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: Any = torch.export.export(model, tuple(inputs), strict=False).module()
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, AssertionError) as error:
        raise Unknown(f"torch.export cannot export it: {first_line(error)}") from error
    graph = run(module, inputs, expected, paths_of(module))
    return replace(graph, notes=(*graph.notes, *_one_signed(model)))


def _one_signed(frozen: torch.nn.Module) -> list[Note]:
    """Which layers were made symmetric; by how much cannot be said of a graph without modules."""
    layers = {name: module for name, module in frozen.named_modules() if isinstance(module, FrozenLayer)}
    return [
        Note(
            "symmetric",
            f"layer '{name}'",
            f"{count} of {layers[name].weight_fake_quant.channels} channels made symmetric",
        )
        for name, count in one_signed_channels(frozen).items()
        if name in layers
    ]
