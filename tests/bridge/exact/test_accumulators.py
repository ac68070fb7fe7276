"""No sum of a written file wraps around in int32: judged by both kernel sets at the input that drives it furthest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BridgeError
from bridge.exact.accumulators import refuse_wrapping
from bridge.exact.convert import convert
from bridge.exact.graph import Graph, Node, QParams, Tensor, constant, per_tensor
from bridge.exact.writer import write
from bridge.verifying.litert import KERNELS, Runner
from tests.bridge.exact.bounded import bounded
from tests.builders import Pair, int32_codes, notes, qdq_model, weight

pytest.importorskip("ai_edge_litert")


def int8(name: str, shape: tuple[int, ...], scale: float, zero_point: int = 0) -> Tensor:
    return Tensor(name, shape, np.dtype(np.int8), None, per_tensor(scale, zero_point))


def layer(op: str, codes: np.ndarray, bias: np.ndarray, multiplier: float, zero_point: int) -> Graph:
    """One output position of a layer: codes (channels, inputs)."""
    channels, inputs = codes.shape
    by_op = {
        "FULLY_CONNECTED": ((1, inputs), codes.shape, {"keep_num_dims": False}),
        "CONV_2D": ((1, 1, 1, inputs), (channels, 1, 1, inputs), {"padding": "VALID", "stride_h": 1, "stride_w": 1}),
        "DEPTHWISE_CONV_2D": (
            (1, inputs, 1, channels),
            (1, inputs, 1, channels),
            {"padding": "VALID", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1},
        ),
    }
    x_shape, w_shape, attrs = by_op[op]
    y_shape = (1, channels) if op == "FULLY_CONNECTED" else (1, 1, 1, channels)
    arranged = codes.T.reshape(w_shape) if op == "DEPTHWISE_CONV_2D" else codes.reshape(w_shape)
    x, y = int8("x", x_shape, 1.0, zero_point), int8("y", y_shape, 1.0)
    scale = np.full(channels, multiplier, np.float32)
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    zeros = np.zeros(channels, np.int32)
    w = constant("w", arranged.astype(np.int8), QParams(scale, zeros, axis))
    b = constant("b", bias.astype(np.int32), QParams(scale, zeros, 0))
    node = Node(op, "layer", ("x", "w", "b"), ("y",), attrs)
    return Graph((node,), {tensor.name: tensor for tensor in (x, w, b, y)}, ("x",), ("y",))


@settings(max_examples=120, derandomize=True, deadline=None, database=None)
@given(
    op=st.sampled_from(["FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"]),
    inputs=st.sampled_from([1, 3, 64, 520]),
    multiplier=st.sampled_from([2.0**-20, 0.003, 0.4, 0.5, 1.0, 3.0, 64.0, 200.0]),
    magnitude=st.integers(10, 31),
    zero_point=st.sampled_from([-128, 0, 100, 127]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_layer_that_is_not_refused_saturates_where_the_sum_is_largest(
    op, inputs, multiplier, magnitude, zero_point, seed
):
    random = np.random.default_rng(seed)
    codes = random.integers(-127, 128, (2, inputs))
    bias = np.clip(random.integers(-(2**magnitude), 2**magnitude, 2), -(2**31), 2**31 - 1)
    graph = layer(op, codes, bias, multiplier, zero_point)
    sign = 1 if bias[0] >= 0 else -1  # drive channel 0 as far as its input goes
    x = np.where(codes[0] * sign > 0, 127, -128)
    sums = bias + codes @ (x - zero_point)
    try:
        refuse_wrapping(graph)
    except BridgeError as error:
        assert "can wrap around in int32" in error.problem
        return
    expected = np.clip(np.rint(sums * multiplier), -128, 127)
    if op == "DEPTHWISE_CONV_2D":
        fed = np.stack([x, x], 1).reshape(graph.tensors["x"].shape)
    else:
        fed = x.reshape(graph.tensors["x"].shape)
    for kernels in KERNELS:
        got = bounded(lambda kernels=kernels: Runner(write(graph), kernels)({"x": fed.astype(np.int8)})["y"])
        assert np.abs(got.reshape(-1) - expected).max() <= 1  # the kernels' own rounding


def wraps(codes: np.ndarray, bias: np.ndarray, multiplier: float, x: int) -> list[int]:
    graph = layer("CONV_2D", codes, bias, multiplier, 0)
    fed = np.full(graph.tensors["x"].shape, x, np.int8)
    return [int(Runner(write(graph), kernels)({"x": fed})["y"].reshape(-1)[0]) for kernels in KERNELS]


def test_what_is_refused_does_wrap_around():
    sum_wraps = np.full((1, 1), 127), np.array([2**31 - 1]), 2.0**-24
    assert wraps(*sum_wraps, x=127) == [-128, -128]  # exactly 128: it saturates at 127
    with pytest.raises(
        BridgeError, match=r"CONV_2D 'layer', output channel 0: can wrap .* reach 2\.147e\+09: 100 % of 2\^31"
    ):
        refuse_wrapping(layer("CONV_2D", *sum_wraps, 0))


def test_the_reference_kernels_wrap_around_where_their_multiplier_shifts_left():
    shift_wraps = np.zeros((1, 1), int), np.array([2**25]), 64.0
    assert wraps(*shift_wraps, x=0) == [127, 0]
    with pytest.raises(BridgeError, match=r"reach 3\.355e\+07, and 4\.295e\+09 where .* 200 % of 2\^31"):
        refuse_wrapping(layer("CONV_2D", *shift_wraps, 0))


def test_a_sum_that_comes_near_gets_a_note_with_the_number():
    graph = refuse_wrapping(layer("CONV_2D", np.full((2, 1), 127), np.array([5, 2**30]), 2.0**-24, 0))
    (note,) = notes(graph, "accumulator")
    assert note.where == "CONV_2D 'layer', output channel 1"
    assert note.what == "bias and weights times input codes reach 1.074e+09: 50 % of 2^31"


def test_a_clamp_that_training_put_on_the_input_counts_but_the_callers_input_does_not():
    def model(*steps, **inputs):
        return qdq_model(
            *steps, ("Gemm", "r w b", "y", {"transB": 1}),
            inputs=inputs, pairs={"x": Pair(1.0), "r": Pair(1.0, -128, clip=(-128, -127)), "y": Pair(1.0)}, outputs="y",
            constants=[weight("w", [[127]], [2.0**-24]), int32_codes("b", [2**31 - 200], [2.0**-24])],
        )  # fmt: skip

    convert(model(("Relu", "x", "r"), x=(1, 1)))  # one step above zero at most
    with pytest.raises(BridgeError, match=r"can wrap around in int32"):
        convert(model(r=(1, 1)))


def test_a_product_of_two_activations_long_enough_wraps_around():
    def product(length: int) -> Graph:
        tensors = int8("a", (1, 1, length), 1.0), int8("b", (1, length, 1), 1.0), int8("y", (1, 1, 1), 2.0**25)
        return Graph((Node("BATCH_MATMUL", "p", ("a", "b"), ("y",)),), {t.name: t for t in tensors}, ("a", "b"), ("y",))

    assert not notes(refuse_wrapping(product(2**15)), "accumulator")
    with pytest.raises(BridgeError, match="BATCH_MATMUL 'p', output channel 0: can wrap around"):
        refuse_wrapping(product(2**17))
    fed = {"a": np.full((1, 1, 2**17), -128, np.int8), "b": np.full((1, 2**17, 1), -128, np.int8)}
    assert [int(Runner(write(product(2**17)), kernels)(fed)["y"].item()) for kernels in KERNELS] == [-64, -64]


def softmax(length: int) -> Graph:
    tensors = int8("x", (1, length), 0.1), int8("y", (1, length), 1 / 256, -128)
    return Graph((Node("SOFTMAX", "s", ("x",), ("y",), {"beta": 1.0}),), {t.name: t for t in tensors}, ("x",), ("y",))


@pytest.mark.parametrize(("length", "found"), [(511, [-127, -127]), (512, [-127, "ended by SIGABRT"])])
def test_a_softmax_so_long_that_the_reference_kernel_can_end_the_process_gets_a_note(length, found):
    fed = {"x": np.zeros((1, length), np.int8)}
    file = write(softmax(length))
    got = [bounded(lambda kernels=kernels: Runner(file, kernels)(fed)["y"]) for kernels in KERNELS]
    assert [one if isinstance(one, str) else int(one.max()) for one in got] == found
    said = notes(refuse_wrapping(softmax(length)), "accumulator")
    assert [note.what.split(":")[0] for note in said] == (["over 512 elements"] if length == 512 else [])


@pytest.mark.parametrize(
    ("op", "scale", "said"),
    [
        ("Add", 1 / 60, False), ("Add", 1 / 90, True),  # 2 * 255 steps of 1
        ("Sub", 1 / 90, False), ("Sub", 1 / 150, True),  # 255 either way
        ("Mul", 2.0, False), ("Mul", 1.0, True),  # 255 * 255
    ],
)  # fmt: skip
def test_a_sum_or_product_that_built_in_kernels_wrap_around_in_16_bits_is_said(op, scale, said):
    model = qdq_model(
        (op, "x w", "y"), inputs={"x": (1, 4), "w": (1, 4)},
        pairs={"x": Pair(1.0, -128), "w": Pair(1.0, -128), "y": Pair(scale, 5)}, outputs="y",
    )  # fmt: skip
    notes = [note for note in convert(model).notes if "wrap around beyond 32,767" in note.what]
    assert bool(notes) == said
