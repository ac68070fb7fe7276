"""Int8 sums as ARM makes them: where two codes of -128 meet, and nowhere else; and what it does to a trained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.graph import Graph, Node, QParams, constant, per_tensor
from bridge.exact.pair_sums import pairs, with_weights
from bridge.exact.writer import write
from bridge.verifying.litert import Runner
from compare.mismatches.parts import arm_sums
from tests.builders import activation, graph_of

WINDOW = {"stride_h": 1, "stride_w": 1, "fused_activation": "NONE", "dilation_h_factor": 1, "dilation_w_factor": 1}


def one(op: str, shape: tuple[int, ...], codes: np.ndarray, *, padding="SAME", stride=1, fused="NONE") -> Graph:
    """A file of one operator, per channel, its weights as given."""
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    count = codes.shape[axis]
    scales = np.linspace(0.01, 0.02, count).astype(np.float32)
    w = constant("w", codes, QParams(scales, np.zeros(count, np.int32), axis))
    bias = np.arange(count, dtype=np.int32) * 100
    b = constant("b", bias, QParams(scales * np.float32(0.02), np.zeros(count, np.int32), 0))
    x = activation("x", shape, 0.02, -128)
    if op == "FULLY_CONNECTED":
        y, attrs = activation("y", (shape[0], count), 1.5, 60), {"fused_activation": fused}
    else:
        sizes = [
            -(-size // stride) if padding == "SAME" else (size - k) // stride + 1
            for size, k in zip(shape[1:3], codes.shape[1:3], strict=True)
        ]
        y = activation("y", (shape[0], *sizes, count), 1.5, 60)
        attrs = {**WINDOW, "padding": padding, "stride_h": stride, "stride_w": stride, "fused_activation": fused}
        if op == "DEPTHWISE_CONV_2D":
            attrs["depth_multiplier"] = 1
    return graph_of([Node(op, "node", ("x", "w", "b"), ("y",), attrs)], [x, w, b, y], ["y"])


def lowest_half(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(random.random(shape) < 0.5, -128, random.integers(-128, 128, shape)).astype(np.int8)


CASES = {
    "CONV_2D 3x3": ("CONV_2D", (2, 5, 6, 20), (7, 3, 3, 20), {}),
    "CONV_2D 1x1": ("CONV_2D", (1, 5, 5, 40), (3, 1, 1, 40), {"padding": "VALID"}),
    "CONV_2D strided": ("CONV_2D", (1, 7, 6, 16), (4, 3, 2, 16), {"stride": 2, "fused": "RELU6"}),
    "DEPTHWISE_CONV_2D 3x3": ("DEPTHWISE_CONV_2D", (2, 6, 5, 9), (1, 3, 3, 9), {}),
    "DEPTHWISE_CONV_2D 5x5": ("DEPTHWISE_CONV_2D", (1, 9, 9, 4), (1, 5, 5, 4), {"padding": "VALID", "fused": "RELU"}),
    "DEPTHWISE_CONV_2D 2x3": ("DEPTHWISE_CONV_2D", (1, 6, 7, 6), (1, 2, 3, 6), {"stride": 2}),
    "FULLY_CONNECTED": ("FULLY_CONNECTED", (3, 45), (6, 45), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_without_the_wrap_it_is_what_xnnpack_computes_here(case):
    """So that the numpy form is the kernels', and the wrap the only thing that sets ARM apart."""
    pytest.importorskip("ai_edge_litert")
    op, shape, weights, how = CASES[case]
    random = np.random.default_rng(0)
    graph = one(op, shape, lowest_half(random, weights), **how)
    x = lowest_half(random, shape)
    assert (arm_sums.outputs(graph, x, wraps=False) == Runner(write(graph), "xnnpack")({"x": x})["y"]).all()


@pytest.mark.parametrize("case", CASES)
def test_codes_of_minus_128_are_added_wrongly_and_rightly_once_they_are_safe(case):
    op, shape, weights, how = CASES[case]
    random = np.random.default_rng(1)
    graph = one(op, shape, lowest_half(random, weights), **{**how, "fused": "NONE"})
    safe = with_weights("safe", graph)
    x = lowest_half(random, (8, *shape))
    broken = [arm_sums.outputs(graph, each, wraps=True) != arm_sums.outputs(graph, each, wraps=False) for each in x]
    assert np.mean(broken) > 0.05
    for each in x:
        assert (arm_sums.outputs(safe, each, wraps=True) == arm_sums.outputs(safe, each, wraps=False)).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", CASES)
def test_what_the_rule_calls_harmless_is_added_rightly(case, seed):
    """One code in a channel with any input; any codes with an input above -128: drawn, and never wrong."""
    op, shape, weights, how = CASES[case]
    random = np.random.default_rng(seed)
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    single = np.full(weights, -127, np.int8)
    for channel in np.moveaxis(single, axis, 0):
        channel.reshape(-1)[0] = 0
        flat = channel.reshape(-1).copy()
        flat[random.integers(flat.size)] = -128
        channel[...] = flat.reshape(channel.shape)
    graph = one(op, shape, single, **how)
    assert not any(found.overflows for found in pairs(graph))
    x = np.where(random.random(shape) < 0.9, -128, random.integers(-128, 128, shape)).astype(np.int8)
    assert (arm_sums.outputs(graph, x, wraps=True) == arm_sums.outputs(graph, x, wraps=False)).all()

    above = one(op, shape, np.full(weights, -128, np.int8), **how)
    above = replace(above, tensors={**above.tensors, "x": activation("x", shape, 0.02, -100)})
    x = np.maximum(x, np.int8(-127))
    assert (arm_sums.outputs(above, x, wraps=True) == arm_sums.outputs(above, x, wraps=False)).all()


def test_a_box_filter_trained_with_qnnpack_is_far_off_on_arm_as_it_was_trained_and_not_by_default():
    """The network of benchmarks/arm/box_filter.py; its depthwise layer is computed as XNNPACK does it on ARM."""
    pytest.importorskip("torch")
    pytest.importorskip("ai_edge_litert")
    from benchmarks.arm import box_filter

    network, photos = box_filter.trained(), box_filter.images(8, seed=1000)
    found = {}
    for weights in ("safe", "keep"):
        fed, expected, graph = box_filter.codes(network, weights, photos)
        first, depthwise = graph.nodes
        (given,) = graph.inputs
        runner = Runner(write(replace(graph, outputs=(*first.outputs, *depthwise.outputs))), "xnnpack")
        layer = replace(graph, nodes=(depthwise,))
        made = [runner({given: codes}) for codes in fed[given]]
        arm = [arm_sums.outputs(layer, codes[first.outputs[0]], wraps=True) for codes in made]
        x86 = np.stack([codes[depthwise.outputs[0]] for codes in made])
        found[weights] = (np.stack(arm), x86, expected, depthwise, graph)

    arm, x86, expected, depthwise, graph = found["keep"]
    kept = graph.tensors[depthwise.inputs[1]].values
    assert (kept[..., : box_filter.BOXES] == -128).all()
    assert np.abs(x86.astype(int) - expected).max() <= 1
    assert (arm == expected).mean() < 0.85
    assert np.abs(arm.astype(int) - expected).max() > 100

    arm, x86, expected, depthwise, graph = found["safe"]
    assert (arm == x86).all()
    assert np.abs(arm.astype(int) - expected).max() <= 3  # what -127 instead of -128 costs, nine times
    (note,) = [note for note in graph.notes if note.kind == "weights"]
    assert "54 codes of -128 in channels 0, 1, 2, 3, 4, 5 of 16" in note.what


def test_the_windows_of_same_padding_hold_the_zero_point():
    graph = one("DEPTHWISE_CONV_2D", (1, 2, 2, 1), np.ones((1, 3, 3, 1), np.int8))
    x = activation("x", (1, 2, 2, 1), 0.02, 5)
    graph = replace(
        graph, tensors={**graph.tensors, "x": x, "b": constant("b", np.zeros(1, np.int32), per_tensor(1.0, 0))}
    )
    codes = np.full((1, 2, 2, 1), 5, np.int8)  # zeros everywhere: padding adds nothing
    assert (arm_sums.outputs(graph, codes, wraps=False) == 60).all()
