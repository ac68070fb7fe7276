"""Random valid graphs: any operator with any attribute ONNX Runtime computes, several branches, odd names.

Unlike the property tests' generator, which draws what the bridge writes, this one draws what a stranger's exporter
might: what the bridge cannot write it has to refuse in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from tests.bridge.exact.graphs import Builder, Seeded, Unusable

Draw = Callable[[Builder, str], str]
"""Adds operators behind a tensor and returns the result."""

DRAWS: dict[str, Draw] = {}

STRANGE = (
    "neg",
    "abs",
    "exp",
    "erf",
    "softplus",
    "floor",
    "elu",
    "gelu",
    "logsoftmax",
    "globalmaxpool",
    "shuffle",
    "expand",
)
"""Drawn now and then only: most of them have no int8 form, and one of them makes the whole graph a refusal."""


def draw(function: Draw) -> Draw:
    DRAWS[function.__name__] = function
    return function


def draw_graph(seed: tuple[int, ...]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A model, and what it was drawn from; raises `Unusable` when nothing fits."""
    b = Builder(Seeded(seed), 17)  # type: ignore[arg-type]  # numpy seeds by tuples too
    b.opset = b.one_of(13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
    made = [_quantized(b, b.input(*_shape(b), magnitude=float(b.one_of(0.01, 1.0, 1.0, 30.0))))]
    if b.odds(5):
        made.append(_quantized(b, b.input(*_shape(b), magnitude=1.0)))
    wanted = b.source.integer(1, 6)
    for _ in range(6 * wanted):
        if len(b.kinds) >= wanted:
            break
        common = [kind for kind in DRAWS if kind not in STRANGE]
        kind, x = b.one_of(*(STRANGE if b.odds(25) else common)), b.one_of(*made[-3:])
        before = len(b.nodes), dict(b.values), dict(b.qparams), dict(b.constants)
        try:
            y = _sound(b, DRAWS[kind](b, x))
            if not b.odds(7):
                y = _quantized(b, y)
            else:
                b.qparams.setdefault(y, b.qparams[x])
            made.append(y)
            b.kinds.append(kind)
        except (Unusable, ValueError, KeyError, IndexError, ZeroDivisionError):
            del b.nodes[before[0] :]
            b.values, b.qparams, b.constants = before[1:]
    if not b.kinds:
        raise Unusable("no step fits")
    outputs = [made[-1], *(name for name in made[1:-1] if b.odds(6))]
    model = b.finish(outputs).proto
    return (_renamed(model, b) if b.odds(3) else model), tuple(b.kinds)


def _shape(b: Builder) -> tuple[int, ...]:
    rank = b.one_of(4, 4, 4, 4, 3, 3, 2, 2, 1, 5)
    same = b.source.integer(1, 5)
    return (b.one_of(1, 1, 1, 2), *(same if b.odds(5) else b.source.integer(1, 7) for _ in range(rank - 1)))


def _sound(b: Builder, y: str) -> str:
    if b.values[y].dtype != np.float32 or not np.isfinite(b.values[y]).all():
        raise Unusable(y)
    return y


def _quantized(b: Builder, x: str) -> str:
    """Q and DQ, now and then with a Clip on the codes or an Identity between, at scales training would find."""
    if b.odds(8):
        return _clipped_pair(b, x)
    return b.quantize(x)


def _clipped_pair(b: Builder, x: str) -> str:
    low, high = min(0.0, float(b.values[x].min())), max(0.0, float(b.values[x].max()))
    unsigned = b.one_of(True, False)
    bottom, top = (0, 127) if unsigned else (-127, 127)
    scale = max((high - low) / (top - bottom), 1e-20)
    dtype = np.uint8 if unsigned else np.int8
    zero = dtype(np.clip(round(bottom - low / scale), bottom, top))
    parameters = [b.constant(scale), b.constant(zero, dtype)]
    codes = b.add("QuantizeLinear", [x, *parameters])
    codes = b.add("Clip", [codes, b.constant(bottom, dtype), b.constant(top, dtype)])
    y = str(b.add("DequantizeLinear", [codes, *parameters]))
    b.qparams[y] = (np.float32(scale), np.asarray(zero))
    return y


def _renamed(model: onnx.ModelProto, b: Builder) -> onnx.ModelProto:
    """Tensors and nodes under names that are odd, alike, or that a converter might make itself."""
    inner = [name for node in model.graph.node for name in node.output if name]
    constants = [tensor.name for tensor in model.graph.initializer]
    outside = {value.name for value in (*model.graph.input, *model.graph.output)}
    nodes = [node.name for node in model.graph.node]
    endings = ("/bias", "/weight", "/shape", "/float", "/before", "/padded", "/requantize", "/zero", "/input0", "/0")
    names: dict[str, str] = {}
    taken = set(inner) | set(constants) | outside
    for name in (*inner, *constants):
        new = b.one_of(*nodes, *inner, *constants) + b.one_of(*endings, "/axes", "/begin", "/quantize", " ", "é", ":0")
        if name not in outside and new not in taken and b.odds(2):
            names[name] = new
            taken.add(new)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        if b.odds(4):
            node.name = b.one_of("", *nodes)
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    return model


# What can be drawn


def _int(b: Builder, low: int, high: int) -> int:
    return b.source.integer(low, high)


def _unary(op: str, **attrs: Callable[[Builder], Any]) -> None:
    def function(b: Builder, x: str) -> str:
        return str(b.add(op, [x], **{name: make(b) for name, make in attrs.items() if b.odds(2)}))

    DRAWS[op.lower()] = function


for _op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Identity", "Neg", "Abs", "Exp", "Erf", "Softplus", "Floor"):
    _unary(_op)
_unary("HardSigmoid", alpha=lambda b: float(b.one_of(0.2, 1 / 6, 0.5)), beta=lambda b: float(b.one_of(0.5, 0.0)))
_unary("LeakyRelu", alpha=lambda b: float(b.one_of(0.0, 0.01, 0.3, 1.0, 2.0, -0.2)))
_unary("Elu", alpha=lambda b: float(b.one_of(1.0, 0.5)))
_unary("Gelu")
_unary("Softmax", axis=lambda b: _int(b, -2, 3))
_unary("LogSoftmax", axis=lambda b: _int(b, -2, 3))
_unary("Flatten", axis=lambda b: _int(b, -2, 3))
_unary("GlobalAveragePool")
_unary("GlobalMaxPool")


@draw
def clip(b: Builder, x: str) -> str:
    largest = float(np.abs(b.values[x]).max()) or 1.0
    numbers = (0.0, 0.0, 1.0, 6.0, -0.5 * largest, 0.4 * largest, -1.0, 2 * largest, np.inf, -np.inf)
    limits = [b.constant(float(b.one_of(*numbers))) for _ in range(2)]
    return str(b.add("Clip", [x, *b.one_of(limits, limits[:1], ["", limits[1]], [])]))


@draw
def dropout(b: Builder, x: str) -> str:
    inputs = b.one_of([x], [x, b.constant(0.4)], [x, b.constant(0.3), b.constant(False, np.bool_)])
    return str(b.add("Dropout", inputs))


def _windows(b: Builder, x: str, dilated: bool) -> dict[str, Any]:
    spatial = len(b.shape(x)) - 2
    if spatial < 1:
        raise Unusable("no window")
    attrs: dict[str, Any] = {"kernel_shape": [_int(b, 1, 4) for _ in range(spatial)]}
    if b.odds(2):
        attrs["strides"] = [_int(b, 1, 3) for _ in range(spatial)]
    if dilated and b.odds(4):
        attrs["dilations"] = [_int(b, 1, 2) for _ in range(spatial)]
    if b.odds(2):
        attrs["pads"] = [_int(b, 0, k - 1) for k in attrs["kernel_shape"] * 2]
    elif b.odds(4):
        attrs["auto_pad"] = b.one_of("VALID", "NOTSET")
    return attrs


def _require_reach(b: Builder, x: str, attrs: dict[str, Any]) -> None:
    """No window larger than its input, padding included: some evaluators compute one, none agrees with another."""
    spatial = len(attrs["kernel_shape"])
    pads = attrs.get("pads", [0] * 2 * spatial)
    for i, size in enumerate(b.shape(x)[2:]):
        reach = (attrs["kernel_shape"][i] - 1) * attrs.get("dilations", [1] * spatial)[i] + 1
        if reach > size + pads[i] + pads[i + spatial]:
            raise Unusable("window")


def _weights(b: Builder, real: np.ndarray, axis: int) -> tuple[str, np.ndarray]:
    return b.weight(real, axis) if not b.odds(12) else (b.constant(real), np.float32(1.0))


@draw
def conv(b: Builder, x: str) -> str:
    attrs = _windows(b, x, dilated=True)
    _require_reach(b, x, attrs)
    channels = b.shape(x)[1]
    group = b.one_of(1, 1, channels, *(g for g in (2, 3) if channels % g == 0))
    outputs = group * _int(b, 1, 3)
    real = b.normal(outputs, channels // group, *attrs["kernel_shape"], scale=float(b.one_of(0.05, 0.3, 2.0)))
    weight, scale = _weights(b, real, 0)
    bias = b.bias(outputs, np.float32(b.scale(x)) * scale, 0.3 * (float(np.abs(b.values[x]).max()) or 1.0))
    return str(b.add("Conv", [x, weight, *bias], group=group, **attrs))


@draw
def conv_transpose(b: Builder, x: str) -> str:
    attrs = _windows(b, x, dilated=False)
    channels = b.shape(x)[1]
    outputs = _int(b, 1, 4)
    if b.odds(4) and "strides" in attrs:
        attrs["output_padding"] = [_int(b, 0, s - 1) for s in attrs["strides"]]
    weight, scale = _weights(b, b.normal(channels, outputs, *attrs["kernel_shape"], scale=0.4), 1)
    bias = b.bias(outputs, np.float32(b.scale(x)) * scale, 0.3)
    return str(b.add("ConvTranspose", [x, weight, *bias], **attrs))


@draw
def pool(b: Builder, x: str) -> str:
    op = b.one_of("MaxPool", "AveragePool")
    attrs = _windows(b, x, dilated=op == "MaxPool")
    _require_reach(b, x, attrs)
    if b.odds(3):
        attrs["ceil_mode"] = 1
    elif op == "AveragePool" and b.odds(2) and b.opset < 19:  # ONNX Runtime 1.23 is wrong from 19 on
        attrs["count_include_pad"] = 1
    y = str(b.add(op, [x], **attrs))
    if not (np.abs(b.values[y]) < 1e30).all():
        raise Unusable("a window of padding alone")
    return y


@draw
def gemm(b: Builder, x: str) -> str:
    shape = b.shape(x)
    if len(shape) != 2:
        x = str(b.add("Flatten", [x], axis=1))
        b.qparams[x] = next(iter(b.qparams.values()))
        shape = b.shape(x)
    outputs = _int(b, 1, 6)
    turned = b.one_of(0, 1)
    real = b.normal(*((outputs, shape[1]) if turned else (shape[1], outputs)), scale=0.5)
    weight, _ = _weights(b, real, 0 if turned else 1)
    shapes = ((outputs,), (1, outputs), (shape[0], 1), (shape[0], outputs), (1,), (), (1, 1))
    c = [b.constant(b.normal(*b.one_of(*shapes)))] if b.odds(2) else []
    attrs = {"transB": turned} | ({"beta": float(b.one_of(0.0, 0.5, 2.0))} if b.odds(4) else {})
    attrs |= {"alpha": float(b.one_of(0.5, 2.0))} if b.odds(8) else {}
    return str(b.add("Gemm", [x, weight, *c], **attrs))


@draw
def matmul(b: Builder, x: str) -> str:
    outputs = _int(b, 1, 6)
    weight, _ = _weights(b, b.normal(b.shape(x)[-1], outputs, scale=0.5), 1)
    y = str(b.add("MatMul", [x, weight]))
    if b.odds(2):
        y = str(b.add("Add", [y, b.constant(b.normal(*b.one_of((outputs,), (), (1, outputs))))]))
    return y


@draw
def matmul_two(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    turned = str(b.add("Transpose", [x], perm=[*range(rank - 2), rank - 1, rank - 2]))
    return str(b.add("MatMul", [x, turned]))


@draw
def binary(b: Builder, x: str) -> str:
    shape = b.shape(x)
    shapes = [(), (1,), shape, shape[-1:], tuple(s if b.odds(2) else 1 for s in shape)]
    if len(shape) > 1:
        shapes += [(shape[1], *(1,) * (len(shape) - 2)), (1, *shape)]
    spread = float(np.abs(b.values[x]).max()) or 1.0
    op = b.one_of("Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu", "Add", "Mul")
    other = b.normal(*b.one_of(*shapes), scale=spread if op in ("Add", "Sub", "Min", "Max") else 1.0)
    if op == "Div":
        other = np.where(np.abs(other) < 0.3, np.float32(1.5), other)
    how = b.one_of("constant", "weight", "activation")
    if how == "activation" and op != "PRelu":
        y = b.one_of(*(name for name in b.qparams if name in b.values))
        other_name = y
    elif how == "weight" and other.ndim:
        other_name = b.weight(other, 0)[0]
    else:
        other_name = b.constant(other)
    pair = [x, other_name] if op in ("Div", "PRelu") or b.odds(2) else [other_name, x]
    return str(b.add(op, pair))


@draw
def several(b: Builder, x: str) -> str:
    others = [name for name in b.qparams if name in b.values and b.shape(name) == b.shape(x)]
    parts = [x, *(b.one_of(*others) for _ in range(_int(b, 1, 2)))]
    op = b.one_of("Concat", "Concat", "Sum", "Min", "Max", "Mean")
    return str(b.add(op, parts, **({"axis": _int(b, -len(b.shape(x)), len(b.shape(x)) - 1)} if op == "Concat" else {})))


@draw
def reshape(b: Builder, x: str) -> str:
    count = int(b.values[x].size)
    target: list[int] = []
    while count > 1 and len(target) < 4:
        size = b.one_of(*(d for d in range(1, count + 1) if count % d == 0))
        target.append(size)
        count //= size
    target = [*target, count] if count > 1 else target
    if target and b.odds(3):
        target[_int(b, 0, len(target) - 1)] = -1
    return str(b.add("Reshape", [x, b.constant(target or [1], np.int64)]))


@draw
def transpose(b: Builder, x: str) -> str:
    perm = [int(axis) for axis in b.random.permutation(len(b.shape(x)))]
    return str(b.add("Transpose", [x], **({"perm": perm} if not b.odds(5) else {})))


@draw
def squeeze(b: Builder, x: str) -> str:
    if b.odds(2):
        return str(b.add("Unsqueeze", [x, b.constant([_int(b, -2, 2)], np.int64)]))
    ones = [i for i, size in enumerate(b.shape(x)) if size == 1]
    return str(b.add("Squeeze", [x] if b.odds(3) else [x, b.constant(ones[: _int(b, 1, 3)], np.int64)]))


@draw
def slice_(b: Builder, x: str) -> str:
    axes = sorted({_int(b, 0, len(b.shape(x)) - 1) for _ in range(_int(b, 1, 2))})
    sizes = [b.shape(x)[axis] for axis in axes]
    starts = [_int(b, -s - 1, s) for s in sizes]
    ends = [b.one_of(s, -1, 2**31 - 1, 2**63 - 1, -(2**63), _int(b, -s, s)) for s in sizes]
    steps = [b.one_of(1, 1, 1, 2, 3, -1, -2, 2**63 - 1) for _ in sizes]
    numbers = [starts, ends, axes, steps]
    return str(b.add("Slice", [x, *(b.constant(each, np.int64) for each in numbers)]))


@draw
def gather(b: Builder, x: str) -> str:
    axis = _int(b, -len(b.shape(x)), len(b.shape(x)) - 1)
    size = b.shape(x)[axis]
    shape = b.one_of((), (1,), (2,), (3,), (1, 2))
    indices = b.random.integers(-size, size, shape)
    return str(b.add("Gather", [x, b.constant(indices, np.int64)], axis=axis))


@draw
def split(b: Builder, x: str) -> str:
    axis = _int(b, 0, len(b.shape(x)) - 1)
    size = b.shape(x)[axis]
    cut = _int(b, 1, size - 1)
    parts = b.add("Split", [x, b.constant([cut, size - cut], np.int64)], 2, axis=axis)
    parts = [str(b.add("Relu", [part])) if b.odds(4) else _quantized(b, part) for part in parts]
    return str(b.add("Concat", parts, axis=axis)) if b.odds(2) else parts[0]


@draw
def pad(b: Builder, x: str) -> str:
    mode = b.one_of("constant", "constant", "reflect", "edge")
    shape = b.shape(x)
    options = {"constant": (0, 0, 1, 2), "edge": (0, 0, 1, 2), "reflect": (0, 0, 1, 2)}[mode]
    # Reflected further than the size: undefined, and ONNX Runtime reads beyond its memory.
    pads = [min(b.one_of(*options), size - 1 if mode == "reflect" else 9) for size in (*shape, *shape)]
    inputs = [x, b.constant(pads, np.int64)]
    if mode == "constant" and b.odds(2):
        inputs.append(b.constant(float(b.one_of(0.0, 1.0, -3.0, 100.0)) * b.scale(x)))
    return str(b.add("Pad", inputs, mode=mode))


@draw
def resize(b: Builder, x: str) -> str:
    shape = b.shape(x)
    attrs: dict[str, Any] = {"mode": b.one_of("nearest", "linear", "linear", "cubic")}
    modes = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attrs["coordinate_transformation_mode"] = b.one_of(*modes)
    if attrs["mode"] == "nearest":
        attrs["nearest_mode"] = b.one_of("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    if b.odds(2):
        factors = [1.0, 1.0, *(float(b.one_of(1, 2, 2, 3, 0.5, 1.5)) for _ in shape[2:])]
        return str(b.add("Resize", [x, "", b.constant(factors)], **attrs))
    sizes = [*shape[:2], *(_int(b, 1, 8) for _ in shape[2:])]
    return str(b.add("Resize", [x, "", "", b.constant(sizes, np.int64)], **attrs))


@draw
def reduction(b: Builder, x: str) -> str:
    op = b.one_of("ReduceMean", "ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax")
    axes = sorted({_int(b, -1, len(b.shape(x)) - 1) % len(b.shape(x)) for _ in range(_int(b, 1, 2))})
    attrs: dict[str, Any] = {"keepdims": b.one_of(0, 1)} if b.odds(2) else {}
    inputs = [x]
    if op == "ReduceSum" or b.opset >= 18:
        inputs += [b.constant(axes, np.int64)] if not b.odds(6) else []
        attrs |= {"noop_with_empty_axes": 1} if b.odds(6) else {}
    elif not b.odds(6):
        attrs["axes"] = axes
    return str(b.add(op, inputs, **attrs))


@draw
def batch_norm(b: Builder, x: str) -> str:
    channels = b.shape(x)[1]
    parameters = [b.normal(channels), b.normal(channels), b.normal(channels), np.abs(b.normal(channels)) + 0.3]
    attrs = {"epsilon": float(b.one_of(1e-5, 1e-3))} if b.odds(2) else {}
    return str(b.add("BatchNormalization", [x, *(b.constant(each) for each in parameters)], **attrs))


@draw
def shuffle(b: Builder, x: str) -> str:
    op = b.one_of("DepthToSpace", "SpaceToDepth")
    attrs: dict[str, Any] = {"blocksize": b.one_of(1, 2)}
    if op == "DepthToSpace" and b.odds(2):
        attrs["mode"] = b.one_of("DCR", "CRD")
    return str(b.add(op, [x], **attrs))


@draw
def expand(b: Builder, x: str) -> str:
    if b.odds(2):
        return str(b.add("Tile", [x, b.constant([b.one_of(1, 1, 2) for _ in b.shape(x)], np.int64)]))
    target = [size if size > 1 else b.one_of(1, 2, 3) for size in b.shape(x)]
    return str(b.add("Expand", [x, b.constant(target, np.int64)]))


@draw
def on_codes(b: Builder, x: str) -> str:
    """An operator between Q and DQ, on the codes themselves."""
    low, high = min(0.0, float(b.values[x].min())), max(0.0, float(b.values[x].max()))
    scale = max((high - low) / 255, 1e-20)
    dtype = b.one_of(np.int8, np.uint8)
    lowest = int(np.iinfo(dtype).min)
    zero = dtype(np.clip(round(lowest - low / scale), lowest, lowest + 255))
    codes = str(b.add("QuantizeLinear", [x, b.constant(scale), b.constant(zero, dtype)]))
    rank = len(b.shape(x))
    way = b.one_of("Reshape", "Transpose", "MaxPool", "Slice", "Concat", "Pad", "Relu", "Add", "Split", "Identity")
    if way == "Reshape":
        codes = str(b.add("Reshape", [codes, b.constant([-1, b.shape(x)[-1]], np.int64)]))
    elif way == "Transpose":
        codes = str(b.add("Transpose", [codes], perm=[int(axis) for axis in b.random.permutation(rank)]))
    elif way == "MaxPool":
        codes = str(b.add("MaxPool", [codes], kernel_shape=[1] * (rank - 2), strides=[2] * (rank - 2)))
    elif way == "Slice":
        codes = str(b.add("Slice", [codes, *(b.constant([n], np.int64) for n in (0, 2, rank - 1))]))
    elif way == "Concat":
        codes = str(b.add("Concat", [codes, codes], axis=rank - 1))
    elif way == "Pad":
        codes = str(b.add("Pad", [codes, b.constant([0] * (2 * rank - 1) + [1], np.int64)]))
    elif way == "Split":
        size = b.shape(x)[-1]
        codes = b.add("Split", [codes, b.constant([1, size - 1], np.int64)], 2, axis=rank - 1)[1]
    elif way == "Add":
        codes = str(b.add("Add", [codes, codes]))
    else:
        codes = str(b.add(way, [codes]))
    if b.odds(6):
        scale *= 2
    y = str(b.add("DequantizeLinear", [codes, b.constant(scale), b.constant(zero, dtype)]))
    b.qparams[y] = (np.float32(scale), np.asarray(zero))
    return y
