"""A team's own ONNX file as a subject, with unoptimized ONNX Runtime's outputs as the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.reader import parse_whole
from bridge.verifying import onnx_runtime
from compare.subjects.floats import without_pairs
from compare.subjects.model import Form, Subject, reference_lsb
from compare.subjects.samples import notes, refuse_no_truth, samples


def of_onnx(onnx: Path, inputs: Mapping[str, np.ndarray], folder: Path, metric: str | None = None) -> Subject:
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
    expected, shapes = outputs(copy, given.inputs, batch)
    refuse_no_truth(expected)
    lsb, kind = output_scale(model) or reference_lsb(expected, None), form_of(model)
    form = Form(copy, expected, lsb, True, given.inputs, given.calibration, kind, shapes)
    floats, said = float_beside(form, folder) if kind == "qdq" else ({}, ())
    return Subject(onnx.name, {kind: form} | floats, given.labels, (*notes(form, given, metric), *said))


def float_beside(quantized: Form | None, folder: Path) -> tuple[dict[str, Form], tuple[str, ...]]:
    """The same model without its Q/DQ pairs, for converters that estimate scales, with ONNX Runtime's outputs as the truth.

    `quantized` is its ONNX form. Where there is none, the reason.
    """
    if quantized is None:
        return {}, ()
    file = folder / "float.onnx"
    try:
        model = parse_whole(quantized.file)
        file.write_bytes(without_pairs(model).SerializeToString())
        expected, shapes = outputs(file, quantized.inputs, _batch(model))
        refuse_no_truth(expected)
    except (BridgeError, KeyError, ValueError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        return {}, (f"Without its Q/DQ pairs the model has no float form: {said}",)
    lsb = reference_lsb(expected, None)
    form = Form(file, expected, lsb, True, quantized.inputs, quantized.calibration, "float", shapes)
    return {"float": form}, ()


def form_of(model: ModelProto) -> str:
    """Which form of a model this is, in the routes' words: `qdq` or `float`."""
    return "qdq" if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else "float"


def _batch(model: ModelProto) -> int:
    """How many samples its inputs fix; 1 where they leave it open."""
    constants = {tensor.name for tensor in model.graph.initializer}
    taken = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name not in constants]
    fixed = [dims[0].dim_value for dims in taken if dims]
    return int(max([1, *fixed]))


def outputs(
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
