"""The passes, in order, and why in that order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bridge.exact.budget import Budget
from bridge.exact.graph import Graph, check, check_constants
from bridge.exact.names import reserved
from bridge.exact.operators.checking import check_attributes
from bridge.exact.passes.fold import fold
from bridge.exact.passes.fuse import fuse
from bridge.exact.passes.inherit import inherit
from bridge.exact.passes.layout import Borders, layout
from bridge.exact.passes.merge import MeanForm, merge
from bridge.exact.passes.normalize import normalize
from bridge.exact.passes.possible import possible
from bridge.exact.passes.qdq import attach
from bridge.exact.passes.rescale import rescale
from bridge.exact.passes.tidy import tidy
from bridge.exact.passes.wide_codes import only_biases
from bridge.exact.passes.widen import widen
from bridge.exact.passes.zero_points import at_zero
from bridge.exact.unwritten import refuse_left

Pass = Callable[[Graph], Graph]


def passes(
    *, border: Borders, allow_float: bool, mean: MeanForm, keep_lowest: bool, budget: Budget | None = None
) -> tuple[Pass, ...]:
    """What `convert` runs, in this order."""
    return (
        partial(
            fold, budget=budget
        ),  # first: scales, zero points and weights must be constants before anything can read them
        only_biases,  # before attach, which takes a constant with a scale for codes of 8 bits
        possible,  # before the passes below compute with what it refuses
        attach,  # before fuse, which must know where training put a rounding
        refuse_left,  # after attach, the last that makes operators vanish; the passes below know all that is left
        normalize,  # one spelling for each operator, so that the passes below have one rule for each
        at_zero,  # before fuse, which turns the signs of codes and knows no zero point
        fuse,  # before inherit: a tensor that disappears needs no scale
        widen,  # after fuse, which looks for a convolution right before its batch norm
        partial(
            merge, form=mean, keep_lowest=keep_lowest
        ),  # before inherit: an average that disappears needs no scale either
        partial(
            inherit, finer=mean != "inherit"
        ),  # before layout, which makes new tensors out of those that have their scale
        partial(layout, border=border),  # before rescale: what it inserts must be rescaled like the rest
        tidy,  # after layout, which leaves reshapes that cancel
        partial(rescale, allow_float=allow_float),  # last: the rules of TFLite's kernels
    )


def run_passes(graph: Graph, steps: tuple[Pass, ...]) -> Graph:
    """Each step in order, the graph checked after each; a failed check is our defect and names the step."""
    for step in steps:
        before, after = graph, getattr(step, "func", step).__name__
        with reserved(before.tensors):
            graph = step(before)
        check(graph, after)
        check_attributes(graph, after)
        check_constants(before, graph, after)
    return graph
