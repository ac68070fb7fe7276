"""Everything that is constant is computed now; a quantized constant keeps its codes and its trained scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from bridge.errors import BridgeError
from bridge.exact.arithmetic import SMALLEST, quantize
from bridge.exact.budget import Budget, broadcast, size_of
from bridge.exact.graph import Graph, Node, QParams, Tensor, constant
from bridge.exact.integers import cut, exactly

_INTEGERS = {np.dtype(np.int8): 0, np.dtype(np.uint8): 128, np.dtype(np.int32): 0}
"""Code types that can be kept, and what is subtracted to make them signed (catalogue entry M32)."""


def fold(graph: Graph, budget: Budget | None = None) -> Graph:
    """Constant in, constant out; shapes that are known replace the arithmetic that computes them.

    QuantizeLinear and DequantizeLinear of constants leave int8 codes with their `QParams`; everything else is computed
    in its own type. Raises `BridgeError` when a scale or zero point is not usable, and for constants beyond `budget`.
    """
    budget = budget or Budget(
        stored=sum(tensor.data.size for tensor in graph.tensors.values() if tensor.data is not None)
    )
    tensors = dict(graph.tensors)
    kept: list[Node] = []
    for node in graph.nodes:
        folded = _folded(node, tensors, budget)
        if folded is None:
            kept.append(node)
        else:
            tensors.update((tensor.name, tensor) for tensor in folded)
    return replace(graph, nodes=tuple(kept), tensors=tensors)


def evaluate(node: Node, tensors: Mapping[str, Tensor], most: int) -> Tensor | None:
    """The node's one output, where its operands are constants among `tensors` and it has at most `most` elements."""
    if any(name and name not in tensors for name in node.inputs) or node.op in ("QuantizeLinear", "DequantizeLinear"):
        return None
    if _elements_made(node, [tensors[name] if name else None for name in node.inputs]) > most:
        return None
    folded = _folded(node, tensors, Budget())
    return folded[0] if folded else None


def _folded(node: Node, tensors: Mapping[str, Tensor], budget: Budget) -> tuple[Tensor, ...] | None:
    operands = [tensors[name] if name else None for name in node.inputs]
    if node.op == "Shape":
        shape = tensors[node.inputs[0]].shape
        if -1 in shape:
            return None
        chosen = shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        return (constant(node.outputs[0], np.array(chosen, np.int64)),)
    if not operands or any(operand is not None and not operand.is_constant for operand in operands):
        return None
    if node.op in _GROWS or node.op in _KEEPS_SIZE:
        elements = _elements_made(node, operands)
        one_by_one = node.op in _ARITHMETIC and all(each is None or each.dtype.kind in "iu" for each in operands)
        budget.spend(elements * _WHOLE_NUMBER if one_by_one and elements > SMALL else elements, str(node))
    if node.op == "QuantizeLinear":
        return (_quantized(node, operands),)
    if node.op == "DequantizeLinear":
        return (_with_parameters(node, operands),)
    first = operands[0]
    if first is not None and first.qparams is not None and node.op in _KEEPS_CODES:
        try:
            return (_KEEPS_CODES[node.op](node, first, operands),)
        except (ValueError, IndexError, TypeError) as error:
            raise _unfit(node, error) from error
    if node.op not in _FOLDERS:
        return None
    if node.op == "Dropout":
        refuse_training(node, operands)
    arrays: list[Any] = [None if operand is None else operand.real for operand in operands]
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used (possible.py)
            result = np.asarray(_FOLDERS[node.op](node, arrays))
        if result.dtype == object:
            raise TypeError("whole numbers and others")  # noqa: TRY301 - said as what NumPy finds
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise _unfit(node, error) from error
    if node.op not in _GROWS:
        budget.spend(result.size, str(node))
    return (constant(node.outputs[0], result),)


def _unfit(node: Node, error: Exception) -> BridgeError:
    return BridgeError(
        where=str(node),
        problem=f"its constant operands do not fit together ({error})",
        remedy="The file is damaged or was edited by hand; export it again.",
    )


def qparams_of(node: Node, operands: Sequence[Tensor | None], shape: tuple[int, ...]) -> tuple[QParams, np.dtype]:
    """The parameters of a QuantizeLinear or DequantizeLinear for signed codes, and the type the file stores them in.

    uint8 becomes int8: code and zero point 128 lower, the scale untouched. Raises `BridgeError`, naming node and
    tensor, for scales that are missing, not positive or not finite, zero points outside their type, or a wrong axis.
    """
    scale_tensor = operands[1]
    zero_tensor = operands[2] if len(operands) > 2 else None
    if scale_tensor is None or not scale_tensor.is_constant or (zero_tensor and not zero_tensor.is_constant):
        raise BridgeError(
            where=str(node),
            problem="its scale or zero point is computed when the model runs",
            remedy="Dynamic quantization has no trained scales to keep; export a QAT or statically quantized model.",
        )
    if scale_tensor.qparams is None and scale_tensor.dtype.kind != "f":
        raise BridgeError(
            where=f"{node}, scale '{scale_tensor.name}'",
            problem=f"is of type {scale_tensor.dtype}, and must be a real number",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    scale = np.asarray(scale_tensor.real, np.float32)
    if zero_tensor is not None:
        zero, dtype = zero_tensor.values, zero_tensor.dtype
    else:
        dtype = _type_of_codes(node, operands[0])
        zero = np.zeros(scale.shape, dtype)
    where = f"{node}, scale '{scale_tensor.name}'"
    first = operands[0]
    if dtype not in _INTEGERS or (dtype == np.int32 and not (first and first.dtype == dtype and first.is_constant)):
        raise BridgeError(
            where=where,
            problem=f"quantizes to {dtype}; the int8 kernels take int8 and uint8 activations and weights",
            remedy="Train with 8-bit fake-quant, for example qconfig 'tflite'.",
        )
    if not scale.size or not np.size(zero):
        raise BridgeError(
            where=where,
            problem=f"has {scale.size} scales and {np.size(zero)} zero points",
            remedy="The file is damaged; export it again.",
        )
    bad = ~np.isfinite(scale) | (scale <= 0)
    if bad.any():
        raise BridgeError(
            where=where,
            problem=f"scale {scale[bad].flat[0]} is not a positive, finite number",
            remedy="The observer never saw data, or the training diverged; train again and export.",
        )
    if dtype != np.int32 and (scale < SMALLEST).any():  # of a bias it is computed anew (lowering/weights.py)
        raise BridgeError(
            where=where,
            problem=f"scale {scale[scale < SMALLEST].flat[0]:.4g} is below {SMALLEST:.3g}; XNNPACK loads no file with such a scale",
            remedy="The observer never saw data; train again with a larger eps and export.",
        )
    if scale.size == 1:
        scale, zero, axis = scale.reshape(()), np.asarray(zero).reshape(-1)[:1].reshape(()), None
    else:
        axis = _axis(node, scale, zero, shape, where)
    if dtype == np.int32 and np.any(zero):
        raise BridgeError(
            where=where,
            problem=f"has zero point {np.asarray(zero).reshape(-1)[np.flatnonzero(zero)[0]]} for int32 codes; theirs is 0",
            remedy="Write the bias without a zero point (ONNX, DequantizeLinear: there is none for int32).",
        )
    shift = _INTEGERS[dtype]
    zero = zero.astype(np.int64) - shift
    if dtype != np.int32 and ((zero < -128) | (zero > 127)).any():
        raise BridgeError(
            where=where,
            problem=f"zero point {zero.flat[0] + shift} is outside {dtype}",
            remedy="The file is damaged; export it again.",
        )
    return QParams(scale, zero.astype(np.int32), axis), dtype


def refuse_training(node: Node, operands: Sequence[Tensor | None]) -> None:
    """Raise `BridgeError` for a Dropout that drops: its third operand is true, or nobody knows yet."""
    training = operands[2] if len(operands) > 2 else None
    if training is not None and (training.data is None or training.data.any()):
        raise BridgeError(
            where=str(node),
            problem="drops values at random: it was exported in training mode",
            remedy="Call model.eval() before the export, or pass training=TrainingMode.EVAL to torch.onnx.export.",
        )


def _type_of_codes(node: Node, code: Tensor | None) -> np.dtype:
    """Without a zero point an attribute says it, or the codes; else it is uint8 (ONNX, QuantizeLinear)."""
    if node.op == "DequantizeLinear":
        return code.dtype if code is not None else np.dtype(np.uint8)
    said = node.attrs.get("output_dtype", 0)
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(said)) if said else np.dtype(np.uint8)


def _axis(node: Node, scale: np.ndarray, zero: np.ndarray, shape: tuple[int, ...], where: str) -> int:
    axis = int(node.attrs.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    fits = scale.ndim == 1 and 0 <= axis < len(shape) and shape[axis] == scale.size and zero.shape == scale.shape
    if not fits or node.attrs.get("block_size", 0):
        raise BridgeError(
            where=where,
            problem=f"{scale.size} scales and {zero.size} zero points on axis {axis} do not fit shape {shape}",
            remedy="Per-channel parameters go along the output channels, one of each per channel.",
        )
    return axis


def _quantized(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    x = operands[0]
    assert x is not None  # noqa: S101 - the ONNX checker has seen to it
    qparams, dtype = qparams_of(node, operands, x.shape)
    codes = quantize(x.real, qparams).astype(np.int16) + _INTEGERS[dtype]
    return constant(node.outputs[0], codes.astype(dtype))


def _with_parameters(node: Node, operands: Sequence[Tensor | None]) -> Tensor:
    x = operands[0]
    assert x is not None  # noqa: S101 - the ONNX checker has seen to it
    qparams, dtype = qparams_of(node, operands, x.shape)
    if x.dtype != dtype:
        raise BridgeError(
            where=f"{node}, codes '{x.name}'",
            problem=f"are {x.dtype}, and their zero point is {dtype}",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    if dtype == np.uint8:
        return constant(node.outputs[0], (x.values.astype(np.int16) - 128).astype(np.int8), qparams)
    return constant(node.outputs[0], x.values, qparams)


def _transpose_codes(node: Node, x: Tensor, operands: Sequence[Tensor | None]) -> Tensor:  # noqa: ARG001 - the table's form
    perm = node.attrs.get("perm") or list(range(len(x.shape)))[::-1]
    axis = None if x.q.axis is None else list(perm).index(x.q.axis)
    return constant(node.outputs[0], x.values.transpose(perm), _moved(x.q, axis))


def _reshape_codes(node: Node, x: Tensor, operands: Sequence[Tensor | None]) -> Tensor:
    arrays = [x.values, *(None if operand is None else operand.values for operand in operands[1:])]
    shaped = np.asarray(_FOLDERS[node.op](node, arrays))
    axis = x.q.axis
    if axis is not None:
        before = int(np.prod(x.shape[:axis]))
        fits = [
            i for i, n in enumerate(shaped.shape) if n == x.shape[axis] and int(np.prod(shaped.shape[:i])) == before
        ]
        if not fits:
            return constant(node.outputs[0], x.real.reshape(shaped.shape))  # its channels are no axis any more
        axis = fits[-1]
    return constant(node.outputs[0], shaped, _moved(x.q, axis))


def _moved(qparams: QParams, axis: int | None) -> QParams:
    return qparams if axis is None else qparams.on_axis(axis)


_KEEPS_CODES: dict[str, Callable[[Node, Tensor, Sequence[Tensor | None]], Tensor]] = {
    "Transpose": _transpose_codes,
    "Reshape": _reshape_codes,
    "Flatten": _reshape_codes,
    "Squeeze": _reshape_codes,
    "Unsqueeze": _reshape_codes,
    "Identity": lambda node, x, _: constant(node.outputs[0], x.values, x.q),
    "Dropout": lambda node, x, _: constant(node.outputs[0], x.values, x.q),
}


def _elements_made(node: Node, operands: Sequence[Tensor | None]) -> int:
    """How many elements folding would make, known from the operands before anything is computed."""
    present = [operand for operand in operands if operand is not None]
    largest = max((size_of(operand.shape) for operand in present), default=1)
    grows = _GROWS.get(node.op)
    if grows is None or any(operand.data is None for operand in present):
        return largest
    try:
        return max(largest, grows(node, present))
    except (ValueError, IndexError, OverflowError, ZeroDivisionError):
        return largest  # folding itself says what does not fit


def _numbers(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(number) for number in tensor.values.reshape(-1)[:64])


def _range(node: Node, tensors: Sequence[Tensor]) -> int:  # noqa: ARG001 - the table's form
    start, limit, step = (tensor.values.reshape(-1)[0].item() for tensor in tensors)
    return int(max((limit - start) / step, 0)) + 1


def _gather(node: Node, tensors: Sequence[Tensor]) -> int:
    rows: int = max(tensors[0].shape[node.attrs.get("axis", 0)], 1)
    return size_of(tensors[0].shape) // rows * size_of(tensors[1].shape)


_TOGETHER = ("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Equal", "Where", "Clip")
_GROWS: dict[str, Callable[[Node, Sequence[Tensor]], int]] = {
    **dict.fromkeys(_TOGETHER, lambda _, tensors: size_of(broadcast(tensor.shape for tensor in tensors))),
    "Expand": lambda _, tensors: size_of(broadcast((tensors[0].shape, _numbers(tensors[1])))),
    "ConstantOfShape": lambda _, tensors: size_of(_numbers(tensors[0])),
    "Range": _range,
    "Gather": _gather,
    "Concat": lambda _, tensors: sum(size_of(tensor.shape) for tensor in tensors),
}
"""Operators whose result can be larger than any of their operands."""
_ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div", "Mod", "Pow"))
_WHOLE_NUMBER = 32
"""How many elements one whole number in arithmetic counts for: it is computed as a number of Python (integers.py)."""
SMALL = 4096
"""Elements of what may be a shape, an axis or a limit; these cost next to nothing."""
_KEEPS_SIZE = frozenset(("QuantizeLinear", "DequantizeLinear"))

Arrays = Sequence[Any]
"""Operands as numpy arrays, None for an optional one that is missing."""


def _reshape(node: Node, a: Arrays) -> Any:
    keep_zero = node.attrs.get("allowzero", 0)
    target = [n if n or keep_zero else a[0].shape[i] for i, n in enumerate(a[1].tolist())]
    return a[0].reshape(target)


def _flatten(node: Node, a: Arrays) -> Any:
    axis = node.attrs.get("axis", 1)
    return a[0].reshape(int(np.prod(a[0].shape[:axis])), -1)


def _unsqueeze(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    rank = a[0].ndim + a[1].size
    return np.expand_dims(a[0], tuple(int(axis) % rank for axis in a[1]))


def _squeeze(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    return np.squeeze(a[0], tuple(int(axis) for axis in a[1]) if len(a) > 1 and a[1] is not None else None)


def _slice(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    axes = a[3] if len(a) > 3 and a[3] is not None else np.arange(a[1].size)
    steps = a[4] if len(a) > 4 and a[4] is not None else np.ones(a[1].size, np.int64)
    taken = a[0]
    for start, end, axis, step in zip(a[1].tolist(), a[2].tolist(), axes.tolist(), steps.tolist(), strict=True):
        kept = cut(start, end, step, a[0].shape[axis])
        taken = np.take(taken, np.arange(kept.start, kept.stop, kept.step), axis)
    return taken


def _divided(a: Any, b: Any) -> Any:
    """Towards zero where both are whole numbers, as C++ divides them."""
    whole = abs(a) // abs(b)
    return -whole if (a < 0) != (b < 0) else whole


def _divide(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    return exactly(np.frompyfunc(_divided, 2, 1) if a[0].dtype.kind in "iu" else np.divide, *a)


_MOST_BITS = 64


def _power(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    whole = a[0].dtype.kind in "iu" and a[1].dtype.kind in "iu"
    if whole and (np.abs(a[0].astype(object)) > 1).any() and a[1].size and a[1].max() > _MOST_BITS:
        raise ValueError(f"a power of {a[1].max()} does not fit {a[0].dtype}")
    if whole and a[1].size and a[1].min() < 0:
        raise ValueError(f"a whole number to the power of {a[1].min()}")
    return exactly(np.power, *a).astype(a[0].dtype)


def _cast(node: Node, a: Arrays) -> Any:
    """Constant in another type; real numbers that leave the type of codes raise `BridgeError` (catalogue entry M05).

    ONNX leaves the result undefined, NumPy only warns. int64 holds shapes, where the largest number means "to the end".
    """
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attrs["to"]))
    if a[0].dtype.kind == "f" and dtype in _INTEGERS:
        limits = np.iinfo(dtype)
        whole = np.trunc(a[0].astype(np.float64))
        outside = ~((whole >= limits.min) & (whole <= limits.max))  # so that NaN is outside, too
        if outside.any():
            raise BridgeError(
                where=f"{node}, tensor '{node.inputs[0]}'",
                problem=f"{a[0][outside].flat[0]:.4g} at {_place(outside)} does not fit {dtype}",
                remedy="If it is a bias, that weight channel is almost all zero: prune it, or give the QAT model itself to "
                "bridge.convert, which makes room for the bias.",
            )
    if a[0].dtype.kind == "f" and dtype.kind in "iu" and not np.isfinite(a[0]).all():
        raise ValueError(f"NaN or infinity as {dtype}")
    cast: np.ndarray = a[0].astype(dtype)
    return cast


def _place(outside: np.ndarray) -> str:
    """Where the first of them stands."""
    return f"index {', '.join(str(index) for index in np.argwhere(outside)[0])}" if outside.ndim else "the only entry"


def _clip(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    low = a[1] if len(a) > 1 and a[1] is not None else None
    high = a[2] if len(a) > 2 and a[2] is not None else None
    return a[0] if low is None and high is None else np.clip(a[0], low, high).astype(a[0].dtype)


def _expand(node: Node, a: Arrays) -> Any:  # noqa: ARG001 - the table's form
    return np.broadcast_to(a[0], np.broadcast_shapes(a[0].shape, tuple(a[1].tolist())))


def _constant_of_shape(node: Node, a: Arrays) -> Any:
    value = np.asarray(node.attrs.get("value", np.zeros(1, np.float32))).reshape(-1)
    return np.full(a[0].tolist(), value[0], value.dtype)


def _reduce_prod(node: Node, a: Arrays) -> Any:
    axes = a[1].tolist() if len(a) > 1 and a[1] is not None else node.attrs.get("axes", [])
    if not axes and node.attrs.get("noop_with_empty_axes"):
        return a[0]
    keep = bool(node.attrs.get("keepdims", 1))
    return exactly(partial(np.prod, axis=tuple(axes) or None, keepdims=keep), a[0])


_FOLDERS: dict[str, Callable[[Node, Arrays], Any]] = {
    "Identity": lambda _, a: a[0],
    "Dropout": lambda _, a: a[0],
    "Cast": _cast,
    "Clip": _clip,
    "Add": lambda _, a: exactly(np.add, *a),
    "Sub": lambda _, a: exactly(np.subtract, *a),
    "Mul": lambda _, a: exactly(np.multiply, *a),
    "Div": _divide,
    "Mod": lambda _, a: exactly(np.mod, *a),
    "Neg": lambda _, a: exactly(np.negative, *a),
    "Abs": lambda _, a: exactly(np.abs, *a),
    "Sqrt": lambda _, a: np.sqrt(a[0]),
    "Reciprocal": lambda _, a: (1 / a[0]).astype(a[0].dtype),
    "Pow": _power,
    "Floor": lambda _, a: np.floor(a[0]),
    "Ceil": lambda _, a: np.ceil(a[0]),
    "Round": lambda _, a: np.rint(a[0]),
    "Min": lambda _, a: np.minimum.reduce(list(a)),
    "Max": lambda _, a: np.maximum.reduce(list(a)),
    "Equal": lambda _, a: a[0] == a[1],
    "Where": lambda _, a: np.where(a[0], a[1], a[2]),
    "Range": lambda _, a: np.arange(a[0], a[1], a[2], a[0].dtype),
    "Gather": lambda node, a: np.take(a[0], a[1].astype(np.int64), axis=node.attrs.get("axis", 0)),
    "Concat": lambda node, a: np.concatenate(list(a), axis=node.attrs["axis"]),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda node, a: a[0].transpose(node.attrs.get("perm")),
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "ReduceProd": _reduce_prod,
}
"""Shape arithmetic and constant branches, by ONNX operator; the ONNX operator specification is the rule for each."""
