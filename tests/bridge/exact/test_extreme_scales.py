"""Each operator of the table at scales far apart, drawn: both kernel sets compute what a float kernel does, or it is refused.

This is where an operator's answer in bridge/exact/kernels.py is held to account: one step of the input from 2^-40 to 2^34
steps of the output, whatever its row claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.accumulators import refuse_wrapping
from bridge.exact.convert import convert
from bridge.exact.graph import Graph, Node, QParams, Tensor
from bridge.exact.limits import refuse_beyond_limits
from bridge.exact.schema import OPERATORS
from bridge.exact.writer import write
from bridge.verifying.litert import KERNELS, Runner
from tests.bridge.exact.bounded import bounded
from tests.bridge.exact.graphs import Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS
from tests.bridge.exact.test_schema import EXAMPLES, X, like
from tests.builders import graph_of

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

Arrays = dict[str, np.ndarray]
PLACE = "bridge/exact/kernels.py says of it"
EXPONENTS = (-40, -20, 0, 6, 7, 8, 12, 19, 20, 24, 27, 30, 34)
"""Of two: steps of the output that one step of the input is, before a drawn factor between 1 and 2."""


def scaled(tensor: Tensor, by: float) -> Tensor:
    if tensor.qparams is None:
        return tensor
    scale = (tensor.q.scale.astype(np.float64) * by).astype(np.float32)
    return replace(tensor, qparams=QParams(scale, tensor.q.zero_point, tensor.q.axis))


REQUANTIZE = {"QUANTIZE": ([X], like(X), {})}
"""From codes to codes; the example of the schema's test comes from real numbers."""


def example(op: str, by: float) -> Graph:
    """The operator's example of test_schema.py, its input so much coarser than there; its output too where it must be."""
    operands, output, options = (EXAMPLES | REQUANTIZE)[op]
    outputs = list(output) if isinstance(output, list) else [output]
    kernel = OPERATORS[op].kernel
    first = next(each.name for each in operands if not each.is_constant)
    coarser = {each.name for each in operands if each.name == first or each.dtype == np.int32 or kernel.one_scale}
    operands = [scaled(each, by) if each.name in coarser else each for each in operands]
    if kernel.one_scale:
        outputs = [scaled(each, by) for each in outputs]
    names = tuple(each.name for each in operands), tuple(each.name for each in outputs)
    return graph_of([Node(op, "node", *names, options)], [*operands, *outputs], names[1])


def float_kernel(graph: Graph) -> Callable[[Arrays], Arrays]:
    """The same operator on the numbers that the codes stand for, which is nothing at all where only their form changes."""
    if graph.nodes[0].op in ("QUANTIZE", "DEQUANTIZE"):
        return lambda feeds: {graph.outputs[0]: next(iter(feeds.values()))}
    return Runner(write(in_float(graph)), "reference")


def in_float(graph: Graph) -> Graph:
    """The same operator on the numbers that the codes stand for."""

    def real(tensor: Tensor) -> Tensor:
        if tensor.qparams is None:
            return tensor
        data = tensor.real if tensor.is_constant else None
        return Tensor(tensor.name, tensor.shape, np.dtype(np.float32), data)

    return replace(graph, tensors={name: real(tensor) for name, tensor in graph.tensors.items()})


def reals(codes: np.ndarray, tensor: Tensor) -> np.ndarray:
    if tensor.qparams is None:
        return codes
    return ((codes.astype(np.float64) - int(tensor.q.zero_point)) * float(tensor.q.scale)).astype(np.float32)


def away(graph: Graph, kernels: str, random: np.random.Generator) -> float:
    """By how many codes the operator is away from its float kernel at most, over drawn codes."""
    int8, reference = Runner(write(graph), kernels), float_kernel(graph)
    worst = 0.0
    for _ in range(6):
        feeds = {}
        for name in graph.inputs:
            x = graph.tensors[name]
            whole = random.integers(-128, 128, x.shape).astype(np.int8)
            few = random.choice(np.array([-128, -1, 0, 1, 127], np.int8), x.shape)
            feeds[name] = whole if random.random() < 0.7 else few
        made = int8(feeds)
        wanted = reference({name: reals(codes, graph.tensors[name]) for name, codes in feeds.items()})
        for name, codes in made.items():
            y = graph.tensors[name]
            if y.qparams is None:
                worst = max(worst, 0.0 if np.allclose(codes, wanted[name], rtol=1e-6) else np.inf)
                continue
            steps = np.rint(wanted[name].astype(np.float64) / float(y.q.scale)) + int(y.q.zero_point)
            worst = max(worst, float(np.abs(codes - np.clip(steps, -128, 127)).max()))
    return worst


def judged(op: str, kernels: str) -> list[str]:
    """A line for each exponent at which the operator is neither refused nor right."""
    found = []
    for exponent in EXPONENTS:
        random = np.random.default_rng([exponent + 64, OPERATORS[op].code])
        graph = example(op, 2.0**exponent * float(random.uniform(1, 2)))
        try:
            refuse_beyond_limits(graph)
            refuse_wrapping(graph)
        except BridgeError:
            continue

        def run(graph: Graph = graph, random: np.random.Generator = random) -> Any:
            return away(graph, kernels, random)

        try:
            answer = bounded(run)
        except BridgeError as error:
            answer = str(error)  # LiteRT does not load it
        if isinstance(answer, str) or not answer <= 1:
            found.append(f"2^{exponent}: {answer}")
    return found


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("op", OPERATORS)
def test_an_operator_at_scales_far_apart_is_right_or_refused(op, kernels):
    wrong = judged(op, kernels)
    assert not wrong, f"{PLACE}: {OPERATORS[op].kernel}; {kernels} kernels, by codes: {wrong}"


def test_what_must_be_at_one_scale_is_so_in_every_drawn_file():
    """The rows whose kernels do not rescale claim it, and no runtime looks."""
    seen = set()
    for seed in range(150):
        try:
            done = convert(draw_model(Seeded(seed), STEPS, most=5).proto)
        except (Unusable, BridgeError):
            continue
        for node in done.graph.nodes:
            named = [done.graph.tensors[name] for name in (*node.inputs, *node.outputs) if name]
            codes = [tensor for tensor in named if tensor.dtype == np.int8 and tensor.qparams is not None]
            if OPERATORS[node.op].kernel.one_scale and codes:
                assert all(tensor.q.same_grid(codes[0].q) for tensor in codes), (
                    f"{PLACE} one_scale: {node} of seed {seed}"
                )
                seen.add(node.op)
    assert len(seen) > 15
