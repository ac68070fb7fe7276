"""A fault planted in one operator of a sound file: that operator is named, first and alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Graph, Node
from bridge.exact.writer import write
from bridge.verifying.batches import stored_codes
from bridge.verifying.completed import Completed
from bridge.verifying.litert import Runner
from bridge.verifying.operators import single
from bridge.verifying.record import lines
from bridge.verifying.reference import loaded
from bridge.verifying.verification import verify
from tests.bridge.exact.graphs import Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS
from tests.builders import Pair, float_constant, qdq_model, weight

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def constants_of(graph, node, dtype):
    return [t for name in node.inputs if name and (t := graph.tensors[name]).is_constant and t.dtype == dtype]


def with_tensor(graph: Graph, old: str, tensor, node: Node) -> Graph:
    """The graph with one operand of one node replaced, under a name of its own: nobody else reads it."""
    made = replace(tensor, name=f"{old}/planted")
    swapped = replace(node, inputs=tuple(made.name if name == old else name for name in node.inputs))
    nodes = tuple(swapped if each is node else each for each in graph.nodes)
    return replace(graph, nodes=nodes, tensors={**graph.tensors, made.name: made})


def with_node(graph: Graph, node: Node, **changes) -> Graph:
    return replace(graph, nodes=tuple(replace(each, **changes) if each is node else each for each in graph.nodes))


def wrong_bias(graph, node):
    """Two steps of the output too much, in every channel."""
    (bias,) = constants_of(graph, node, np.int32)[-1:]
    steps = 2 * float(graph.output(node).q.scale) / bias.q.scale.astype(np.float64)
    if (np.abs(steps) > 2**30).any():
        return None
    moved = np.clip(bias.data + np.rint(steps), -(2**31), 2**31 - 1).astype(np.int32)
    return with_tensor(graph, bias.name, replace(bias, data=moved), node)


def lost_tap(graph, node):
    """The largest weight is gone."""
    (kernel,) = constants_of(graph, node, np.int8)
    codes = kernel.data.copy()
    codes[np.unravel_index(np.abs(codes.astype(int)).argmax(), codes.shape)] = 0
    return with_tensor(graph, kernel.name, replace(kernel, data=codes), node)


def shifted_scale(graph, node):
    """Weights twice as large as trained, and the bias scale with them: the file is consistent, and wrong."""
    (kernel,), bias = constants_of(graph, node, np.int8), constants_of(graph, node, np.int32)[-1]
    doubled = replace(kernel.q, scale=kernel.q.scale * np.float32(2))
    graph = with_tensor(graph, kernel.name, replace(kernel, qparams=doubled), node)
    (node,) = (each for each in graph.nodes if each.outputs == node.outputs)
    return with_tensor(
        graph, bias.name, replace(bias, qparams=replace(bias.q, scale=bias.q.scale * np.float32(2))), node
    )


def other_attribute(**changes):
    return lambda graph, node: with_node(graph, node, attrs={**node.attrs, **changes})


def other_operator(op, **attrs):
    return lambda graph, node: with_node(graph, node, op=op, attrs=attrs)


def other_constant(graph, node):
    """A constant operand of codes, every code four steps higher."""
    found = constants_of(graph, node, np.int8)
    if not found:
        return None
    moved = np.clip(found[0].data.astype(int) + 4, -128, 127).astype(np.int8)
    return with_tensor(graph, found[0].name, replace(found[0], data=moved), node)


def swapped_outputs(graph, node):
    first, *others = node.outputs
    alike = [name for name in others if graph.tensors[name].shape == graph.tensors[first].shape]
    if not alike:
        return None
    names = tuple({first: alike[0], alike[0]: first}.get(name, name) for name in node.outputs)
    return with_node(graph, node, outputs=names)


def swapped_inputs(graph, node):
    first, *others = node.inputs
    alike = [name for name in others if name != first and graph.tensors[name].shape == graph.tensors[first].shape]
    if not alike:
        return None
    return with_node(graph, node, inputs=tuple({first: alike[0], alike[0]: first}.get(n, n) for n in node.inputs))


def other_indices(graph, node):
    indices = graph.tensors[node.inputs[1]]
    return with_tensor(graph, indices.name, replace(indices, data=indices.data[..., ::-1].copy()), node)


def pooled(op):
    return lambda graph, node: with_node(graph, node, op=op)


FAULTS = {
    **{(op, fault.__name__): fault for op in WEIGHTED for fault in (wrong_bias, lost_tap, shifted_scale)},
    ("ADD", "other_constant"): other_constant,
    ("ADD", "product"): other_operator("MUL", fused_activation="NONE"),
    ("SUB", "sum"): other_operator("ADD", fused_activation="NONE"),
    ("MUL", "sum"): other_operator("ADD", fused_activation="NONE"),
    ("MUL", "other_constant"): other_constant,
    ("PRELU", "other_constant"): other_constant,
    ("MAXIMUM", "minimum"): other_operator("MINIMUM"),
    ("MINIMUM", "maximum"): other_operator("MAXIMUM"),
    ("MAX_POOL_2D", "average"): pooled("AVERAGE_POOL_2D"),
    ("AVERAGE_POOL_2D", "maximum"): pooled("MAX_POOL_2D"),
    ("LEAKY_RELU", "alpha"): other_attribute(alpha=0.9),
    ("SOFTMAX", "beta"): other_attribute(beta=0.25),
    ("RELU", "clipped"): other_operator("RELU6"),
    ("HARD_SWISH", "relu"): other_operator("RELU"),
    ("SPLIT", "swapped_outputs"): swapped_outputs,
    ("CONCATENATION", "swapped_inputs"): swapped_inputs,
    ("GATHER", "other_indices"): other_indices,
    ("PADV2", "other_constant"): other_constant,
    ("RESIZE_BILINEAR", "nearest"): other_operator("RESIZE_NEAREST_NEIGHBOR"),
}


def effective(sound: Graph, broken: Graph, node: Node, path, inputs) -> bool:
    """Whether the fault moves a good part of the operator's own output by more than rounding could.

    Judged by running the operator with and without the fault, not by what is under test.
    """
    completed = Completed(loaded(path), sound, "model")
    size = {name: sound.tensors[name].shape[0] for name in sound.inputs}
    batch = {name: np.asarray(inputs[name][: size[name]], np.float32) for name in sound.inputs}
    values = completed(batch)
    moving = {name for name in node.inputs if name and not sound.tensors[name].is_constant}
    if not moving <= set(completed.anchors):
        return False
    (other,) = (each for each in broken.nodes if set(each.outputs) == set(node.outputs))
    fed = {name: stored_codes(sound.tensors[name], completed.anchors[name].real(values)) for name in moving}
    try:
        got = Runner(write(single(broken, other)), "reference")(fed)
    except BridgeError:
        return False  # LiteRT refuses the broken operator
    right = Runner(write(single(sound, node)), "reference")(fed)
    apart = np.concatenate([np.abs(got[n].astype(int) - right[n].astype(int)).ravel() for n in node.outputs])
    return bool(apart.max() >= 3)


def named(path, graph, inputs):
    return [(item.op, item.name) for item in verify(path, graph, write(graph), inputs).guilty()]


@pytest.mark.slow
def test_the_operator_with_the_fault_is_named_and_no_other(tmp_path):
    """Whatever is drawn: operators in a row, with padding, rescaling, reshapes and clamps between them."""
    planted: Counter = Counter()
    rare = {name: STEPS[name] for name in ("average_pool", "pad", "relu", "resize", "split", "conv", "add")}
    for seed in range(110):
        try:
            model = draw_model(Seeded(seed), STEPS if seed < 60 else rare)
            graph = convert(model.proto).graph
        except (Unusable, BridgeError):
            continue
        path = tmp_path / f"{seed}.onnx"
        onnx.save(model.proto, path)
        wanted = [
            (node, name, fault) for node in graph.nodes for (op, name), fault in FAULTS.items()
            if op == node.op and graph.output(node).qparams is not None and planted[op, name] < 3
            and not (op == "PADV2" and graph.output(node).origin is None)  # judged with what it pads, below
        ]  # fmt: skip
        if not wanted or named(path, graph, model.inputs):
            continue  # an operator departs already: a constant without a trained scale, for example
        for node, name, fault in wanted:
            broken = fault(graph, node)
            if broken is None or not effective(graph, broken, node, path, model.inputs):
                continue
            (other,) = (each for each in broken.nodes if set(each.outputs) == set(node.outputs))
            assert named(path, broken, model.inputs) == [(other.op, other.name)], f"seed {seed}, {node}, {name}"
            planted[node.op, name] += 1
    missing = {op for op, _ in FAULTS} - {op for op, _ in planted}
    assert not missing, f"no fault was planted in {sorted(missing)}: draw more seeds"


def saved(model, path):
    onnx.save(model, path)
    return path


def conv_over_one_axis(path):
    """RESHAPE, CONV_2D, RESHAPE: only what the last RESHAPE gives has a name in the model."""
    w = weight("w", np.arange(-9, 9).reshape(2, 3, 3), [0.03, 0.05])
    return saved(
        qdq_model(
            ("Conv", "x w b", "c"), ("Relu", "c", "y"), ("ReduceMean", "y", "z", {"axes": [2], "keepdims": 0}),
            inputs={"x": (1, 3, 8)}, pairs={"x": Pair(0.05, 3), "y": Pair(0.031, -128)}, outputs="z",
            constants=[w, float_constant("b", [0.1, -0.1])],
        ),
        path,
    )  # fmt: skip


def samples(*shape):
    return {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32) * 3}


def test_a_convolution_over_one_axis_is_not_blamed_on_its_reshape_or_on_the_mean_behind(tmp_path):
    path = conv_over_one_axis(tmp_path / "model.onnx")
    graph = convert(path).graph
    (conv,) = (node for node in graph.nodes if node.op == "CONV_2D")
    assert named(path, graph, samples(6, 3, 8)) == []
    for fault in (wrong_bias, lost_tap, shifted_scale):
        assert named(path, fault(graph, conv), samples(6, 3, 8)) == [("CONV_2D", conv.name)], fault.__name__


def test_the_first_of_two_faults_is_named_first(tmp_path):
    path = tmp_path / "model.onnx"
    ws = [weight(name, np.eye(4, dtype=int) * 90, 0.01) for name in ("v", "w")]
    saved(
        qdq_model(
            ("Gemm", "x v", "a", {"transB": 1}), ("Gemm", "a w", "y", {"transB": 1}),
            inputs={"x": (1, 4)}, pairs={"x": Pair(0.1), "a": Pair(0.1), "y": Pair(0.1)}, outputs="y", constants=ws,
        ),
        path,
    )  # fmt: skip
    graph = convert(path).graph
    for index in (0, 1):
        graph = wrong_bias(graph, graph.nodes[index])
    assert named(path, graph, samples(8, 4)) == [("FULLY_CONNECTED", "a"), ("FULLY_CONNECTED", "y")]


RESCALED = {
    "Sigmoid": {},
    "Tanh": {},
    "Softmax": {"axis": 1},
    "AveragePool": {"kernel_shape": [1, 1], "strides": [2, 2]},
}
"""Operators whose kernels write a scale of their own, or their input's; an ADD takes it to the trained one."""


@pytest.mark.parametrize("op", RESCALED)
def test_an_operator_before_a_row_of_pairs_is_not_blamed_for_what_the_first_of_them_clips(op, tmp_path):
    """Pairs of one scale are one tensor of the file; the zero point of each clips another part of the range."""
    rng = np.random.default_rng(5)
    between = [("Identity",), ("Transpose", {"perm": [0, 1, 2, 3]}), ("Transpose", {"perm": [0, 2, 3, 1]})]
    requantized = 0
    for index in range(12):
        zeros = [int(zero) for zero in rng.choice([-128, -100, 0, 90, 127], 3)]
        scales = [0.02, 0.02, float(rng.choice([0.02, 0.03]))]
        steps = [(op, "x", "a", RESCALED[op])]
        for source, target in (("a", "b"), ("b", "c")):
            name, *attrs = between[int(rng.integers(len(between)))]
            steps.append((name, source, target, *attrs))
        pairs = {name: Pair(scale, zero) for name, scale, zero in zip("abc", scales, zeros, strict=True)}
        model = qdq_model(
            *steps, inputs={"x": (1, 3, 4, 5)}, pairs={"x": Pair(0.05, 7), **pairs}, outputs="c"
        )  # fmt: skip
        path = saved(model, tmp_path / f"{index}.onnx")
        graph = convert(path).graph
        requantized += any("/requantize" in node.name for node in graph.nodes)
        assert named(path, graph, samples(5, 3, 4, 5)) == [], (zeros, scales, steps)
    assert requantized


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_a_rounding_that_training_did_not_decide_is_no_fault_of_the_layer_behind(io, tmp_path):
    """The average inherits its input's coarse scale; the dense layer behind it multiplies that rounding by 30."""
    path = tmp_path / "model.onnx"
    w = weight("w", [[100, -100, 50, 25]], 0.3)
    saved(
        qdq_model(
            ("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
            inputs={"x": (1, 4, 3, 3)}, pairs={"x": Pair(0.5), "y": Pair(0.5)}, outputs="y", constants=[w],
        ),
        path,
    )  # fmt: skip
    conversion = convert(path, Options(io=io, mean="inherit"))
    found = verify(path, conversion.graph, conversion.tflite, samples(50, 4, 3, 3))
    assert found.outputs["reference"]["y"].worst > 5
    assert found.undecided["y"].worst > 5
    assert found.guilty() == ()


@pytest.mark.parametrize("mean", ["auto", "conv", "fine", "inherit"])
def test_a_fault_before_or_behind_an_average_is_named_in_each_of_its_forms(mean, tmp_path):
    path = tmp_path / "model.onnx"
    ws = [weight("v", np.arange(-18, 18).reshape(4, 1, 3, 3), 0.02), weight("w", [[100, -100, 50, 25]], 0.02)]
    saved(
        qdq_model(
            ("Conv", "x v", "c"), ("Relu", "c", "r"), ("GlobalAveragePool", "r", "m"), ("Flatten", "m", "f"),
            ("Gemm", "f w", "y", {"transB": 1}), inputs={"x": (1, 1, 5, 5)},
            pairs={"x": Pair(0.05), "r": Pair(0.05, -128), "y": Pair(0.05)}, outputs="y", constants=ws,
        ),
        path,
    )  # fmt: skip
    graph = convert(path, Options(mean=mean)).graph
    assert named(path, graph, samples(20, 1, 5, 5)) == []
    first, *others = [node for node in graph.nodes if node.op in WEIGHTED]
    assert others
    for node in (first, others[-1]):
        broken = wrong_bias(graph, node)
        assert named(path, broken, samples(20, 1, 5, 5)) == [(node.op, node.name)], mean


def test_what_a_padding_alone_gets_wrong_is_named_after_the_operator_it_is_made_for(tmp_path):
    """The reference has no padded tensor: PADV2 and MAX_POOL_2D are judged as one, and both are said."""
    path = tmp_path / "model.onnx"
    pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    saved(
        qdq_model(
            ("MaxPool", "x", "y", pool), inputs={"x": (1, 2, 6, 6)}, pairs={"x": Pair(0.1, 5), "y": Pair(0.1, 5)},
            outputs="y",
        ),
        path,
    )  # fmt: skip
    graph = convert(path).graph
    pad = graph.nodes[0]
    assert pad.op == "PADV2"
    (filler,) = constants_of(graph, pad, np.int8)
    broken = with_tensor(graph, filler.name, replace(filler, data=np.array(100, np.int8)), pad)
    (found,) = verify(path, broken, write(broken), samples(4, 2, 6, 6)).guilty()
    assert (found.op, found.name) == ("MAX_POOL_2D", graph.nodes[1].name)
    assert found.chain == (str(pad), str(graph.nodes[1]))


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_a_file_of_another_graph_is_found_out_where_its_operators_would_be_acquitted(io, tmp_path):
    path = conv_over_one_axis(tmp_path / "model.onnx")
    done = convert(path, Options(io=io))
    x = samples(6, 3, 8)
    assert verify(path, done.graph, done.tflite, x).otherwise == ()
    (conv,) = (node for node in done.graph.nodes if node.op == "CONV_2D")
    other = write(wrong_bias(done.graph, conv))
    found = verify(path, done.graph, other, x)
    assert found.guilty() == ()  # those of the graph are right
    assert found.otherwise == ("xnnpack z", "reference z")
    assert any("the file of another graph" in line for line in lines(found))


@pytest.mark.parametrize("io", ["int8", "float32"])
def test_a_fault_in_a_float_operator_is_named(io, tmp_path):
    path = tmp_path / "model.onnx"
    constant = float_constant("w", np.eye(3, 4) * 0.7)
    steps = [("Gemm", "x w", "g", {"transB": 1}), ("Tanh", "g", "t")]
    saved(qdq_model(*steps, inputs={"x": (1, 4)}, pairs={"x": Pair(0.05)}, outputs="g t", constants=[constant]), path)
    done = convert(path, Options(io=io, allow_float=True))
    assert named(path, done.graph, samples(20, 4)) == []
    (dense,) = (node for node in done.graph.nodes if node.op == "FULLY_CONNECTED")
    (kernel,) = (t for t in constants_of(done.graph, dense, np.float32) if len(t.shape) == 2)
    broken = with_tensor(done.graph, kernel.name, replace(kernel, data=kernel.data * np.float32(1.01)), dense)
    assert named(path, broken, samples(20, 4)) == [("FULLY_CONNECTED", dense.name)]
