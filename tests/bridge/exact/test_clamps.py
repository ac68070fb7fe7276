"""A clamp that training put on codes (a Clip between Q and DQ) holds, wherever it stands and whatever wrote the codes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from tests.bridge.exact.graphs import Builder, Seeded, Unusable, draw_model
from tests.bridge.exact.judging import apart
from tests.bridge.exact.steps import STEPS
from tests.bridge.exact.test_codes import clip, coded

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")


def with_clips(model: onnx.ModelProto, random: np.random.Generator) -> onnx.ModelProto:
    """The model with a Clip behind some of its QuantizeLinears, seven bits among them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    zeros = {tensor.name: numpy_helper.to_array(tensor) for tensor in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "QuantizeLinear" or not random.integers(2) or node.input[0] in zeros:
            continue
        dtype = zeros[node.input[2]].dtype
        lowest, highest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        zero = int(zeros[node.input[2]])
        low, high = sorted(random.choice(np.arange(lowest, highest + 1), 2, replace=False).tolist())
        low, high = [
            (low, high), (lowest, high), (low, highest), (lowest, lowest + 127), (max(lowest, zero - 1), highest),
            (min(zero, highest - 1), highest), (lowest, max(zero, lowest + 1)), (lowest, max(zero - 7, lowest + 1)),
            (min(zero + 9, highest - 1), highest),
        ][random.integers(9)]  # fmt: skip
        limits = [f"{node.output[0]}/low", f"{node.output[0]}/high"]
        for name, limit in zip(limits, (low, high), strict=True):
            copy.graph.initializer.append(numpy_helper.from_array(np.array(limit, dtype), name))
        clipped = f"{node.output[0]}/clipped"
        nodes.append(helper.make_node("Clip", [node.output[0], *limits], [clipped], clipped))
        for reader in copy.graph.node:
            reader.input[:] = [clipped if name == node.output[0] else name for name in reader.input]
    by_name = {node.name: node for node in copy.graph.node}
    del copy.graph.node[:]
    copy.graph.node.extend(by_name.get(node.name, node) for node in nodes)
    return copy


@pytest.mark.parametrize("step", STEPS)
def test_a_clamp_around_one_operator_holds(step):
    """Before it, behind it, on all of its inputs and outputs: by chance, judged against the same model without clamps."""
    drawn = 0
    for seed in range(200, 260):
        try:
            model = draw_model(Seeded(seed), {step: STEPS[step]}, most=1)
            without = apart(model.proto, model.inputs)
            clamped = apart(with_clips(model.proto, np.random.default_rng(seed)), model.inputs)
        except (Unusable, BridgeError):
            continue
        assert clamped <= max(without, 1), f"seed {seed}"
        drawn += 1
        if drawn == 8:
            return
    assert drawn


@pytest.mark.parametrize("seed", range(40))
def test_every_output_of_a_split_keeps_its_own_clamp(seed):
    b = Builder(Seeded(seed))
    x = b.quantize(b.input(2, 6, magnitude=2.0))
    parts = b.add("Split", [x, b.constant([1, 2, 3], np.int64)], outputs=3, axis=1)
    outputs = []
    for part in parts:
        pair = b.qparams[x] if b.odds(2) else (np.float32(0.03), np.int8(5))
        names = [b.constant(pair[0]), b.constant(pair[1], pair[1].dtype)]
        codes = str(b.add("QuantizeLinear", [part, *names]))
        outputs.append(str(b.add("DequantizeLinear", [clip(b, codes) if b.odds(2) else codes, *names])))
    model = b.finish(outputs)
    assert apart(model.proto, model.inputs) <= 1


@pytest.mark.parametrize("kind", ["Relu", "Clip", "Pad", "AveragePool", "Concat", "MaxPool"])
@pytest.mark.parametrize("seed", range(12))
def test_an_operator_between_two_equal_clamps_stays_within_them(kind, seed):
    """Where the zero point lies outside the clamp, a ReLU, a padding or a limit brings in codes that lie outside, too."""
    b = Builder(Seeded(seed))
    x, (scale, zero) = coded(b, b.input(1, 2, 4, 4, magnitude=2.0), np.int8)
    at = int(b.constants[zero])
    low, high = [(at + 9, 127), (-128, at - 9), (at - 30, at + 20), (at, 127), (-128, at)][seed % 5]
    low, high = max(low, -128), min(high, 127)
    if low >= high:
        low, high = -128, 100
    limits = [b.constant(low, np.int8), b.constant(high, np.int8)]
    real = b.add("DequantizeLinear", [b.add("Clip", [x, *limits]), scale, zero])
    y = {
        "Relu": lambda: b.add("Relu", [real]),
        "Clip": lambda: b.add("Clip", [real, b.constant(-0.3), b.constant(0.4)]),
        "Pad": lambda: b.add(
            "Pad", [real, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), b.constant(b.one_of(0, 5, -5))]
        ),
        "AveragePool": lambda: b.add(
            "AveragePool", [real], kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
        ),
        "Concat": lambda: b.add("Concat", [real, b.constant(b.normal(1, 1, 4, 4, scale=9.0))], axis=1),
        "MaxPool": lambda: b.add("MaxPool", [real], kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
    }[kind]()
    codes = b.add("Clip", [b.add("QuantizeLinear", [y, scale, zero]), *limits])
    model = b.finish([b.add("DequantizeLinear", [codes, scale, zero])])
    assert apart(model.proto, model.inputs) <= 1


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Transpose"])
@pytest.mark.parametrize("seed", range(16))
def test_limits_that_the_scale_before_them_cannot_say_are_kept_by_the_one_behind_them(kind, seed):
    """Limits anywhere, far outside of what the input can say, too; then another scale, that was trained with them."""
    b = Builder(Seeded(seed))
    x = b.quantize(b.input(1, 2, 5, 5, magnitude=2.0))
    y = {
        "MaxPool": lambda: b.add("MaxPool", [x], kernel_shape=[2, 2]),
        "AveragePool": lambda: b.add("AveragePool", [x], kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2]),
        "GlobalAveragePool": lambda: b.add("GlobalAveragePool", [x]),
        "Add": lambda: b.add("Add", [x, x]),
        "Transpose": lambda: b.add("Transpose", [x], perm=[0, 2, 1, 3]),
    }[kind]()
    reach = float(np.abs(b.values[x]).max()) * 3
    low, high = sorted(float(each) for each in np.random.default_rng(seed).uniform(-reach, reach, 2))
    low = high if seed % 4 == 0 else low
    y = b.add("Clip", [y, *((b.constant(low), b.constant(high)) if seed % 3 else (b.constant(low),))])
    output = b.quantize(str(y))
    model = b.finish([output])
    first = (
        b.scale(x) / 2 / b.scale(output) if kind == "AveragePool" else 0
    )  # rounded at its input's scale, and said so
    assert apart(model.proto, model.inputs) <= 1 + np.ceil(first)


@pytest.mark.parametrize("high", [None, 100])
@pytest.mark.parametrize("scale", [0.02, 0.05, 0.013])
def test_what_pads_a_clamped_tensor_is_not_clamped_with_it(scale, high):
    """Codes up to -1 whose zero point is 30, padded with zeros, then rescaled: the zeros stay zeros."""
    b = Builder(Seeded(4))
    x, (x_scale, zero) = b.input(1, 2, 4, 4, magnitude=2.0), (b.constant(0.02), b.constant(30, np.int8))
    codes = b.add("QuantizeLinear", [x, x_scale, zero])
    real = b.add("DequantizeLinear", [b.add("Clip", [codes, "", b.constant(-1, np.int8)]), x_scale, zero])
    y = b.add("Pad", [real, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)])
    pair = [b.constant(scale), b.constant(0, np.int8)]
    y = b.add("QuantizeLinear", [y, *pair])
    y = y if high is None else b.add("Clip", [y, "", b.constant(high, np.int8)])
    model = b.finish([b.add("DequantizeLinear", [y, *pair])])
    assert apart(model.proto, model.inputs) == 0


@pytest.mark.parametrize("seed", range(12))
def test_an_input_that_training_clamped_is_clamped_or_the_caller_is_told_to(seed):
    b = Builder(Seeded(seed))
    codes, pair = coded(b, b.input(1, 2, 4, 4, magnitude=4.0), b.one_of(np.int8, np.uint8))
    real = b.add("DequantizeLinear", [clip(b, codes), *pair])
    w, _ = b.weight(b.normal(3, 2, 2, 2), 0)
    model = b.finish([b.quantize(str(b.add("Conv", [real, w])), at_least=0.02)])
    assert apart(model.proto, model.inputs, Options(io="float32")) <= 1
    graph = convert(model.proto).graph
    q = graph.tensors[graph.inputs[0]].q
    told = [note for note in graph.notes if note.where == f"input '{graph.inputs[0]}'"]
    assert len(told) == ((q.qmin, q.qmax) != (-128, 127))


@pytest.mark.parametrize("limits", [(0.5, 4.0), (0.5, None), (None, -0.5), (-4.0, -0.5), (-1.0, 2.0)])
@pytest.mark.parametrize(("channels", "group"), [(1, 1), (2, 1), (2, 2)])
def test_limits_without_zero_behind_a_float_convolution_load_and_hold(limits, channels, group):
    b = Builder(Seeded(channels))
    x = b.quantize(b.input(1, channels, 4, 4, magnitude=2.0))
    y = b.add("Conv", [x, b.constant(b.normal(channels, channels // group, 2, 2))], group=group)
    ends = [b.constant(each) if each is not None else "" for each in limits]
    while not ends[-1]:
        ends.pop()
    model = b.finish([b.quantize(str(b.add("Clip", [y, *ends])))])
    assert apart(model.proto, model.inputs, Options(allow_float=True)) <= 1


@pytest.mark.parametrize("behind", ["Relu", "Conv", "none"])
@pytest.mark.parametrize("limits", [(6.0, 0.0), (1.0, -1.0), (0.5, 0.5)])
def test_where_the_lower_limit_is_above_the_upper_one_the_upper_one_wins(limits, behind):
    b = Builder(Seeded(3))
    x = b.quantize(b.input(1, 2, 4, 4, magnitude=2.0))
    if behind == "Conv":
        weight, _ = b.weight(b.normal(2, 2, 1, 1), axis=0)
        x = b.add("Conv", [x, weight])
    y = b.add("Clip", [x, *map(b.constant, limits)])
    y = b.add("Relu", [y]) if behind == "Relu" else y
    pair = [b.constant(0.05), b.constant(0, np.int8)]
    codes = b.add("QuantizeLinear", [y, *pair])
    model = b.finish([b.add("DequantizeLinear", [codes, *pair])])
    assert apart(model.proto, model.inputs) == 0


@pytest.mark.parametrize("limits", [(float("inf"), None), (None, float("-inf"))])
def test_limits_that_let_only_infinity_through_are_refused(limits):
    b = Builder(Seeded(3))
    x = b.quantize(b.input(1, 4, magnitude=2.0))
    ends = [b.constant(each) if each is not None else "" for each in limits]
    y = b.add("Clip", [x, *(ends if ends[-1] else ends[:1])])
    with pytest.raises(BridgeError, match="let nothing but infinity through"):
        convert(b.finish([b.quantize(str(b.add("Clip", [y, b.constant(-1.0), b.constant(1.0)])))]).proto)
