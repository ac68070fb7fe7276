"""What an optimized ONNX Runtime computes on x86 processors without VNNI, in numpy: pairs of products that saturate.

Its int8 kernels multiply an unsigned activation with a signed weight and add two neighbouring products in an int16 lane
(`vpmaddubsw`), which stops at 32767: onnxruntime/core/mlas/lib/qgemm_kernel_avx2.cpp, MLAS_GEMM_U8S8_KERNEL_AVX2. int8
activations are shifted to unsigned first. Neighbours are what lies beside each other along the sum: the channels of a tap,
taps row by row. Depthwise kernels (one channel in and one out for each group) widen first and do not saturate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper

from bridge.verifying import onnx_runtime
from compare.mismatches.parts.two_forms import constants

LOWEST, HIGHEST = -(2**15), 2**15 - 1
"""Of an int16 lane."""
FUSED = ("Conv", "MatMul", "Gemm")
"""Operators that the optimizer makes integer ones of, and whose kernels add in pairs."""
SAMPLES = 4
POSITIONS = 2048
"""At most so many samples, and places of an output, are computed again: enough to see it, and quick on large models."""
_PRODUCTS = 2**22
"""Held in memory at a time."""


@dataclass(frozen=True, eq=False)
class Integer:
    """An operator between Q/DQ pairs with int8 weights."""

    node: onnx.NodeProto
    scale: float
    zero_point: int
    """Of its input; the zero point is that of the codes shifted to 0..255."""
    weights: np.ndarray
    """int64 (groups, K, outputs of a group): K in the order of the kernel's sum."""
    sizes: tuple[int, ...]
    """Of a convolution's kernel."""
    weight_scales: np.ndarray
    """(groups, outputs of a group)."""
    output: Mapping[str, float]
    """`scale`, `zero_point`, `qmin`, `qmax` of the output's QuantizeLinear; empty where it stays float."""

    @property
    def name(self) -> str:
        return f"{self.node.op_type} '{self.node.name or self.node.output[0]}'"

    def candidates(self) -> tuple[np.ndarray, ...]:
        """(groups, pairs, outputs) indices of the pairs of weights that some activation codes overflow."""
        first, second = _pairs(self.weights, 1)
        most = 255 * np.maximum(
            np.maximum(first, 0) + np.maximum(second, 0), -np.minimum(first, 0) - np.minimum(second, 0)
        )
        return np.nonzero(most > HIGHEST)


@dataclass(frozen=True)
class Loss:
    """What saturation does to one operator on given inputs."""

    operator: str
    share: float
    """Of the outputs computed again: those with another code."""
    worst: float
    """In steps of the output's scale."""


def accumulators(codes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(exact, saturated) int64 sums (P, N) of unsigned codes (P, K) times signed weights (K, N), zero points left aside."""
    (a, b), (v, w) = _pairs(codes, 1), _pairs(weights, 0)
    products = a[:, :, None] * v[None] + b[:, :, None] * w[None]
    return products.sum(1), np.clip(products, LOWEST, HIGHEST).sum(1)


def _pairs(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Every first and every second element along an axis, int64; an odd one is paired with zero."""
    moved = np.moveaxis(array.astype(np.int64), axis, 0)
    if len(moved) % 2:
        moved = np.concatenate([moved, np.zeros_like(moved[:1])])
    return np.moveaxis(moved[0::2], 0, axis), np.moveaxis(moved[1::2], 0, axis)


def integer_operators(model: onnx.ModelProto) -> Iterator[Integer]:
    """The operators of a Q/DQ model that an optimized ONNX Runtime computes in pairs."""
    known = constants(model)
    made = {output: node for node in model.graph.node for output in node.output}
    read: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            read.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type not in FUSED or len(node.input) < 2:
            continue
        data, weight = (made.get(name) for name in node.input[:2])
        if any(each is None or each.op_type != "DequantizeLinear" or len(each.input) < 3 for each in (data, weight)):
            continue
        assert data is not None  # noqa: S101 - just seen
        assert weight is not None  # noqa: S101 - just seen
        if weight.input[0] not in known or data.input[0] in known:
            continue
        codes, scales = (numpy_helper.to_array(known[name]) for name in weight.input[:2] if name in known)
        if codes.dtype != np.int8 or any(name not in known for name in data.input[1:3]):
            continue
        arranged = _arranged(node, codes, np.broadcast_to(np.ravel(scales), scales.size))
        zero = numpy_helper.to_array(known[data.input[2]])
        output = _output(node.op_type, node.output[0], read, known)
        if arranged is None or output is None or zero.size != 1 or zero.dtype not in (np.int8, np.uint8):
            continue
        yield Integer(
            node,
            float(numpy_helper.to_array(known[data.input[1]])),
            int(zero) + (128 if zero.dtype == np.int8 else 0),
            arranged[0],
            codes.shape[2:],
            arranged[1],
            output,
        )


def _arranged(node: onnx.NodeProto, codes: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights (groups, K, outputs) and scales (groups, outputs) in the order of the sum; None where nothing adds in pairs."""
    if node.op_type == "Conv":
        groups = _attribute(node, "group", 1)
        outputs = len(codes) // groups
        if codes.shape[1] == 1 and outputs == 1 and groups > 1:
            return None
        split = codes.reshape(groups, outputs, codes.shape[1], -1)  # channels last: taps, then the channels of each
        arranged = split.transpose(0, 3, 2, 1).reshape(groups, -1, outputs)
    elif codes.ndim != 2 or _attribute(node, "transA", 0):
        return None
    else:
        groups, arranged = 1, (codes.T if _attribute(node, "transB", 0) else codes)[None]
        outputs = arranged.shape[2]
    each = np.broadcast_to(scales, (groups * outputs,)) if scales.size in (1, groups * outputs) else None
    return None if each is None else (arranged.astype(np.int64), each.reshape(groups, outputs).astype(np.float64))


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(helper.get_attribute_value(each)) for each in node.attribute if each.name == name), default)


def _output(
    op: str, name: str, read: Mapping[str, list[onnx.NodeProto]], known: Mapping[str, onnx.TensorProto]
) -> dict[str, float] | None:
    """The QuantizeLinear that an output runs into; empty where it may stay float, None where the pair is not fused.

    A Relu or Clip in between is dropped where the codes cannot say anything else (core/optimizer/qdq_transformer:
    ReluQuantFusion, ClipQuantFusion); otherwise the operator stays float, with the activation in it.
    """
    readers = read.get(name, [])
    clamp = readers[0] if len(readers) == 1 and readers[0].op_type in {"Relu", "Clip"} else None
    behind = readers if clamp is None else read.get(clamp.output[0], [])
    if len(behind) != 1 or behind[0].op_type != "QuantizeLinear":
        return {} if clamp is None and op != "Conv" else None
    quantize = behind[0]
    if len(quantize.input) < 3 or not {*quantize.input[1:3]} <= set(known):
        return None
    scale, zero = (numpy_helper.to_array(known[each]) for each in quantize.input[1:3])
    if scale.size != 1 or zero.dtype not in (np.int8, np.uint8):
        return None
    limits = np.iinfo(zero.dtype)
    lowest, highest = ((end - int(zero)) * float(scale) for end in (limits.min, limits.max))
    low, high = _clamped(clamp, known)
    if low > lowest or high < highest:
        return None
    return {"scale": float(scale), "zero_point": float(zero), "qmin": limits.min, "qmax": limits.max}


def _clamped(clamp: onnx.NodeProto | None, known: Mapping[str, onnx.TensorProto]) -> tuple[float, float]:
    """What a Relu or Clip lets through; nothing where its limits are computed at run time."""
    if clamp is None:
        return -np.inf, np.inf
    if clamp.op_type == "Relu":
        return 0.0, np.inf
    given = [*clamp.input[1:], "", ""][:2]
    if any(name and name not in known for name in given):
        return np.inf, -np.inf
    low, high = (float(numpy_helper.to_array(known[name])) if name else None for name in given)
    return -np.inf if low is None else low, np.inf if high is None else high


def losses(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> Iterator[Loss]:
    """What each operator's saturation does to its own output on some of the inputs; those without any are left out.

    Raises `BridgeError` where ONNX Runtime does not run the model on the inputs.
    """
    found = [operator for operator in integer_operators(model) if len(operator.candidates()[0])]
    if not found:
        return
    wanted = list(dict.fromkeys(name for each in found for name in (each.node.input[0], each.node.output[0])))
    session = onnx_runtime.session(model, extra_outputs=wanted)
    first = session.get_inputs()[0].shape
    batch = first[0] if first and isinstance(first[0], int) else 1
    shown = {name: array[: max(batch, SAMPLES // batch * batch)] for name, array in inputs.items()}
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, onnx_runtime.outputs(session, shown, batch=batch), strict=True))
    for operator in found:
        loss = _loss(operator, values[operator.node.input[0]], values[operator.node.output[0]])
        if loss is not None:
            yield loss


def _loss(operator: Integer, data: np.ndarray, output: np.ndarray) -> Loss | None:
    """From real values (samples, ...) of the operator's input and output, both computed without saturation."""
    codes = np.rint(data / operator.scale).astype(np.int64) + operator.zero_point
    columns, places = _columns(operator, codes)
    lost = _lost(operator, columns) * (operator.scale * operator.weight_scales[None])
    groups, outputs = operator.weight_scales.shape
    real = (np.moveaxis(output, 1, -1) if operator.node.op_type == "Conv" else output).reshape(-1, groups, outputs)[
        places
    ]
    q = operator.output or {"scale": float(np.ptp(real)) / 255 or 1.0, "zero_point": 0, "qmin": -np.inf, "qmax": np.inf}
    right, wrong = (
        np.clip(np.rint(each / q["scale"]) + q["zero_point"], q["qmin"], q["qmax"]) for each in (real, real - lost)
    )
    apart = np.abs(right - wrong)
    return Loss(operator.name, float((apart > 0).mean()), float(apart.max())) if apart.any() else None


def _lost(operator: Integer, columns: np.ndarray) -> np.ndarray:
    """What saturation takes off every sum: int64 (P, groups, outputs), columns being (P, groups, K)."""
    groups, pairs, outputs = operator.candidates()
    (a, b), (v, w) = _pairs(columns, 2), _pairs(operator.weights, 1)
    lost = np.zeros((*operator.weight_scales.shape, len(columns)), np.int64)
    step = max(1, _PRODUCTS // max(len(columns), 1))
    for start in range(0, len(groups), step):
        g, p, n = (each[start : start + step] for each in (groups, pairs, outputs))
        products = a[:, g, p] * v[g, p, n] + b[:, g, p] * w[g, p, n]
        np.add.at(lost, (g, n), (products - np.clip(products, LOWEST, HIGHEST)).T)
    return lost.transpose(2, 0, 1)


def _columns(operator: Integer, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, groups, K) codes under each of at most `POSITIONS` places of the output, and which places these are."""
    node = operator.node
    if node.op_type != "Conv":
        rows = codes.reshape(-1, 1, codes.shape[-1])
        places = _some(len(rows))
        return rows[places], places
    groups = len(operator.weights)
    axes = codes.ndim - 2
    sizes = operator.sizes
    strides, dilations = (_integers(node, name, [1] * axes) for name in ("strides", "dilations"))
    pads = _padding(node, codes.shape[2:], sizes, strides, dilations)
    padded = np.pad(codes, [(0, 0), (0, 0), *pads], constant_values=operator.zero_point)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    whole: Any = sliding_window_view(padded, (1, 1, *reach))
    windows = whole[(..., 0, 0, *[slice(None)] * axes)]
    windows = windows[(..., *(slice(None, None, step) for step in dilations))]
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in strides))]
    windows = np.moveaxis(windows, 1, -1)  # samples, places, taps, channels
    shape = windows.shape[: 1 + axes]
    places = _some(int(np.prod(shape)))
    picked: np.ndarray = windows[np.unravel_index(places, shape)].reshape(
        len(places), -1, groups, codes.shape[1] // groups
    )
    return picked.transpose(0, 2, 1, 3).reshape(len(places), groups, -1), places


def _integers(node: onnx.NodeProto, name: str, default: Sequence[int]) -> list[int]:
    found = next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
    return [int(each) for each in found]


def _padding(
    node: onnx.NodeProto, shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Before and behind, for each axis of the map (ONNX, Conv: pads and auto_pad)."""
    axes = len(shape)
    kind = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "auto_pad"), b"NOTSET")
    if kind not in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _integers(node, "pads", [0] * 2 * axes) if kind == b"NOTSET" else [0] * 2 * axes
        return list(zip(pads[:axes], pads[axes:], strict=True))
    found = []
    for size, kernel, step, dilation in zip(shape, sizes, strides, dilations, strict=True):
        total = max(0, (-(-size // step) - 1) * step + (kernel - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        found.append((small, large) if kind == b"SAME_UPPER" else (large, small))
    return found


def _some(count: int) -> np.ndarray:
    """At most `POSITIONS` of so many indices, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, POSITIONS)).astype(np.int64))
