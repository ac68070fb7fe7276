"""M68: a pooling operator has another scale at its output than at its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bridge.exact.graph import Node, Tensor
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.files import activation, share_that_differs, tflite_of
from compare.mismatches.parts.operator_edits import rescaled_after
from compare.subjects.case import Case

POOLS = {
    "AVERAGE_POOL_2D": "every kernel of LiteRT runs it and leaves the codes as they are",
    "MAX_POOL_2D": "XNNPACK does not load it, the reference kernel leaves the codes as they are",
}
"""What LiteRT 2.1.0 does; each was tried."""


def detect(case: Case) -> Iterator[Sighting]:
    """Input and output of an 8-bit pool must have the same scale and zero point (TFLite quantization specification)."""
    for node, x, y in _rescaling(case):
        yield Sighting(
            where=f"{node.op}, output '{y.name}'",
            fact=f"{y.q}; input '{x.name}' has {x.q}; {POOLS[node.op]}",
            remedy="Let the pool keep its input's scale and rescale behind it (QUANTIZE), as python -m bridge does.",
        )


def _rescaling(case: Case) -> Iterator[tuple[Node, Tensor, Tensor]]:
    """(pool, input, output) where their parameters differ."""
    graph = None if case.file is None else case.file.graph
    for node in () if graph is None else graph.nodes:
        if graph is None or node.op not in POOLS:
            continue
        x, y = graph.tensors[node.inputs[0]], graph.output(node)
        integer = x.dtype.itemsize == 1 and x.dtype == y.dtype and x.qparams is not None and y.qparams is not None
        if integer and not x.q.same_grid(y.q):
            yield node, x, y


def reproduce() -> Case:
    """An average pool whose output, with its smaller range, has an observer of its own: half the input's scale."""
    x, y = activation("x", (1, 8, 8, 2), 0.5), activation("y", (1, 4, 4, 2), 0.25)
    window = {"stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    pool = Node("AVERAGE_POOL_2D", "pool", ("x",), ("y",), {"padding": "VALID", "fused_activation": "NONE", **window})
    return Case(tflite=tflite_of([pool], [x, y], ["x"], ["y"]))


def repair(case: Case) -> Case:
    """The pool writes with its input's parameters, a QUANTIZE after it brings them to the output's own."""
    assert case.tflite is not None  # noqa: S101 - the catalogue repairs what detect has seen
    return replace(case, tflite=rescaled_after(case.tflite, {y.name: x.q for _, x, y in _rescaling(case)}))


MISMATCH = Mismatch(
    id="M68",
    name="a pool that should rescale",
    side="runtime",
    severity="fault",
    versions="ai-edge-litert 2.1.0 on x86-64",
    source="TFLite 8-bit quantization specification; litert-torch#595; both operators run on both kernel sets",
    cause="Observers give the output of a pool a scale of its own. TFLite's pools cannot rescale: AVERAGE_POOL_2D runs on every "
    "kernel and hands on the input's codes under another scale, so that everything behind it is off by the ratio. "
    "MAX_POOL_2D does the same on the reference kernels; XNNPACK says: failed to delegate MAX_POOL_2D.",
    way_out="Give the pool no observer, or convert with python -m bridge, which rescales behind it. Averages over the whole map "
    "can be a MEAN, which rescales.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=share_that_differs,
    effect=Effect("output codes that differ (share)", 0.75),
)
