"""What LiteRT's kernels get wrong, shown on one operator each: why limits.py refuses it, and why a bound is wider.

The expected numbers are computed in numpy, without the bridge. When a new runtime mends one of these, its test fails:
then it says since when, and the limit can go once the oldest LiteRT that the bridge is installed beside has it mended.
"""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Tensor, constant, per_tensor
from bridge.exact.limits import refuse_beyond_limits
from bridge.exact.writer import write
from bridge.verifying.litert import Runner
from tests.runtimes import litert_before

pytest.importorskip("ai_edge_litert")

CODES = np.arange(-128, 128).astype(np.int8).reshape(1, 256)


def int8(name: str, shape: tuple[int, ...], scale: float, zero_point: int = 0) -> Tensor:
    return Tensor(name, shape, np.dtype(np.int8), None, per_tensor(scale, zero_point))


def one(op: str, *tensors: Tensor, **attrs: object) -> Graph:
    """A model of one operator; the last tensor is its output."""
    *operands, y = tensors
    node = Node(op, op.lower(), tuple(tensor.name for tensor in operands), (y.name,), attrs)
    moving = tuple(tensor.name for tensor in operands if not tensor.is_constant)
    return Graph((node,), {tensor.name: tensor for tensor in tensors}, moving, (y.name,))


def worst(graph: Graph, expected: np.ndarray, kernels: str, **inputs: np.ndarray) -> int:
    made = Runner(write(graph), kernels)(inputs)[graph.outputs[0]]
    codes = np.clip(np.rint(expected), -128, 127)
    return int(np.abs(made - codes.reshape(made.shape)).max())


def add_of_zero(factor: float) -> Graph:
    zero = constant("zero", np.zeros((), np.int8), per_tensor(1.0, 0))
    return one("ADD", int8("x", (1, 256), 1.0, 3), zero, int8("y", (1, 256), 1 / factor, -5), fused_activation="NONE")


def product(factor: float) -> Graph:
    other = constant("other", np.full((1, 256), 77, np.int8), per_tensor(1.0, 0))
    return one("MUL", int8("x", (1, 256), 1.0, 3), other, int8("y", (1, 256), 1 / factor, -5), fused_activation="NONE")


@pytest.mark.parametrize(("build", "times"), [(add_of_zero, 1), (product, 77)])
def test_sums_and_products_wrap_around_on_xnnpack_from_a_factor_of_256_on(build, times):
    below, beyond = build(255.0), build(600.0)
    codes = CODES.astype(np.float64) - 3

    assert worst(below, codes * times * 255.0 - 5, "xnnpack", x=CODES) <= 1
    assert worst(beyond, codes * times * 600.0 - 5, "reference", x=CODES) <= 1
    assert worst(beyond, codes * times * 600.0 - 5, "xnnpack", x=CODES) == 255
    refuse_beyond_limits(below)
    with pytest.raises(BridgeError, match=r"XNNPACK's \w+ wraps around"):
        refuse_beyond_limits(beyond)


def dense(factor: float) -> Graph:
    weight = constant("w", np.full((1, 1), 3, np.int8), per_tensor(1.0, 0))
    bias = constant("b", np.zeros(1, np.int32), per_tensor(1.0, 0))
    return one("FULLY_CONNECTED", int8("x", (256, 1), 1.0), weight, bias, int8("y", (256, 1), 1 / factor))


def test_xnnpack_loads_no_dense_layer_from_a_factor_of_256_on():
    Runner(write(dense(255.0)), "xnnpack")
    with pytest.raises(BridgeError, match="XNNPACK"):
        Runner(write(dense(256.0)), "xnnpack")
    refuse_beyond_limits(dense(255.0))
    with pytest.raises(BridgeError, match="does not load the file"):
        refuse_beyond_limits(dense(256.0))


def test_hard_swish_does_not_prepare_from_a_factor_of_128_on():
    def hard_swish(factor: float) -> Graph:
        return one("HARD_SWISH", int8("x", (1, 256), 1.0), int8("y", (1, 256), 1 / factor))

    Runner(write(hard_swish(127.0)), "reference")
    with pytest.raises(BridgeError, match="output_multiplier_exponent"):
        Runner(write(hard_swish(128.0)), "reference")
    with pytest.raises(BridgeError, match="does not prepare"):
        refuse_beyond_limits(hard_swish(128.0))


def test_hard_swish_wraps_around_on_an_input_scale_beyond_its_16_bits():
    scale = 2.0**26
    graph = one("HARD_SWISH", int8("x", (1, 256), scale), int8("y", (1, 256), scale))
    expected = np.maximum(CODES, 0)  # far from zero it is the identity above and zero below
    assert worst(graph, expected, "reference", x=CODES) > 50
    with pytest.raises(BridgeError, match="its kernel computes between"):
        refuse_beyond_limits(graph)


@pytest.mark.parametrize("zero_point", [0, 5, -128])
def test_xnnpack_leaves_out_the_zero_point_of_the_second_factor(zero_point):
    random = np.random.default_rng(0)
    a, b = (random.integers(-128, 128, shape, dtype=np.int8) for shape in ((1, 3, 4), (1, 4, 3)))
    graph = one("BATCH_MATMUL", int8("a", a.shape, 0.1), int8("b", b.shape, 0.1, zero_point), int8("y", (1, 3, 3), 4.0))
    exact, without = (np.matmul(a.astype(int), b.astype(int) - zero) * 0.01 / 4 for zero in (zero_point, 0))

    assert worst(graph, exact, "reference", a=a, b=b) == 0
    assert worst(graph, without if litert_before("2.1.6") else exact, "xnnpack", a=a, b=b) == 0
    if zero_point:
        with pytest.raises(BridgeError, match="as if the second had zero point 0"):
            refuse_beyond_limits(graph)


def test_a_softmax_that_would_end_the_process_is_refused():
    refuse_beyond_limits(one("SOFTMAX", int8("x", (1, 4), 2.0**-25), int8("y", (1, 4), 1 / 256, -128)))
    with pytest.raises(BridgeError, match="its kernel computes between"):
        refuse_beyond_limits(one("SOFTMAX", int8("x", (1, 4), 2.0**-26), int8("y", (1, 4), 1 / 256, -128)))


def test_xnnpack_moves_the_windows_of_a_same_convolution_that_skips_the_end_of_an_axis():
    random = np.random.default_rng(0)
    x = random.integers(-128, 128, (1, 6, 6, 1), dtype=np.int8)
    w = random.integers(-127, 128, (1, 1, 3, 1), dtype=np.int8)
    weight, bias = constant("w", w, per_tensor(0.1, 0)), constant("b", np.zeros(1, np.int32), per_tensor(0.01, 0))
    graph = one(
        "CONV_2D",
        int8("x", x.shape, 0.1),
        weight,
        bias,
        int8("y", (1, 2, 6, 1), 1.0),
        padding="SAME",
        stride_h=3,
        stride_w=1,
    )
    rows = np.pad(x[0, ::3, :, 0].astype(int), ((0, 0), (1, 1)))  # rows 0 and 3, one column of padding on each side
    expected = sum(rows[:, k : k + 6] * int(w[0, 0, k, 0]) for k in range(3)) * 0.01

    assert worst(graph, expected, "reference", x=x) <= 1
    assert (worst(graph, expected, "xnnpack", x=x) > 10) == litert_before("2.2")


def bilinear(x: np.ndarray, size: int, position: np.ndarray) -> np.ndarray:
    """Along axis 0, float64: `x` (n, ...) at `size` positions."""
    lower = np.clip(np.floor(position).astype(int), 0, len(x) - 1)
    upper = np.minimum(lower + 1, len(x) - 1)
    share = (position - lower).reshape(size, *(1,) * (x.ndim - 1))
    return x[lower] * (1 - share) + x[upper] * share


def test_the_reference_bilinear_resize_has_positions_of_ten_bits():
    random = np.random.default_rng(0)
    x = random.choice(np.array([-128, 127], np.int8), (1, 4, 6, 1))
    graph = one(
        "RESIZE_BILINEAR",
        int8("x", x.shape, 1.0),
        constant("size", np.array([12, 12], np.int32)),
        int8("y", (1, 12, 12, 1), 1.0),
        align_corners=True,
        half_pixel_centers=False,
    )
    exact, ten_bits = x[0, :, :, 0].astype(np.float64), x[0, :, :, 0].astype(np.float64)
    for n in (4, 6):  # rows, then columns
        steps = np.arange(12)
        exact = bilinear(exact, 12, steps * (n - 1) / 11).T
        ten_bits = bilinear(ten_bits, 12, steps * ((1024 * (n - 1) + 5) // 11) / 1024).T

    assert worst(graph, exact, "xnnpack", x=x) <= 1
    assert worst(graph, exact, "reference", x=x) >= 2
    assert worst(graph, ten_bits, "reference", x=x) <= 1
