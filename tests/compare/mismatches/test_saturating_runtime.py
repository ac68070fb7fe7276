"""M80: the emulated saturation against ONNX Runtime itself, where it saturates; elsewhere against numbers done by hand."""

import itertools

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from bridge.verifying import onnx_runtime
from compare.mismatches import m80_saturating_runtime as m80
from compare.mismatches.parts.saturating_pairs import POSITIONS, accumulators, integer_operators, losses

CASES = {
    "Conv": {"shape": (1, 6, 9, 8), "weight": (4, 6, 3, 3)},
    "Conv, one channel": {"shape": (1, 1, 9, 8), "weight": (4, 1, 3, 3)},
    "Conv, odd sum": {"shape": (1, 5, 7, 7), "weight": (3, 5, 1, 1)},
    "Conv, strides, pads, dilations": {
        "shape": (2, 4, 11, 9), "weight": (4, 4, 3, 2), "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [2, 1],
    },
    "Conv, auto_pad": {"shape": (1, 4, 8, 7), "weight": (4, 4, 3, 3), "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    "Conv, groups": {"shape": (1, 8, 6, 6), "weight": (6, 4, 3, 3), "group": 2},
    "Conv, two outputs a channel": {"shape": (1, 4, 6, 6), "weight": (8, 1, 3, 3), "group": 4},
    "Conv, depthwise": {"shape": (1, 6, 6, 6), "weight": (6, 1, 3, 3), "group": 6},
    "Conv, 1-D": {"shape": (1, 4, 12), "weight": (4, 4, 3)},
    "MatMul": {"shape": (2, 33), "weight": (33, 5)},
    "Gemm": {"shape": (2, 32), "weight": (5, 32), "transB": 1},
    "Gemm, not transposed": {"shape": (2, 32), "weight": (32, 5)},
}  # fmt: skip


def pair(source: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, "y_scale", "y_zero"], ["y_codes"]),
        helper.make_node("DequantizeLinear", ["y_codes", "y_scale", "y_zero"], ["y"]),
    ]


BEHIND = {
    "nothing": pair("sum"),
    "relu": [helper.make_node("Relu", ["sum"], ["positive"]), *pair("positive")],
    "clip": [helper.make_node("Clip", ["sum", "low", "high"], ["positive"]), *pair("positive")],
    "relu on half the codes": [helper.make_node("Relu", ["sum"], ["positive"]), *pair("positive")],  # stays float
    "no pair": [helper.make_node("Identity", ["sum"], ["y"])],
}


def one_operator(
    name: str, seed: int, activation: type, *, per_channel: bool, behind: str
) -> tuple[onnx.ModelProto, dict]:
    """A Q/DQ model of one operator with large weights, and two batches of samples."""
    random = np.random.default_rng(seed)
    op, facts = name.split(",")[0], dict(CASES[name])
    shape, weight_shape = facts.pop("shape"), facts.pop("weight")
    codes = random.choice([-127, -100, -3, 90, 127], weight_shape).astype(np.int8)
    axis = {"Conv": 0, "MatMul": 1, "Gemm": 0 if facts.get("transB") else 1}[op]
    scale = random.uniform(0.005, 0.01, weight_shape[axis] if per_channel else ()).astype(np.float32)
    zero = activation(random.integers(0, 40) - (128 if activation is np.int8 else 0))
    lowest = -128 if activation is np.int8 else 0
    middle = activation(lowest if behind in ("relu", "clip") else lowest + 128)
    span = np.sqrt(np.prod(weight_shape) / weight_shape[axis])
    constants = {
        "x_scale": np.float32(1 / 200), "x_zero": zero, "w_codes": codes, "w_scale": scale,
        "w_zero": np.zeros(np.shape(scale), np.int8), "y_scale": np.float32(span / 100), "y_zero": middle,
        "low": np.float32(0), "high": np.float32(1e6),
    }  # fmt: skip
    steps = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "x_scale", "x_zero"], ["x_read"]),
        helper.make_node(
            "DequantizeLinear", ["w_codes", "w_scale", "w_zero"], ["w"], **({"axis": axis} if per_channel else {})
        ),
        helper.make_node(op, ["x_read", "w"], ["sum"], "op", **facts),
        *BEHIND[behind],
    ]
    graph = helper.make_graph(
        steps,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), each) for each, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x": random.uniform(0, 1.2, (2 * shape[0], *shape[1:])).astype(np.float32)}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_what_onnx_runtime_loses(name, behind):
    """Only a processor that saturates can show it: without VNNI, or `qemu-x86_64 -cpu Haswell`."""
    if not onnx_runtime.saturates():
        pytest.skip("ONNX Runtime does not saturate on this processor; the emulation is about those on which it does")
    for seed, activation, per_channel in itertools.product(range(3), (np.uint8, np.int8), (False, True)):
        model, inputs = one_operator(name, seed, activation, per_channel=per_channel, behind=behind)
        batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        plain, optimized = (
            onnx_runtime.outputs(make(model), inputs, batch=batch)[0]
            for make in (onnx_runtime.session, onnx_runtime.as_users_make_it)
        )
        step = np.float32(np.ptp(plain)) / 255 if behind == "no pair" else _constant(model, "y_scale")
        assert plain.size <= POSITIONS
        worst = np.rint(np.abs(plain - optimized) / step).max()
        (loss,) = list(losses(model, inputs)) or [None]
        said = 0.0 if loss is None else loss.worst
        # Float sums on a tie may fall to either side; what is lost is counted in whole steps beside it.
        assert abs(said - worst) <= 1, (said, worst)


def _constant(model: onnx.ModelProto, name: str) -> float:
    return next(numpy_helper.to_array(each).item() for each in model.graph.initializer if each.name == name)


def test_a_pair_beyond_int16_stops_at_its_end():
    exact, saturated = accumulators(np.array([[255, 255, 200]]), np.array([[127], [127], [-128]]))
    assert exact.item() == 2 * 255 * 127 - 200 * 128
    assert saturated.item() == 32767 - 200 * 128
    exact, saturated = accumulators(np.array([[255, 1]]), np.array([[127], [127]]))
    assert exact.item() == saturated.item() == 256 * 127  # 32512


@pytest.mark.parametrize("name", [name for name in CASES if "depthwise" not in name])
def test_the_loss_is_that_of_the_sums_done_one_by_one(name):
    """The quick way (only pairs that can overflow, windows picked by index) against the plain one, a layer at a time."""
    model, inputs = one_operator(name, 7, np.uint8, per_channel=True, behind="nothing")
    (operator,) = integer_operators(model)
    (loss,) = losses(model, inputs)
    known = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    codes = np.clip(np.rint(inputs["x"] / known["x_scale"]) + known["x_zero"], 0, 255).astype(np.int64)
    found = _sums_one_by_one(operator.node, codes, known, saturate=True)
    right = _sums_one_by_one(operator.node, codes, known, saturate=False)
    step, zero = known["y_scale"], int(known["y_zero"])
    axis = 1 if operator.node.op_type == "Conv" else -1
    scales = known["w_scale"].reshape([-1 if each == axis % found.ndim else 1 for each in range(found.ndim)])
    one, other = (np.clip(np.rint(sums * known["x_scale"] * scales / step) + zero, 0, 255) for sums in (right, found))
    assert abs(loss.worst - np.abs(one - other).max()) <= 1
    assert loss.worst > 1
    assert abs(loss.share - (one != other).mean()) < 0.02


def _sums_one_by_one(node, codes, known, *, saturate):
    """Sums of an operator, output by output, in the plainest way: pads by hand, neighbours in a list."""
    attrs = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    weights, zero = known["w_codes"].astype(int), int(known["x_zero"])

    def total(pairs):
        pairs = [*pairs, (0, 0)] if len(pairs) % 2 else pairs
        sums = [a * v + b * w for (a, v), (b, w) in zip(pairs[0::2], pairs[1::2], strict=True)]
        held = [min(max(each, -32768), 32767) for each in sums] if saturate else sums
        return sum(held) - zero * sum(v for _, v in pairs)

    if node.op_type != "Conv":
        weights = weights.T if attrs.get("transB") else weights
        return np.array(
            [[total(list(zip(map(int, row), map(int, column), strict=True))) for column in weights.T] for row in codes]
        )
    flat = codes.ndim == 3
    if flat:
        codes, weights = codes[:, :, None], weights[:, :, None]
    (sy, sx), (dy, dx) = ([1] * flat + list(attrs.get(name, [1] * (2 - flat))) for name in ("strides", "dilations"))
    outputs, per_group, ky, kx = weights.shape
    top, left, bottom, right = attrs.get("pads", [0, 0, 0, 0])
    if "auto_pad" in attrs:
        (top, bottom), (left, right) = (
            (each - each // 2, each // 2)
            for each in (
                max(0, (-(-n // s) - 1) * s + k - n)
                for n, s, k in zip(codes.shape[2:], (sy, sx), (ky, kx), strict=True)
            )
        )
    padded = np.pad(codes, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
    rows = (padded.shape[2] - (ky - 1) * dy - 1) // sy + 1
    columns = (padded.shape[3] - (kx - 1) * dx - 1) // sx + 1
    sums = np.zeros((len(codes), outputs, rows, columns), int)
    for n, o, y, x in np.ndindex(sums.shape):
        first = o // (outputs // attrs.get("group", 1)) * per_group
        sums[n, o, y, x] = total([
            (int(padded[n, first + c, y * sy + i * dy, x * sx + j * dx]), int(weights[o, c, i, j]))
            for i in range(ky) for j in range(kx) for c in range(per_group)
        ])  # fmt: skip
    return sums[:, :, 0] if flat else sums


def test_it_is_told_where_the_processor_shows_it_only():
    broken = m80.reproduce()
    assert list(m80.detect(broken))
    assert not list(m80.detect(type(broken)(onnx=broken.onnx, inputs=broken.inputs)))


def test_without_inputs_it_is_a_guess_that_names_the_weights():
    broken = m80.reproduce()
    (sighting,) = m80.detect(type(broken)(onnx=broken.onnx, saturating_runtime=True))
    assert not sighting.sure
    assert "pairs of weights whose products can saturate" in sighting.fact


def test_inputs_that_saturate_nothing_are_no_sighting():
    broken = m80.reproduce()
    dark = {"x": broken.inputs["x"] / 8}
    assert not list(m80.detect(type(broken)(onnx=broken.onnx, inputs=dark, saturating_runtime=True)))


def test_the_copy_for_comparisons_has_the_same_numbers_to_the_last_bit():
    broken = m80.reproduce()
    repaired = m80.repair(broken)
    assert broken.onnx != repaired.onnx
    one, other = (onnx_runtime.outputs(onnx_runtime.session(case.onnx), case.inputs)[0] for case in (broken, repaired))
    assert_array_equal(one, other)
    optimized = onnx_runtime.outputs(onnx_runtime.as_users_make_it(repaired.onnx), repaired.inputs)[0]
    assert_array_equal(one, optimized)  # on every processor


def test_whether_this_processor_saturates_is_asked_once():
    assert onnx_runtime.saturates() in (True, False)
    assert onnx_runtime.saturates.cache_info().currsize == 1
