"""Two files side by side: sound ones have nothing apart, and whatever is changed in a matched layer is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.graph import QParams
from compare.explaining.side_by_side import compare_files
from compare.explaining.side_by_side.onnx_side import OnnxSide, open_onnx
from compare.explaining.side_by_side.tflite_side import TfliteSide
from compare.tflite.graph import open_tflite
from tests.bridge.exact import steps
from tests.bridge.exact.graphs import Seeded, Unusable, draw_model

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def network(seed=0, *, normalized=False):
    """x (1, 3, 6, 5) -> Q/DQ -> Conv 4x3x3x3 -> [BatchNormalization] -> Relu -> Q/DQ -> Conv 4x4x3x3 -> Q/DQ
    -> Flatten -> Gemm -> Q/DQ.

    float weights behind Q/DQ of their own, as a QAT export has them; no two axes but the channels are alike.
    """
    random = np.random.default_rng(seed)
    made = [constant("z", 128, np.uint8), constant("zw", np.zeros(4), np.int8), constant("zd", np.zeros(5), np.int8)]
    nodes = []

    def pair(source, target, scale):
        made.append(constant(f"{target}_scale", scale))
        nodes.append(helper.make_node("QuantizeLinear", [source, f"{target}_scale", "z"], [f"{target}_codes"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{target}_codes", f"{target}_scale", "z"], [target]))

    def weight(name, shape, zero):
        codes = random.integers(-127, 128, shape)
        codes[:, 0] = np.where(codes[:, 0] == 0, 1, codes[:, 0])
        scale = random.uniform(0.002, 0.02, shape[0]).astype(np.float32)
        real = (codes * scale.reshape(-1, *[1] * (len(shape) - 1))).astype(np.float32)
        made.extend((constant(name, real), constant(f"{name}_scale", scale)))
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_scale", zero], [f"{name}_codes"], axis=0))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale", zero], [f"{name}_real"], axis=0)
        )
        made.append(constant(f"{name}_bias", random.normal(size=shape[0])))
        return [f"{name}_real", f"{name}_bias"]

    pair("x", "xq", 0.03)
    nodes.append(
        helper.make_node("Conv", ["xq", *weight("w1", (4, 3, 3, 3), "zw")], ["c1"], name="first", pads=[1] * 4)
    )
    last = "c1"
    if normalized:
        made.extend(
            constant(f"bn{place}", values)
            for place, values in enumerate(
                ([0.5, -1.5, 2.0, 1.0], [0.1, 0.2, -0.3, 0.0], [0.3, -0.2, 0.1, 0.0], [1.0, 0.5, 2.0, 1.5])
            )
        )
        nodes.append(helper.make_node("BatchNormalization", [last, *(f"bn{i}" for i in range(4))], ["n1"], name="norm"))
        last = "n1"
    nodes.append(helper.make_node("Relu", [last], ["r1"]))
    pair("r1", "r1q", 0.05)
    nodes.append(
        helper.make_node("Conv", ["r1q", *weight("w2", (4, 4, 3, 3), "zw")], ["c2"], name="second", pads=[1] * 4)
    )
    pair("c2", "c2q", 0.08)
    nodes.append(helper.make_node("Flatten", ["c2q"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", *weight("w3", (5, 120), "zd")], ["g"], name="dense", transB=1))
    pair("g", "y", 0.4)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        made,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def sound():
    model = network()
    return model, open_tflite(convert(model).tflite).graph


def operator(graph, op, place=0):
    return [node for node in graph.nodes if node.op == op][place]


def changed(graph, tensor, **changes):
    return replace(graph, tensors={**graph.tensors, tensor.name: replace(tensor, **changes)})


def kinds(comparison):
    return {difference.kind for difference in comparison.differences}


def test_an_exact_conversion_has_nothing_apart(sound):
    comparison = compare_files(*sound)

    assert comparison.differences == ()
    assert comparison.stated == ()
    assert comparison.layers == 3
    assert comparison.numbers == 4 * 27 + 4 + 4 * 36 + 4 + 5 * 120 + 5
    assert comparison.scales == 8  # the inputs and outputs of three layers, and the two borders
    assert not comparison.another_network


def test_a_normalization_that_was_folded_in_is_computed_here_too():
    model = network(normalized=True)
    graph = open_tflite(convert(model).tflite).graph

    assert compare_files(model, graph).differences == ()

    lost = network(normalized=True)
    norm = next(tensor for tensor in lost.graph.initializer if tensor.name == "bn0")
    norm.CopyFrom(constant("bn0", [0.5, 1.5, 2.0, 1.0]))
    assert kinds(compare_files(lost, graph)) == {"weights", "bias"}


@pytest.mark.parametrize("op", ["CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: np.roll(data, 1, 0), "output channels are rolled by 1"),
        (lambda data: data[::-1].copy(), "output channels stand in reverse order"),
        (lambda data: data[[1, 0, *range(2, len(data))]].copy(), "output channels 0 and 1 have changed places"),
        (lambda data: np.roll(data, 1, -1), "columns"),
        (np.zeros_like, "codes are others than the trained ones"),
    ],
)
def test_weights_that_were_moved_are_seen(sound, op, change, said):
    model, graph = sound
    weight = graph.tensors[operator(graph, op).inputs[1]]

    comparison = compare_files(model, changed(graph, weight, data=change(weight.values)))

    assert "weights" in kinds(comparison)
    assert said in comparison.differences[0].fact


@pytest.mark.parametrize(("op", "place"), [("CONV_2D", 0), ("CONV_2D", 1), ("FULLY_CONNECTED", 0)])
def test_one_code_of_thousands_is_seen_and_named(sound, op, place):
    model, graph = sound
    weight = graph.tensors[operator(graph, op, place).inputs[1]]
    data = weight.values.copy()
    data.flat[-1] += 1 if data.flat[-1] < 0 else -1

    (difference,) = compare_files(model, changed(graph, weight, data=data)).differences

    assert difference.kind == "weights"
    assert f"1 of {data.size} codes" in difference.fact
    assert weight.name in difference.tensors


@pytest.mark.parametrize(("op", "place"), [("CONV_2D", 0), ("CONV_2D", 1), ("FULLY_CONNECTED", 0)])
def test_a_reversed_bias_is_seen_without_inputs(sound, op, place):
    model, graph = sound
    bias = graph.tensors[operator(graph, op, place).inputs[2]]

    (difference,) = compare_files(model, changed(graph, bias, data=bias.values[::-1].copy())).differences

    assert difference.kind == "bias"


def test_a_bias_that_was_rounded_the_other_way_is_no_difference(sound):
    model, graph = sound
    bias = graph.tensors[operator(graph, "CONV_2D").inputs[2]]

    assert compare_files(model, changed(graph, bias, data=bias.values + np.int32(1))).differences == ()
    assert kinds(compare_files(model, changed(graph, bias, data=bias.values + np.int32(2)))) == {"bias"}


def test_weight_scales_at_other_channels_are_seen(sound):
    model, graph = sound
    weight = graph.tensors[operator(graph, "CONV_2D").inputs[1]]
    rolled = QParams(np.roll(weight.q.scale, 1), weight.q.zero_point, weight.q.axis)

    assert kinds(compare_files(model, changed(graph, weight, qparams=rolled))) == {"weight scale"}


def test_activation_scales_that_changed_places_are_seen_although_each_is_in_the_file(sound):
    model, graph = sound
    one, other = (graph.tensors[operator(graph, "CONV_2D", place).outputs[0]] for place in (0, 1))
    swapped = changed(changed(graph, one, qparams=other.q), other, qparams=one.q)

    found = [each for each in compare_files(model, swapped).differences if each.kind == "scale"]

    assert {difference.where.split(" ")[0] for difference in found} == {"input", "output"}
    assert "training decided scale 0.05" in found[0].fact


def test_a_zero_point_one_off_is_seen(sound):
    model, graph = sound
    output = graph.tensors[operator(graph, "CONV_2D").outputs[0]]
    qparams = QParams(output.q.scale, output.q.zero_point + np.int32(1))

    assert "scale" in kinds(compare_files(model, changed(graph, output, qparams=qparams)))


def test_codes_made_safe_for_arm_are_counted_and_are_no_difference():
    model = network()
    codes = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    scale = numpy_helper.to_array(next(each for each in model.graph.initializer if each.name == "w1_scale"))
    real = numpy_helper.to_array(codes).copy()
    real[2, 0, 0, :2] = -128 * scale[2]
    codes.CopyFrom(constant("w1", real))
    graph = open_tflite(convert(model).tflite).graph
    weight = graph.tensors[operator(graph, "CONV_2D").inputs[1]]
    safe = changed(graph, weight, data=np.maximum(weight.values, np.int8(-127)))

    comparison = compare_files(model, safe)

    assert comparison.differences == ()
    assert ["2 codes, -128 became -127" in stated for stated in comparison.stated] == [True]


def test_another_network_of_the_same_shapes_is_called_that(sound):
    model, _ = sound
    other = open_tflite(convert(network(seed=1)).tflite).graph

    comparison = compare_files(model, other)

    assert comparison.another_network
    assert "the weights of 3 of 3 layers have nothing in common" in comparison.differences[0].fact


def test_a_network_with_another_layer_is_called_that(sound):
    _, graph = sound
    fewer = network()
    dense = next(node for node in fewer.graph.node if node.name == "dense")
    fewer.graph.node.remove(next(node for node in fewer.graph.node if node.name == "second"))
    next(node for node in fewer.graph.node if node.input[0] == "c2").input[0] = "r1q"
    assert dense.input[0] == "flat"

    comparison = compare_files(network(), open_tflite(convert(fewer).tflite).graph)

    assert comparison.another_network
    assert "Conv 'second' (4 x 3x3x4) of the model has no counterpart" in comparison.differences[0].fact
    assert not compare_files(network(), graph).another_network


def test_two_layers_of_one_shape_that_changed_places_are_seen():
    """Two branches of one shape that are concatenated: each stands where the other should."""
    model = branches()
    graph = open_tflite(convert(model).tflite).graph
    assert compare_files(model, graph).differences == ()
    one, other = (operator(graph, "CONV_2D", place) for place in (0, 1))
    nodes = tuple(
        replace(node, inputs=(node.inputs[0], *(other if node is one else one).inputs[1:]))
        if node in (one, other)
        else node
        for node in graph.nodes
    )

    assert "weights" in kinds(compare_files(model, replace(graph, nodes=nodes)))


def branches():
    """x (1, 2, 3, 4) -> two convolutions of one shape -> Concat, everything at one scale."""
    random = np.random.default_rng(5)
    made = [constant("s", 0.05), constant("z", 0, np.int8), constant("ws", 0.01)]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xc"]),
        helper.make_node("DequantizeLinear", ["xc", "s", "z"], ["xq"]),
    ]
    for name in "ab":
        made.append(constant(f"{name}w", random.integers(-127, 128, (3, 2, 1, 1)), np.int8))
        nodes += [
            helper.make_node("DequantizeLinear", [f"{name}w", "ws", "z"], [f"{name}r"]),
            helper.make_node("Conv", ["xq", f"{name}r"], [f"{name}c"], name=f"conv_{name}"),
            helper.make_node("QuantizeLinear", [f"{name}c", "s", "z"], [f"{name}k"]),
            helper.make_node("DequantizeLinear", [f"{name}k", "s", "z"], [f"{name}d"]),
        ]
    nodes += [
        helper.make_node("Concat", ["ad", "bd"], ["t"], axis=1),
        helper.make_node("QuantizeLinear", ["t", "s", "z"], ["tk"]),
        helper.make_node("DequantizeLinear", ["tk", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 3, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6, 3, 4))],
        made,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "1x1 convolution"])
@pytest.mark.parametrize("mean", ["conv", "fine", "inherit"])
def test_an_average_inside_the_layer_behind_it_is_followed(mean, dense):
    """The bridge repeats that layer's weights over the map, so that nothing is rounded in between."""
    model = averaged(dense=dense)
    graph = open_tflite(convert(model, Options(mean=mean)).tflite).graph
    comparison = compare_files(model, graph)
    assert comparison.differences == ()
    assert comparison.layers == 1

    for node in graph.nodes:  # the layer, and what computes the average
        if node.op in WEIGHTED:
            weight = graph.tensors[node.inputs[1]]
            data = weight.values.copy()
            data.flat[7] += 1 if data.flat[7] < 0 else -1
            assert kinds(compare_files(model, changed(graph, weight, data=data))) & {"weights", "factors"}


def averaged(*, dense):
    """x (1, 6, 3, 4) -> Q/DQ -> GlobalAveragePool -> Flatten -> Gemm, or -> Conv 1x1 -> Q/DQ."""
    random = np.random.default_rng(2)
    made = [constant("s", 0.05), constant("z", 0, np.int8), constant("ws", 0.01), constant("b", random.normal(size=5))]
    made.append(constant("w", random.integers(-127, 128, (5, 6) if dense else (5, 6, 1, 1)), np.int8))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xc"]),
        helper.make_node("DequantizeLinear", ["xc", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "z"], ["wr"]),
        helper.make_node("GlobalAveragePool", ["xq"], ["m"]),
        *([helper.make_node("Flatten", ["m"], ["f"])] if dense else []),
        helper.make_node("Gemm", ["f", "wr", "b"], ["g"], transB=1)
        if dense
        else helper.make_node("Conv", ["m", "wr", "b"], ["g"]),
        helper.make_node("QuantizeLinear", ["g", "s", "z"], ["gc"]),
        helper.make_node("DequantizeLinear", ["gc", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "averaged",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 6, 3, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5) if dense else (1, 5, 1, 1))],
        made,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("option", ["stride_h", "stride_w"])
def test_another_stride_is_seen_where_it_moves_the_window(option):
    model = network()
    graph = open_tflite(convert(model).tflite).graph
    node = operator(graph, "CONV_2D", 1)
    nodes = tuple(replace(each, attrs={**each.attrs, option: 2}) if each is node else each for each in graph.nodes)

    assert kinds(compare_files(model, replace(graph, nodes=nodes))) == {"window"}


def test_a_relu_that_was_lost_is_seen(sound):
    model, graph = sound
    node = operator(graph, "CONV_2D")
    nodes = tuple(
        replace(each, attrs={**each.attrs, "fused_activation": "NONE"}) if each is node else each
        for each in graph.nodes
    )

    (difference,) = compare_files(model, replace(graph, nodes=nodes)).differences

    assert difference.kind == "limit"
    assert "the model 0 to 6.35" in difference.fact


def test_names_do_not_matter(sound):
    """Foreign converters rename everything."""
    model, graph = sound
    names = {name: f"StatefulPartitionedCall:{place}" for place, name in enumerate(graph.tensors)}
    renamed = replace(
        graph,
        nodes=tuple(
            replace(
                node,
                name=f"n{place}",
                inputs=tuple(map(names.get, node.inputs)),
                outputs=tuple(map(names.get, node.outputs)),
            )
            for place, node in enumerate(graph.nodes)
        ),
        tensors={names[name]: replace(tensor, name=names[name]) for name, tensor in graph.tensors.items()},
        inputs=tuple(map(names.get, graph.inputs)),
        outputs=tuple(map(names.get, graph.outputs)),
    )
    bias = renamed.tensors[operator(renamed, "CONV_2D").inputs[2]]

    assert compare_files(model, renamed).differences == ()
    assert kinds(compare_files(model, changed(renamed, bias, data=bias.values[::-1].copy()))) == {"bias"}


def test_what_cannot_be_read_is_said():
    comparison = compare_files(onnx.ModelProto(), open_tflite(convert(network()).tflite).graph)

    assert comparison.layers == 0
    assert "the ONNX model was not read" in str(comparison.unchecked[0])


def drawn(seed):
    """(model, the graph of its .tflite) of a random small model; None where the bridge refuses it."""
    try:
        model = draw_model(Seeded(seed), steps.STEPS, most=5).proto
        return model, open_tflite(convert(model).tflite).graph
    except (Unusable, BridgeError):
        return None


@pytest.mark.parametrize("seed", range(60))
def test_a_drawn_model_has_nothing_apart_and_every_change_of_a_compared_layer_is_seen(seed):
    """Whatever the operators around it: one weight code, one bias, one scale."""
    pair = drawn(seed)
    if pair is None:
        pytest.skip("the bridge refuses this model")
    model, graph = pair
    comparison = compare_files(model, graph)
    assert comparison.differences == ()

    random = np.random.default_rng(seed)
    unchecked = " ".join(map(str, comparison.unchecked))
    for node in graph.nodes:
        if node.op not in WEIGHTED or f"'{node.outputs[0]}'" in unchecked:
            continue
        weight = graph.tensors[node.inputs[1]]
        if weight.qparams is None or sum(node.inputs[1] in each.inputs for each in graph.nodes) > 1:
            continue
        data = weight.values.copy()
        place = int(random.integers(data.size))
        data.flat[place] += -1 if data.flat[place] > 0 else 2
        assert compare_files(model, changed(graph, weight, data=data)).differences, (node, place)

        bias = graph.tensors[node.inputs[3 if node.op == "TRANSPOSE_CONV" else 2]]
        shifted = bias.values.copy()
        shifted.flat[int(random.integers(shifted.size))] += max(3, int(np.abs(shifted).max()) // 1000)
        assert compare_files(model, changed(graph, bias, data=shifted)).differences, node


@pytest.mark.parametrize("seed", range(60))
def test_an_offset_that_moved_is_seen_wherever_the_tensor_stands(seed):
    """Between operators without weights, too: a trained scale and zero point that only one tensor of the file has."""
    pair = drawn(seed)
    if pair is None:
        pytest.skip("the bridge refuses this model")
    model, graph = pair
    computed = [each for each in graph.tensors.values() if not each.is_constant and each.dtype == np.int8]
    trained = OnnxSide(*open_onnx(model, {})).trained_grids().values()
    for tensor in computed:
        grid = TfliteSide(graph).grid(tensor.name)
        alone = sum(tensor.q.same_grid(each.q) for each in computed) == 1
        if alone and any(grid.same(each) for each in trained):
            step = np.int32(1 if tensor.q.zero_point < 0 else -1)
            qparams = QParams(tensor.q.scale, tensor.q.zero_point + step)
            assert compare_files(model, changed(graph, tensor, qparams=qparams)).differences, tensor.name


def test_channels_given_twice_for_a_weight_of_minus_128_are_one_weight():
    """An average taken into the layer behind it, on codes that can be -128: the bridge writes -127 and -1."""
    model = averaged(dense=True)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    codes = numpy_helper.to_array(weights).copy()
    codes[1, 2:4] = -128
    weights.CopyFrom(constant("w", codes, np.int8))
    graph = open_tflite(convert(model, Options(mean="conv")).tflite).graph

    comparison = compare_files(model, graph)

    assert comparison.differences == ()
    assert comparison.layers == 1


def test_most_drawn_models_are_compared():
    """Those that the bridge refuses are skipped above: were it to refuse all of them, nothing would be tested."""
    assert sum(drawn(seed) is not None for seed in range(60)) >= 45


def with_slopes(slopes):
    """x (1, 2, 3, 4) -> Q/DQ -> PRelu by (2, 1, 1) slopes, or LeakyRelu by one -> Q/DQ."""
    made = [constant("s", 0.1), constant("z", 128, np.uint8)]
    pair = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
    ]
    if isinstance(slopes, float):
        node = helper.make_node("LeakyRelu", ["xd"], ["h"], name="leaky", alpha=slopes)
    else:
        made.append(constant("slopes", np.reshape(slopes, (-1, 1, 1))))
        node = helper.make_node("PRelu", ["xd", "slopes"], ["h"], name="leaky")
    behind = [
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["hq"]),
        helper.make_node("DequantizeLinear", ["hq", "s", "z"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*pair, node, *behind],
        "slopes",
        [value("x", TensorProto.FLOAT, [1, 2, 3, 4])],
        [value("y", TensorProto.FLOAT, [1, 2, 3, 4])],
        made,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("slopes", "other"), [(0.2, -0.2), ((0.2, 0.2), (-0.2, -0.2)), ((0.2, 0.1), (0.1, 0.2)), ((0.2, 0.1), (0.2, 0.11))]
)
def test_slopes_of_what_is_negative_are_compared_without_inputs(slopes, other):
    model = with_slopes(slopes)
    assert not compare_files(model, open_tflite(convert(model).tflite).graph).differences
    changed = compare_files(model, open_tflite(convert(with_slopes(other)).tflite).graph)
    assert [(each.kind, "leaky" in each.where) for each in changed.differences] == [("weights", True)]
