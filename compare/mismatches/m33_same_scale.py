"""M33: an operator that cannot rescale has different scales at its input and output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bridge.exact.graph import Node, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, rewritten, shape_of, share_that_differs, tflite_of
from compare.subjects.case import Case

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
        known = [*_quantized(tensors, node.inputs), *_quantized(tensors, node.outputs)]
        for tensor in known[1:]:
            if not tensor.q.same_grid(known[0].q):
                yield Sighting(
                    where=f"{node.op}, tensor '{tensor.name}'",
                    fact=f"{tensor.q}; '{known[0].name}' has {known[0].q}",
                    remedy="Put a QUANTIZE (or an ADD of zero) between the two scales, or convert with torch-exact.",
                )


def _quantized(tensors: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    """Those among them that hold codes of one byte; the axis of a SPLIT does not."""
    named = [tensors[name] for name in names if name]
    return [tensor for tensor in named if tensor.dtype.itemsize == 1 and tensor.qparams is not None]


def reproduce() -> Case:
    """A RESHAPE whose output scale is 1.5 times its input scale: it runs, and every number is wrong by half."""
    x, y = activation("x", (1, 4), 0.5), activation("y", (1, 2, 2), 0.75)
    shape = shape_of("shape", y)
    reshape = Node("RESHAPE", "reshape", ("x", "shape"), ("y",))
    add = Node("ADD", "add", ("y", "y"), ("z",), {"fused_activation": "NONE"})
    return Case(tflite=tflite_of([reshape, add], [x, y, shape, activation("z", (1, 2, 2), 2.0)], ["x"], ["z"]))


def repair(case: Case) -> Case:
    """Give the output the scale of the input; the numbers it holds were at that scale all the time.

    Codes of a weight have a scale for each channel: no output of another shape can hold them, and it stays as it is.
    """
    assert case.file is not None  # noqa: S101 - the catalogue repairs what detect has seen
    graph = case.file.graph
    changed = dict(graph.tensors)
    for node in graph.nodes:
        source = next(iter(_quantized(graph.tensors, node.inputs)), None)
        if node.op in SHARING and source is not None and source.q.axis is None:
            for tensor in _quantized(graph.tensors, node.outputs):
                changed[tensor.name] = replace(tensor, qparams=source.q)
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
