"""One step for each supported operator: it draws attributes, adds the node and what quantizes it, returns the result.

A step that does not fit the tensor it is given raises `Unusable`; the caller draws another one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bridge.exact.graphs import Builder, Step, Unusable

STEPS: dict[str, Step] = {}


def step(function: Step) -> Step:
    STEPS[function.__name__] = function
    return function


def need(fits: bool) -> None:
    if not fits:
        raise Unusable


def _limited(b: Builder, y: str) -> str:
    """Nothing, Relu, Relu6 or a Clip that no fused activation does, before the rounding."""
    how = b.one_of("none", "none", "relu", "relu6", "clip")
    if how == "none":
        return y
    if how == "relu":
        return str(b.add("Relu", [y]))
    return _clip(b, y, relu6=how == "relu6")


def _clip(b: Builder, y: str, relu6: bool) -> str:
    if relu6:
        return str(b.add("Clip", [y, b.constant(0.0), b.constant(6.0)]))
    largest = float(np.abs(b.values[y]).max()) or 1.0
    low, high = b.one_of((-0.3, 0.6), (0.0, 0.5), (-1.0, 0.4), (0.1, 0.7), (-0.5, -0.1))
    limits = [b.constant(low * largest), b.constant(high * largest)]
    return str(b.add("Clip", [y, *b.one_of(limits, limits[:1], ["", limits[1]])]))


def _after_sum(b: Builder, y: str, x: str, scales: np.ndarray) -> str:
    """[BatchNormalization] [limit] Q DQ; no finer than one step of the accumulator, which no integer could resolve."""
    if b.odds(3) and len(b.shape(y)) > 2:
        y = _norm(b, y)
    step_size = b.scale(x) * float(np.max(scales))
    return b.quantize(_limited(b, y), at_least=step_size)


def _norm(b: Builder, y: str) -> str:
    return _norm_and_factor(b, y)[0]


def _norm_and_factor(b: Builder, y: str) -> tuple[str, float]:
    channels = b.shape(y)[1]
    largest = float(np.abs(b.values[y]).max()) or 1.0
    signs = np.where(b.random.random(channels) < 0.3, -1, 1)
    gamma = np.abs(b.normal(channels)) + 0.5
    if b.odds(6):
        gamma[0] = 0.0
    variance = (b.random.random(channels) + 0.5) * largest**2
    statistics = [gamma * signs, b.normal(channels), b.normal(channels, scale=largest / 4), variance]
    normed = str(b.add("BatchNormalization", [y, *(b.constant(s) for s in statistics)], epsilon=1e-12))
    return normed, float((gamma / np.sqrt(variance)).max())


def _window(b: Builder, x: str, kernel: list[int], dilations: list[int]) -> dict[str, Any]:
    strides = [b.one_of(1, 1, 2, 3) for _ in kernel]
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    if any(d != 1 for d in dilations):
        attrs["dilations"] = dilations
    how = b.one_of("pads", "pads", "same", "none", "SAME_UPPER", "SAME_LOWER", "VALID")
    if how in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        need(all(d == 1 for d in dilations) or how == "VALID")  # ONNX Runtime disagrees with its own inference there
        attrs["auto_pad"] = how
    elif how == "pads":
        attrs["pads"] = [b.source.integer(0, max(0, k - 1)) for k in kernel * 2]
    elif how == "same":
        attrs["pads"] = [k // 2 for k in kernel] * 2
    pads = attrs.get("pads", [0] * 2 * len(kernel))
    for i, (size, k, d) in enumerate(zip(b.shape(x)[2:], kernel, dilations, strict=True)):
        # A window beyond the input: refused; ONNX Runtime computes some of them.
        need(how.startswith("SAME") or (k - 1) * d < size + pads[i] + pads[i + len(kernel)])
    return attrs


def _pool_window(b: Builder, x: str, kernel: list[int]) -> dict[str, Any]:
    """Without what ONNX Runtime 1.23 does not compute as specified: SAME with gaps between windows, which it shifts."""
    attrs = _window(b, x, kernel, [1] * len(kernel))
    same = str(attrs.get("auto_pad", "")).startswith("SAME")
    need(not same or all(s <= k for s, k in zip(attrs["strides"], kernel, strict=True)))
    return attrs


def _convolved(b: Builder, x: str, channels: int, group: int) -> str:
    need(len(b.shape(x)) in (3, 4))
    spatial = len(b.shape(x)) - 2
    kernel = [b.source.integer(1, 4) for _ in range(spatial)]
    dilations = [b.one_of(1, 1, 1, 2) for _ in range(spatial)]
    attrs = _window(b, x, kernel, dilations)
    spread = float(b.one_of(1e-3, 0.1, 1.0, 10.0))
    real = b.normal(channels, b.shape(x)[1] // group, *kernel, scale=spread)
    if b.odds(6):
        real[0] = 0  # a dead channel
    weight, scales = b.weight(real, axis=0)
    largest = float(np.abs(b.values[x]).max()) or 1.0
    bias = b.bias(channels, np.float32(b.scale(x)) * scales, spread * largest)
    y = b.add("Conv", [x, weight, *bias], group=group, **attrs)
    return _after_sum(b, str(y), x, scales)


@step
def conv(b: Builder, x: str) -> str:
    return _convolved(b, x, b.source.integer(1, 8), 1)


@step
def conv_grouped(b: Builder, x: str) -> str:
    need(len(b.shape(x)) in (3, 4))
    channels = b.shape(x)[1]
    groups = [g for g in range(2, channels + 1) if channels % g == 0]
    need(bool(groups))
    group = b.one_of(*groups)
    return _convolved(b, x, group * b.source.integer(1, 3), group)


@step
def conv_depthwise(b: Builder, x: str) -> str:
    need(len(b.shape(x)) in (3, 4))
    return _convolved(b, x, b.shape(x)[1] * b.one_of(1, 1, 2), b.shape(x)[1])


@step
def conv_transpose(b: Builder, x: str) -> str:
    need(len(b.shape(x)) in (3, 4))
    spatial, channels = len(b.shape(x)) - 2, b.source.integer(1, 5)
    kernel = [b.source.integer(1, 4) for _ in range(spatial)]
    strides = [b.one_of(1, 2, 2, 3) for _ in kernel]
    pads = [b.source.integer(0, (k - 1) // 2) for k in kernel] * 2
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if b.odds(3):
        attrs["output_padding"] = [b.source.integer(0, s - 1) for s in strides]
    spread = float(b.one_of(0.1, 1.0))
    weight, scales = b.weight(b.normal(b.shape(x)[1], channels, *kernel, scale=spread), axis=1)
    largest = float(np.abs(b.values[x]).max()) or 1.0
    bias = b.bias(channels, np.float32(b.scale(x)) * scales, spread * largest)
    return _after_sum(b, str(b.add("ConvTranspose", [x, weight, *bias], **attrs)), x, scales)


@step
def gemm(b: Builder, x: str) -> str:
    need(len(b.shape(x)) == 2)
    features, out = b.shape(x)[1], b.source.integer(1, 9)
    trans = b.one_of(0, 1)
    spread = float(b.one_of(1e-3, 1.0))
    weight, scales = b.weight(b.normal(*((out, features) if trans else (features, out)), scale=spread), 1 - trans)
    bias = b.bias(out, np.float32(b.scale(x)) * scales, spread * (float(np.abs(b.values[x]).max()) or 1.0))
    return _after_sum(b, str(b.add("Gemm", [x, weight, *bias], transB=trans)), x, scales)


@step
def matmul(b: Builder, x: str) -> str:
    need(len(b.shape(x)) > 1)
    features, out = b.shape(x)[-1], b.source.integer(1, 9)
    weight, scales = b.weight(b.normal(features, out), axis=1)
    y = str(b.add("MatMul", [x, weight]))
    if b.one_of(True, False):
        bias = b.constant(b.normal(out, scale=float(np.abs(b.values[x]).max()) or 1.0))
        y = str(b.add("Add", b.one_of([y, bias], [bias, y])))
    step_size = b.scale(x) * float(np.max(scales))
    return b.quantize(_limited(b, y), at_least=step_size)


@step
def matmul_activations(b: Builder, x: str) -> str:
    need(len(b.shape(x)) in (3, 4))
    other = b.requantize(x, (np.float32(b.scale(x) * b.one_of(0.5, 1, 2)), np.array(0, np.int8)))  # XNNPACK: 0 only
    rank = len(b.shape(x))
    turned = str(b.add("Transpose", [other], perm=[*range(rank - 2), rank - 1, rank - 2]))
    return b.quantize(str(b.add("MatMul", [x, turned])), at_least=b.scale(x) * b.scale(other))


def _branch(b: Builder, x: str) -> str:
    """Another activation of the same shape, at its own scale."""
    how = b.one_of("relu", "scaled", "sigmoid", "itself")
    if how == "itself":
        return x
    if how == "relu":
        return b.quantize(str(b.add("Relu", [x])))
    if how == "sigmoid":
        return b.quantize(str(b.add("Sigmoid", [x])), at_least=1 / 256)
    return b.quantize(str(b.add("Mul", [x, b.constant(float(b.one_of(-0.01, 0.3, 2.0, 30.0)))])))


def _partner(b: Builder, x: str, spread: float) -> str:
    """The other operand: an activation of the same or a broadcast shape, or a constant, quantized or not."""
    how = b.one_of("branch", "mean", "constant", "quantized constant")
    shape = b.shape(x)
    if how == "branch":
        return _branch(b, x)
    if how == "mean" and len(shape) > 2:
        return b.quantize(str(b.add("GlobalAveragePool", [x])))
    options = [(), shape, shape[-1:], (1, *shape[1:]), (1, shape[1], *(1,) * (len(shape) - 2))]
    options.append((shape[1], *(1,) * (len(shape) - 2)))
    real = b.normal(*b.one_of(*options), scale=spread)
    if how != "quantized constant" or real.ndim == 0:
        return b.constant(real)
    scale = np.float32(max(float(np.abs(real).max()) / 127, 1e-30))
    parameters = [b.constant(scale), b.constant(0, np.int8)]
    codes = b.constant(np.clip(np.rint(real / scale), -128, 127), np.int8)
    return str(b.add("DequantizeLinear", [codes, *parameters]))


def _pairwise(op: str, b: Builder, x: str) -> str:
    largest = float(np.abs(b.values[x]).max()) or 1.0
    other = _partner(b, x, largest if op != "Mul" else float(b.one_of(0.1, 1.0, 5.0)))
    y = str(b.add(op, b.one_of([x, other], [other, x])))
    need(b.shape(y) == b.shape(x) and bool(np.isfinite(b.values[y]).all()))
    return b.quantize(_limited(b, y))


@step
def add(b: Builder, x: str) -> str:
    return _pairwise("Add", b, x)


@step
def sub(b: Builder, x: str) -> str:
    return _pairwise("Sub", b, x)


@step
def mul(b: Builder, x: str) -> str:
    return _pairwise("Mul", b, x)


@step
def div(b: Builder, x: str) -> str:
    divisor = b.constant(b.normal(*b.one_of((), (b.shape(x)[-1],))) + 3)
    return b.quantize(str(b.add("Div", [x, divisor])))


def _unary(op: str, at_least: float = 0.0, **attrs: Any) -> Step:
    def function(b: Builder, x: str) -> str:
        return b.quantize(str(b.add(op, [x], **attrs)), at_least)

    return function


STEPS["relu"] = lambda b, x: b.maybe_quantize(str(b.add("Relu", [x])), x)
STEPS["relu6"] = lambda b, x: b.quantize(_clip(b, x, relu6=True))
STEPS["clip"] = lambda b, x: b.quantize(_clip(b, x, relu6=False))
STEPS["sigmoid"] = _unary("Sigmoid", at_least=1 / 256)
STEPS["tanh"] = _unary("Tanh", at_least=1 / 128)


@step
def hard_swish(b: Builder, x: str) -> str:
    need(b.opset >= 14)
    return b.quantize(str(b.add("HardSwish", [x])))


@step
def hard_sigmoid(b: Builder, x: str) -> str:
    attrs = b.one_of({}, {"alpha": 1 / 6, "beta": 0.5})
    return b.quantize(str(b.add("HardSigmoid", [x], **attrs)), at_least=0.2 * b.scale(x) / 127)


@step
def leaky_relu(b: Builder, x: str) -> str:
    return b.quantize(str(b.add("LeakyRelu", [x], alpha=float(b.one_of(0.01, 0.1, 0.5)))))


@step
def prelu(b: Builder, x: str) -> str:
    shape = b.shape(x)
    slope = b.constant(b.normal(*b.one_of((1,), (shape[1], *(1,) * (len(shape) - 2))), scale=0.3))
    return b.quantize(str(b.add("PRelu", [x, slope])))


@step
def softmax(b: Builder, x: str) -> str:
    y = b.add("Softmax", [x], axis=b.one_of(-1, b.source.integer(0, len(b.shape(x)) - 1)))
    return b.quantize(str(y), at_least=1 / 256)


@step
def max_pool(b: Builder, x: str) -> str:
    need(len(b.shape(x)) in (3, 4))
    kernel = [b.source.integer(1, 4) for _ in b.shape(x)[2:]]
    attrs = _pool_window(b, x, kernel)
    ceil = 0 if str(attrs.get("auto_pad", "")).startswith("SAME") else b.one_of(0, 1)  # ONNX leaves the pair open
    y = b.add("MaxPool", [x], ceil_mode=ceil, **attrs)
    need(bool((b.values[y] > -1e30).all()))  # a window of padding alone has no maximum
    return b.maybe_quantize(str(y), x)


@step
def average_pool(b: Builder, x: str) -> str:
    need(len(b.shape(x)) in (3, 4))
    kernel = [b.source.integer(1, 4) for _ in b.shape(x)[2:]]
    attrs = _pool_window(b, x, kernel)
    ceil = 0 if str(attrs.get("auto_pad", "")).startswith("SAME") else b.one_of(0, 1)  # ONNX leaves the pair open
    # ONNX Runtime 1.23 counts what ceil_mode adds, and from opset 19 on takes the pads of one axis for the other's.
    counted = b.one_of(0, 1) if b.opset < 19 and not ceil and "auto_pad" not in attrs else 0
    y = b.add("AveragePool", [x], ceil_mode=ceil, count_include_pad=counted, **attrs)
    need(bool(np.isfinite(b.values[y]).all()))
    return b.requantize(str(y), b.qparams[x]) if b.odds(2) else b.quantize(str(y))


@step
def global_average_pool(b: Builder, x: str) -> str:
    need(len(b.shape(x)) > 2)
    return b.quantize(str(b.add("GlobalAveragePool", [x])))


@step
def reduce_mean(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    axes = sorted({b.source.integer(1, rank - 1) for _ in range(b.one_of(1, 2))})
    axes = [a - rank if b.odds(3) else a for a in axes]
    keep = b.one_of(0, 1) if rank - len(axes) > 1 else 1
    if b.opset < 18:
        y = b.add("ReduceMean", [x], axes=axes, keepdims=keep)
    else:
        y = b.add("ReduceMean", [x, b.constant(axes, np.int64)], keepdims=keep)
    return b.quantize(str(y))


@step
def concat(b: Builder, x: str) -> str:
    parts = [x, *(_branch(b, x) for _ in range(b.one_of(1, 1, 2)))]
    axis = b.source.integer(1, len(b.shape(x)) - 1)
    return b.quantize(str(b.add("Concat", parts, axis=b.one_of(axis, axis - len(b.shape(x))))))


@step
def split(b: Builder, x: str) -> str:
    axis = b.source.integer(1, len(b.shape(x)) - 1)
    size = b.shape(x)[axis]
    need(size > 1)
    cut = b.source.integer(1, size - 1)
    parts = b.add("Split", [x, b.constant([cut, size - cut], np.int64)], 2, axis=axis)
    parts = [b.maybe_quantize(part, x) for part in parts]
    if cut * 2 == size:
        return b.quantize(str(b.add("Add", parts)))
    return b.quantize(str(b.add("Concat", parts[::-1], axis=axis)))


@step
def slice_(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    axis = b.source.integer(1, rank - 1)
    size = b.shape(x)[axis]
    start = b.source.integer(-size, size - 1)
    end = b.one_of(size, 2**31, -1, b.source.integer(1, size))
    numbers = [[start], [end], [b.one_of(axis, axis - rank)], [b.one_of(1, 1, 2)]]
    y = b.add("Slice", [x, *(b.constant(n, np.int64) for n in numbers)])
    return b.maybe_quantize(str(y), x)


@step
def pad(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    mode = b.one_of("constant", "constant", "reflect")
    most = [min(2, size - 1) if mode == "reflect" else 2 for size in b.shape(x)]
    pads = [0 if i == 0 else b.source.integer(0, most[i]) for i in (*range(rank), *range(rank))]
    value = [b.constant(float(b.one_of(0.0, 1.0)) * b.scale(x) * 3)] if mode == "constant" and b.odds(2) else []
    y = str(b.add("Pad", [x, b.constant(pads, np.int64), *value], mode=mode))
    return b.quantize(y) if value else b.maybe_quantize(y, x)


@step
def resize(b: Builder, x: str) -> str:
    need(len(b.shape(x)) == 4)
    attrs = b.one_of(
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        {"mode": "nearest", "coordinate_transformation_mode": "half_pixel"},
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    )
    if b.one_of(True, False):
        factors = [1.0, 1.0, float(b.one_of(1, 2, 3)), float(b.one_of(1, 2, 3, 0.5))]
        y = b.add("Resize", [x, "", b.constant(factors)], **attrs)
    else:
        sizes = [*b.shape(x)[:2], b.source.integer(1, 9), b.source.integer(1, 9)]
        y = b.add("Resize", [x, "", "", b.constant(sizes, np.int64)], **attrs)
    if attrs["mode"] == "linear":  # without Q and DQ the reference would go on with more than 8 bits
        return b.requantize(str(y), b.qparams[x]) if b.odds(2) else b.quantize(str(y))
    return b.maybe_quantize(str(y), x)


@step
def reshape(b: Builder, x: str) -> str:
    n, *rest = b.shape(x)
    count = int(np.prod(rest))
    divisors = [d for d in range(1, count + 1) if count % d == 0]
    d = b.one_of(*divisors)
    target = b.one_of([n, d, count // d], [0, -1], [n, d, 1, count // d], [n, 1, d, -1], [n, d, -1])
    return b.maybe_quantize(str(b.add("Reshape", [x, b.constant(target, np.int64)])), x)


@step
def flatten(b: Builder, x: str) -> str:
    return b.maybe_quantize(str(b.add("Flatten", [x], axis=1)), x)


@step
def transpose(b: Builder, x: str) -> str:
    perm = [0, *(int(a) + 1 for a in b.random.permutation(len(b.shape(x)) - 1))]
    return b.maybe_quantize(str(b.add("Transpose", [x], perm=perm)), x)


@step
def squeeze(b: Builder, x: str) -> str:
    ones = [axis for axis, size in enumerate(b.shape(x)) if size == 1 and axis > 0]
    need(bool(ones) and len(b.shape(x)) > 2)
    return b.maybe_quantize(str(b.add("Squeeze", [x, b.constant([b.one_of(*ones)], np.int64)])), x)


@step
def unsqueeze(b: Builder, x: str) -> str:
    need(len(b.shape(x)) < 4)
    axis = b.source.integer(1, len(b.shape(x)))
    return b.maybe_quantize(str(b.add("Unsqueeze", [x, b.constant([axis], np.int64)])), x)


@step
def batch_norm(b: Builder, x: str) -> str:
    need(len(b.shape(x)) > 1)
    y, factor = _norm_and_factor(b, x)
    return b.quantize(_limited(b, y), at_least=factor * b.scale(x) / 127)  # one step of the accumulator


@step
def identity(b: Builder, x: str) -> str:
    return b.maybe_quantize(str(b.add("Identity", [x])), x)


@step
def dropout(b: Builder, x: str) -> str:
    return b.maybe_quantize(str(b.add("Dropout", [x])), x)


@step
def minimum(b: Builder, x: str) -> str:
    return b.quantize(str(b.add(b.one_of("Min", "Max"), [x, _branch(b, x)])))


@step
def gather(b: Builder, x: str) -> str:
    axis = b.source.integer(1, len(b.shape(x)) - 1)
    size = b.shape(x)[axis]
    indices = [b.source.integer(-size, size - 1) for _ in range(b.one_of(1, 2, 3))]
    return b.maybe_quantize(str(b.add("Gather", [x, b.constant(indices, np.int64)], axis=axis)), x)
