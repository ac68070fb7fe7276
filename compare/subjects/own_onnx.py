"""A team's own ONNX file as a subject, with unoptimized ONNX Runtime's outputs as the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.reader import parse_whole
from bridge.verifying import onnx_runtime
from compare.subjects.model import Form, Subject, reference_lsb
from compare.subjects.samples import notes, refuse_no_truth, samples


def of_onnx(onnx: Path, inputs: Mapping[str, np.ndarray], folder: Path) -> Subject:
    """The model, copied into `folder` as one file, with its samples.

    Raises `BridgeError` for a file or inputs that ONNX Runtime does not take.
    """
    model = parse_whole(onnx)
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "model.onnx"
    copy.write_bytes(model.SerializeToString())
    constants = {tensor.name for tensor in model.graph.initializer}
    given = samples(inputs, [value.name for value in model.graph.input if value.name not in constants])
    batch = _batch(model)
    if len(next(iter(given.inputs.values()))) % batch:
        raise BridgeError(
            where="--inputs",
            problem=f"has {len(next(iter(given.inputs.values())))} samples, and the model takes {batch} at a time",
            remedy=f"Save a multiple of {batch} samples.",
        )
    expected, shapes = _outputs(copy, given.inputs, batch)
    refuse_no_truth(expected)
    lsb = output_scale(model) or reference_lsb(expected, None)
    form = Form(
        copy, expected, lsb, onnx=True, inputs=given.inputs, calibration=given.calibration, output_shapes=shapes
    )
    return Subject(onnx.name, {form_of(model): form}, given.labels, notes(form, given))


def form_of(model: ModelProto) -> str:
    """Which form of a model this is, in the routes' words: `qdq` or `float`."""
    return "qdq" if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else "float"


def _batch(model: ModelProto) -> int:
    """How many samples its inputs fix; 1 where they leave it open."""
    constants = {tensor.name for tensor in model.graph.initializer}
    taken = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name not in constants]
    fixed = [dims[0].dim_value for dims in taken if dims]
    return int(max([1, *fixed]))


def _outputs(
    onnx: Path, samples: Mapping[str, np.ndarray], batch: int
) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    """float32 (N, outputs), `batch` samples at a time, and the shape of each output of one."""
    session = onnx_runtime.session(onnx)
    count = len(next(iter(samples.values())))
    parts = onnx_runtime.outputs(session, samples, batch=batch, where=f"ONNX Runtime on {onnx.name}")
    flat = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    return flat.astype(np.float32), tuple(part.shape[1:] for part in parts)


def output_scale(model: ModelProto) -> float | None:
    """The scale of the DequantizeLinear that the first output comes from, where there is one."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    node = producers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _HANDS_ON:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return None
    return float(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])


_HANDS_ON = ("Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
"""Operators whose output has the numbers of their input."""
