"""A team's own ONNX file as the subject of a matrix, with ONNX Runtime's outputs as the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.reader import parse_whole
from bridge.verifying import onnx_runtime
from compare.subjects.model import Form, Subject, reference_lsb

CALIBRATION_SAMPLES = 100


def prepare(onnx: Path, inputs: Mapping[str, np.ndarray], folder: Path) -> Subject:
    """The model, copied into `folder` as one file, with its samples; the first of them calibrate.

    `labels` among the inputs are the samples' classes.

    Raises `BridgeError` for a file or inputs that ONNX Runtime does not take.
    """
    model = parse_whole(onnx)
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "model.onnx"
    copy.write_bytes(model.SerializeToString())
    given = dict(inputs)
    labels = given.pop("labels", None)
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    if len(names) == 1 and len(given) == 1:
        given = {names[0]: next(iter(given.values()))}
    missing = [name for name in names if name not in given]
    if missing:
        raise BridgeError(
            where="--inputs",
            problem=f"has no array '{missing[0]}' (it has: {', '.join(given) or 'nothing'})",
            remedy=f"Save one array for each input of the model, samples along axis 0: {', '.join(names)}.",
        )
    samples = {name: np.ascontiguousarray(given[name], np.float32) for name in names}
    counts = {len(array) for array in samples.values()} | ({len(labels)} if labels is not None else set())
    if len(counts) != 1:
        raise BridgeError(
            where="--inputs",
            problem=f"has arrays with different numbers of samples: {sorted(counts)}",
            remedy="Save as many samples of each input, and as many labels.",
        )
    expected, shapes = _outputs(copy, samples)
    lsb = _output_scale(model) or reference_lsb(expected, None)
    shown = {name: array[:CALIBRATION_SAMPLES] for name, array in samples.items()}
    form = Form(copy, expected, lsb, onnx=True, inputs=samples, calibration=shown, output_shapes=shapes)
    notes = (
        f"Converters that calibrate were given the first {len(next(iter(shown.values())))} of your own samples.",
        "Its output is taken for one score for each class: a sample has changed when another score is the largest."
        if form.classifies
        else "Its outputs are no scores of classes: a sample has changed when an output is more than one LSB away.",
    )
    return Subject(onnx.name, {form_of(model): form}, labels, notes)


def form_of(model: ModelProto) -> str:
    """Which form of a model this is, in the routes' words: `qdq` or `float`."""
    return "qdq" if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else "float"


def _outputs(onnx: Path, samples: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    """float32 (N, outputs), sample by sample, and the shape of each output of one."""
    session = onnx_runtime.session(onnx)
    count = len(next(iter(samples.values())))
    parts = onnx_runtime.outputs(session, samples, where=f"ONNX Runtime on {onnx.name}")
    flat = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    return flat.astype(np.float32), tuple(part.shape[1:] for part in parts)


def _output_scale(model: ModelProto) -> float | None:
    """The scale of the DequantizeLinear that writes the first output, where there is one."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    output = model.graph.output[0].name
    for node in model.graph.node:
        if output in node.output and node.op_type == "DequantizeLinear" and node.input[1] in constants:
            return float(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])
    return None
