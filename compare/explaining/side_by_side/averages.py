"""A layer right behind an average, with the average taken in: its weights repeated over what was averaged, divided by n.

    sum over c of w_c * (sum over n places of x_cp) / n  =  sum over c, p of (w_c / n) * x_cp

The exact bridge writes an average that training gave no scale that way, so that nothing is rounded in between.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.exact.graph import Node
from compare.explaining.side_by_side.columns import Columns, first_row
from compare.explaining.side_by_side.layers import Layer, Weights
from compare.explaining.side_by_side.onnx_side import OnnxSide


def with_average(side: OnnxSide, columns: Columns, layer: Layer) -> Layer | None:
    """The layer of the model that reads what its average reads; None where no average stands right before it."""
    places = columns.of_model(layer.source)
    if places is None or len(places.tensors) != 1:
        return None
    node = side.producers.get(places.tensors[0])
    axes = None if node is None else _axes(side, node)
    if node is None or axes is None or 0 in axes:
        return None
    shape = side.graph.tensors[node.inputs[0]].shape
    count = int(np.prod([shape[axis] for axis in axes]))
    if layer.op in ("Gemm", "MatMul"):
        kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
        owner = np.broadcast_to(np.arange(int(np.prod(kept))).reshape(kept), shape)[0].reshape(-1)
        row = first_row(places.places, layer.weights.real.shape[1])
        if row is None:
            return None
        where = {int(place): feature for feature, place in enumerate(row)}
        if not set(owner.tolist()) <= set(where):
            return None
        repeated = _repeated(layer.weights, np.array([where[place] for place in owner.tolist()]), count)
    elif set(axes) == set(range(2, len(shape))) and layer.weights.real[0].size == layer.weights.real.shape[-1]:
        window = (layer.channels, *shape[2:], layer.weights.real.shape[-1])
        flat = Weights(
            layer.weights.real.reshape(layer.channels, *[1] * (len(shape) - 2), -1),
            None
            if layer.weights.step is None
            else layer.weights.step.reshape(layer.channels, *[1] * (len(shape) - 2), -1),
        )
        repeated = Weights(
            np.broadcast_to(flat.real / count, window),
            None if flat.step is None else np.broadcast_to(flat.step / count, window),
        )
    else:
        return None
    return replace(
        layer,
        weights=repeated,
        source=node.inputs[0],
        source_grid=side.grid_before(node.inputs[0]),
        tensors=(*layer.tensors, node.outputs[0]),
        strides=(),
        dilations=(),
        pads=None,
    )


def _axes(side: OnnxSide, node: Node) -> tuple[int, ...] | None:
    """The axes that an operator averages; None where it is no average, or does not say."""
    rank = len(side.graph.tensors[node.inputs[0]].shape)
    if node.op == "GlobalAveragePool":
        return tuple(range(2, rank))
    if node.op != "ReduceMean":
        return None
    axes = node.attrs.get("axes")
    if len(node.inputs) > 1 and node.inputs[1]:
        value = side.constants.value(node.inputs[1])
        axes = None if value is None else value.reshape(-1).tolist()
    return None if not axes else tuple(sorted(int(axis) % rank for axis in axes))


def _repeated(weights: Weights, columns: np.ndarray, count: int) -> Weights:
    step = weights.step
    if step is not None:
        step = np.broadcast_to(step, weights.real.shape)[:, columns] / count
    return Weights(weights.real[:, columns] / count, step)
