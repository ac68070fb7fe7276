"""A team's own PyTorch model as a subject: its own outputs are the truth. For a worker process: it runs the team's code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bridge.errors import BridgeError
from compare.subjects.code import made_by
from compare.subjects.model import Form, Subject, reference_lsb
from compare.subjects.own_onnx import output_scale
from compare.subjects.samples import CALIBRATION, LABELS, notes, refuse_no_truth, samples


def prepare(target: str, arrays: Mapping[str, np.ndarray], folder: Path) -> Subject:
    """What MODULE:FACTORY makes, as the ONNX file that torch exports of it; of PT2E, as its exported program.

    Raises `BridgeError` for what the factory raises, and for a model that `bridge.convert` does not admit.
    """
    import torch

    from bridge.from_torch import frozen_copy, ready
    from bridge.from_torch.admission import admitted
    from bridge.from_torch.exported import is_exported

    folder.mkdir(parents=True, exist_ok=True)
    model = admitted(made_by("--model", target))
    names = _names(model, arrays)
    given = samples(arrays, names)
    expected, shapes = _outputs(frozen_copy(model), list(given.inputs.values()))
    refuse_no_truth(expected)
    frozen = ready(model)
    examples = tuple(array[:1] for array in given.inputs.values())
    if is_exported(frozen):
        file, kind = folder / "model.pt2", "program"
        lsb = _last_scale(frozen) or reference_lsb(expected, None)
        torch.export.save(torch.export.export(frozen, tuple(map(torch.from_numpy, examples))), file)
        inputs, calibration = given.inputs, given.calibration
    else:
        file, kind = folder / "model.onnx", "int8" if _on_the_engine(frozen) else "qdq"
        taken = _exported(frozen, examples, file)
        lsb = output_scale(onnx.load(file)) or reference_lsb(expected, None)
        inputs, calibration = (
            dict(zip(taken, each.values(), strict=True)) for each in (given.inputs, given.calibration)
        )
    form = Form(file, expected, lsb, kind != "program", inputs, calibration, shapes)
    return Subject(target, {kind: form}, given.labels, notes(form, given))


def _names(model: Any, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The inputs in the order of the model's forward where their arrays have its names, else in that of the .npz."""
    given = [name for name in arrays if name not in (LABELS, CALIBRATION) and not name.startswith(f"{CALIBRATION}:")]
    forward = [] if not hasattr(model, "forward") else list(inspect.signature(model.forward).parameters)
    return [name for name in forward if name in given] if set(given) <= set(forward) else given


def _outputs(model: Any, inputs: list[np.ndarray]) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    """float32 (N, outputs), sample by sample, and the shape of each output of one."""
    import torch

    from bridge.from_torch import model_outputs

    with torch.no_grad():
        rows = [
            model_outputs(model, [torch.from_numpy(array[index : index + 1]) for array in inputs])
            for index in range(len(inputs[0]))
        ]
    shapes = tuple(each.shape[1:] for each in rows[0])
    flat = [np.concatenate([part.reshape(-1) for part in row]) for row in rows]
    return np.stack(flat).astype(np.float32), shapes


def _exported(frozen: Any, examples: tuple[np.ndarray, ...], file: Path) -> list[str]:
    """The names of the inputs in the ONNX file that was written."""
    from torch_side.export import export_onnx

    export_onnx(frozen, examples, file)
    taken = [value.name for value in onnx.load(file).graph.input]
    if len(taken) != len(examples):
        raise BridgeError(
            where="--inputs",
            problem=f"has {len(examples)} inputs, and the model uses {len(taken)}",
            remedy=f"Save the arrays that its forward uses: {', '.join(taken)}.",
        )
    return taken


def _last_scale(program: Any) -> float | None:
    """The scale of the rounding that the first output comes from."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    node = output.args[0]
    while isinstance(node, (tuple, list)):
        node = node[0]
    rounds = "quantized_decomposed.dequantize_per_tensor" in str(node.target) and isinstance(node.args[1], float)
    return float(node.args[1]) if rounds else None


def _on_the_engine(model: Any) -> bool:
    return any(hasattr(module, "set_weight_bias") for module in model.modules())
