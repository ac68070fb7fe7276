"""The lowest code of a tensor: proved where it can be, -128 where not, and never above what LiteRT computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.exact.graph import Graph, Node, constant, per_tensor
from bridge.exact.lowest_codes import lowest_codes
from bridge.exact.writer import write
from bridge.verifying.litert import Runner
from tests.bridge.exact.graphs import Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS
from tests.builders import activation, graph_of

X = activation("x", (1, 4, 4, 2), 0.5, -3)
SEVEN = constant("seven", np.array(-7, np.int8), per_tensor(0.5, -3))


def above(op: str, *more: str, y=None, **attrs) -> int:
    """The bound of `op` on a tensor that a MAXIMUM holds at -7 and above."""
    raised, y = replace(X, name="raised"), y or replace(X, name="y")
    nodes = [Node("MAXIMUM", "m", ("x", "seven"), ("raised",)), Node(op, "n", ("raised", *more), ("y",), attrs)]
    return lowest_codes(graph_of(nodes, [X, SEVEN, raised, y], ["y"]))["y"]


def test_an_input_can_hold_every_code_whatever_training_clamped_it_to():
    clamped = activation("x", (1, 4), 0.5, 0, qmin=0)
    assert lowest_codes(graph_of([], [clamped], ["x"])) == {"x": -128}


@pytest.mark.parametrize(
    ("op", "bound"),
    [("RESHAPE", -7), ("MAX_POOL_2D", -7), ("PAD", -7), ("AVERAGE_POOL_2D", -8), ("LOGISTIC", -128), ("CONV_2D", -128)],
)
def test_what_moves_codes_keeps_the_bound_what_rounds_gives_one_away_and_what_is_unknown_has_none(op, bound):
    assert above(op) == bound


def test_padding_is_the_code_of_zero_and_counts():
    y = activation("y", (1, 6, 6, 2), 0.5, -90)
    x = activation("x", (1, 4, 4, 2), 0.5, -90)
    floor = constant("floor", np.array(-7, np.int8), per_tensor(0.5, -90))
    nodes = [Node("MAXIMUM", "m", ("x", "floor"), ("raised",)), Node("PAD", "n", ("raised",), ("y",))]
    assert lowest_codes(graph_of(nodes, [x, floor, replace(x, name="raised"), y], ["y"]))["y"] == -90


def test_another_grid_breaks_the_chain_but_for_what_rescales():
    finer = activation("y", (1, 4, 4, 2), 0.25, 10)
    assert above("RESHAPE", y=finer) == -128
    assert above("QUANTIZE", y=finer) == 1  # (-7 + 3) * 0.5 / 0.25 + 10 = 2, and one of room


def test_a_fused_relu_ends_at_the_zero_point_of_its_output():
    assert above("CONV_2D", fused_activation="RELU") == -3
    assert above("ADD", fused_activation="RELU_N1_TO_1") == -6  # -3 - 1 / 0.5, and one of room


def whole(graph: Graph) -> Graph:
    """The graph with every int8 tensor that is computed as an output."""
    made = [name for node in graph.nodes for name in node.outputs if graph.tensors[name].dtype == np.int8]
    return replace(graph, outputs=tuple(dict.fromkeys(made)))


def test_no_drawn_graph_leaves_its_bounds():
    """Random graphs, fed with random codes and with -128 alone: what LiteRT computes is never below the bound."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("onnxruntime")
    proved, graphs = 0, 0
    for seed in range(160):
        try:
            conversion = convert(draw_model(Seeded(seed), STEPS).proto)
        except (Unusable, BridgeError):
            continue
        graph = whole(conversion.graph)
        if not graph.outputs or any(graph.tensors[name].dtype != np.int8 for name in graph.inputs):
            continue
        lows, random = lowest_codes(graph), np.random.default_rng(seed)
        runner = Runner(write(graph), "xnnpack")
        for lowest in (-128, 127):
            shapes = {name: graph.tensors[name].shape for name in graph.inputs}
            codes = {name: random.integers(-128, lowest + 1, shape).astype(np.int8) for name, shape in shapes.items()}
            for name, found in runner(codes).items():
                assert found.min(initial=127) >= lows[name], (seed, name)
        graphs += 1
        proved += sum(lows[name] > -128 for name in graph.outputs)
    assert graphs > 60
    assert proved > 20, "hardly anything was proved: the test has become empty"
