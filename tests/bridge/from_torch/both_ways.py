"""One model by torch.fx and by torch's ONNX exporter, the control: the same file, names aside."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bridge.exact.convert import Conversion, Options
from bridge.from_torch import by_fx, by_onnx, ready
from bridge.verifying.litert import KERNELS, Runner
from compare.tflite.graph import open_tflite


def both_ways(
    model: torch.nn.Module, *examples: np.ndarray, options: Options | None = None
) -> tuple[Conversion, Conversion]:
    """By torch.fx, and by ONNX."""
    return by_fx(ready(model), examples, options), by_onnx(ready(model), examples, options)


def assert_same_file(one: bytes, other: bytes) -> None:
    """Operators, options, constants and scales, in order, and how they are wired."""
    for mine, theirs in zip(_written(one), _written(other), strict=True):
        assert mine == theirs


def assert_same_outputs(one: Conversion, other: Conversion) -> None:
    """On random codes and both kernel sets."""
    shape = one.graph.tensors[one.graph.inputs[0]].shape
    codes = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    for kernels in KERNELS:
        mine, theirs = (Runner(each.tflite, kernels)({each.graph.inputs[0]: codes}) for each in (one, other))
        assert all(np.array_equal(a, b) for a, b in zip(mine.values(), theirs.values(), strict=True))


def _written(content: bytes) -> list[Any]:
    graph = open_tflite(content).graph
    places = {name: place for place, name in enumerate(graph.inputs)}
    lines: list[Any] = [[_tensor(graph.tensors[name]) for name in graph.inputs]]
    for node in graph.nodes:
        line: list[Any] = [node.op, dict(node.attrs)]
        for name in (*node.inputs, *node.outputs):
            if not name:
                line.append(None)
            elif graph.tensors[name].is_constant:
                line.append(_tensor(graph.tensors[name]))
            else:
                line.append((places.setdefault(name, len(places)), _tensor(graph.tensors[name])))
        lines.append(line)
    lines.append([places[name] for name in graph.outputs])
    return lines


def _tensor(tensor: Any) -> Any:
    data = None if tensor.data is None else tensor.data.tobytes()
    q = tensor.qparams
    scales = None if q is None else (q.scale.tobytes(), q.zero_point.tobytes(), q.axis)
    return tensor.shape, str(tensor.dtype), scales, data
