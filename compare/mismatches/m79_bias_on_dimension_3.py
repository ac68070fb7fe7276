"""M79: the bias of a depthwise convolution carries the quantized dimension of its weights, and no runtime loads the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tflite

from bridge.exact.graph import Node
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, codes, tflite_of
from compare.mismatches.parts.operator_edits import edited
from compare.running.trying import refusals
from compare.subjects.case import Case

MESSAGE = re.compile(r"quantized_dimension must be in range \[0, (\d+)\)\. Was (\d+)")
"""lite/core/interpreter_builder.cc, ParseQuantization."""
REMEDY = (
    "Set the quantized_dimension of these tensors to 0: a bias has one dimension (compare.mismatches.m79_bias_on_dimension_3, "
    "repair); or convert with python -m bridge, TensorFlow's converter or onnx2tf 1.29."
)


def detect(case: Case) -> Iterator[Sighting]:
    """A tensor quantized along a dimension that it does not have; or the runtime's refusal of one."""
    found = list(_beyond(case.tflite)) if case.tflite is not None else []
    if found:
        name, rank, dimension = found[0]
        yield Sighting(
            where=f"tensor '{name}'",
            fact=f"has {rank} dimension{'' if rank == 1 else 's'} and scales along dimension {dimension}; "
            f"{len(found)} such tensors",
            remedy=REMEDY,
        )
    elif said := MESSAGE.search(case.log):
        yield Sighting(where="the runtime", fact=f"'{said[0]}'", remedy=REMEDY)


def _beyond(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, rank and quantized dimension of tensors whose dimension is beyond their rank.

    One scale is no scale along a dimension: runtimes do not look at it then.
    """
    model = tflite.Model.GetRootAsModel(content, 0)
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for place in range(graph.TensorsLength()):
            tensor = graph.Tensors(place)
            quantization, rank = tensor.Quantization(), tensor.ShapeLength()
            if quantization is not None and quantization.ScaleLength() > 1:
                dimension = quantization.QuantizedDimension()
                if not 0 <= dimension < rank:
                    yield (tensor.Name() or b"").decode(errors="replace"), rank, dimension


def _depthwise() -> bytes:
    """(1, 6, 6, 4) through a depthwise 3x3 convolution with a scale for each channel."""
    random = np.random.default_rng(0)
    scales = np.array([0.01, 0.02, 0.005, 0.04], np.float32)
    tensors = [
        activation("x", (1, 6, 6, 4), 0.05),
        codes("w", random.integers(-127, 128, (1, 3, 3, 4)), scales, axis=3),
        codes("b", random.integers(-500, 500, 4), scales * np.float32(0.05), axis=0, dtype=np.int32),
        activation("y", (1, 4, 4, 4), 0.1),
    ]
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1}
    return tflite_of([Node("DEPTHWISE_CONV_2D", "conv", ("x", "w", "b"), ("y",), options)], tensors, ["x"], ["y"])


def reproduce() -> Case:
    """The bias with the dimension of its weights, as onnx2tf 2.6.9 writes it."""

    def spoilt(_model: Any, main: Any) -> None:
        for tensor in main.tensors:
            if len(tensor.shape) == 1 and tensor.quantization is not None:
                tensor.quantization.quantizedDimension = 3

    content = edited(_depthwise(), spoilt)
    return Case(tflite=content, log=refusals(content))


def repair(case: Case) -> Case:
    """Dimension 0 for every tensor with one dimension and as many entries as scales."""
    assert case.tflite is not None  # noqa: S101 - a repair of a file

    def mended(model: Any, _main: Any) -> None:
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                if tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.shape) == 1:
                    tensor.quantization.quantizedDimension = 0

    content = edited(case.tflite, mended)
    return replace(case, tflite=content, log=refusals(content))


def measure(broken: Case, repaired: Case) -> float:
    """Files that are refused."""
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M79",
    name="bias quantized along a dimension it does not have",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 2.6.9 (tflite_builder/quantization.py, line 1067); refused by TensorFlow 2.15 to 2.21, tflite-runtime "
    "2.14 and LiteRT 1.0 to 2.3",
    source="tensorflow#41324, #68308, tflite-micro#2680; reproduced",
    cause="The weights of a depthwise convolution are quantized along dimension 3, their bias along its only one, 0. onnx2tf "
    "2.6.9 writes 3 for both when it quantizes a float model after training, then loads the file to validate it, and stops: no "
    "float model with a depthwise convolution reaches int8. Converters of TensorFlow 2.0's time are reported to have written "
    "such files too, and TFLM to take them (its person_detect example).",
    way_out=REMEDY,
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("files that are refused", 1),
)
