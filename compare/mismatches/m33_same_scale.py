"""M33: an operator that cannot rescale has different scales at its input and output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge.exact.graph import Node, QParams
from compare.mismatches.files import activation, rewritten, shape_of, share_that_differs, tflite_of
from compare.mismatches.model import Case, Effect, Mismatch, Sighting

SHARING = {
    "GATHER", "PAD", "PADV2", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPLIT", "SPLIT_V",
    "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE",
}  # fmt: skip
"""TFLite 8-bit quantization specification: inputs and outputs must have the same scale and zero point.

Pools are M68, concatenations M69.
"""


def detect(case: Case) -> Iterator[Sighting]:
    """Every int8 input and output of an operator that only moves or picks values must share one scale."""
    if case.file is None:
        return
    tensors = case.file.graph.tensors
    for node in case.file.graph.nodes:
        if node.op not in SHARING:
            continue
        moving = [tensors[name] for name in (*node.inputs, *node.outputs) if name and tensors[name].dtype.itemsize == 1]
        known = [tensor for tensor in moving if tensor.qparams is not None]
        for tensor in known[1:]:
            if not tensor.q.same_grid(known[0].q):
                yield Sighting(
                    where=f"{node.op}, tensor '{tensor.name}'",
                    fact=f"{tensor.q}; '{known[0].name}' has {known[0].q}",
                    remedy="Put a QUANTIZE (or an ADD of zero) between the two scales, or convert with torch-exact.",
                )


def reproduce() -> Case:
    """A RESHAPE whose output scale is 1.5 times its input scale: it runs, and every number is wrong by half."""
    x, y = activation("x", (1, 4), 0.5), activation("y", (1, 2, 2), 0.75)
    shape = shape_of("shape", y)
    reshape = Node("RESHAPE", "reshape", ("x", "shape"), ("y",))
    add = Node("ADD", "add", ("y", "y"), ("z",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([reshape, add], [x, y, shape, activation("z", (1, 2, 2), 2.0)], ["x"], ["z"]))


def repair(case: Case) -> Case:
    """Give the output the scale of the input; the numbers it holds were at that scale all the time."""
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    graph = case.file.graph
    changed = dict(graph.tensors)
    for node in graph.nodes:
        source = graph.tensors[node.inputs[0]].qparams
        if node.op in SHARING and source is not None:
            for name in node.outputs:
                changed[name] = replace(changed[name], qparams=QParams(source.scale, np.asarray(source.zero_point)))
    return rewritten(case, changed)


MISMATCH = Mismatch(
    id="M33",
    name="different scales around an operator that cannot rescale",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0",
    source="TFLite 8-bit quantization specification; litert-torch#595; kernels accept RESHAPE silently",
    cause="Observers give each tensor a scale of its own, but reshape, pad, slice and transpose copy codes. "
    "Some kernels refuse such a file, others copy the codes and call them something else.",
    way_out="Rescale with an operator that can (QUANTIZE), or let both tensors share the scale that training gave one of them.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("output codes that differ (share)", 0.5),
)
