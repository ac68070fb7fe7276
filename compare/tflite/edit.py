"""Some tensors of a .tflite replaced; every operator, option and buffer that is not named stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bridge.exact.graph import QParams, Tensor
from compare.tflite.graph import open_tflite
from compare.tflite.unpacked import packed, unpacked


def with_tensors(content: bytes, tensors: Mapping[str, Tensor]) -> bytes:
    """The .tflite with these tensors' quantization and, of constants, data; by the names that `open_tflite` gives.

    Type and shape of a tensor stay: operators were chosen for them. Raises `AssertionError` when they differ.
    """
    model = unpacked(content)
    opened = open_tflite(content).graph
    for described, name in zip(model.subgraphs[0].tensors, opened.tensors, strict=True):
        if name in tensors:
            _change(model, described, opened.tensors[name], tensors[name])
    return packed(model, len(content) + 1024)


def _change(model: Any, described: Any, before: Tensor, after: Tensor) -> None:
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        raise AssertionError(f"Tensor '{after.name}': {after.shape} {after.dtype}, the file has {before}")
    if after.data is not None and not np.array_equal(before.values, after.data):
        from ai_edge_litert import schema_py_generated as schema

        if sum(tensor.buffer == described.buffer for graph in model.subgraphs for tensor in graph.tensors) > 1:
            described.buffer = len(model.buffers)  # the old one holds another tensor's data too
            model.buffers.append(schema.BufferT())
        model.buffers[described.buffer].data = np.frombuffer(np.ascontiguousarray(after.data).tobytes(), np.uint8)
    if after.qparams is not None and after.qparams != before.qparams:
        _describe(described, after.qparams)


def _describe(described: Any, qparams: QParams) -> None:
    quantization = described.quantization
    quantization.scale = qparams.scale.reshape(-1)
    quantization.zeroPoint = qparams.zero_point.reshape(-1).astype(np.int64)
    quantization.quantizedDimension = qparams.axis or 0
    quantization.min = quantization.max = None
