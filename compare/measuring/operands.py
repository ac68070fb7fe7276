"""The inputs and outputs of a .tflite beside those of its ONNX model: number, shape, type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.helper import tensor_dtype_to_np_dtype

from compare.running.trying import Operand, Trial
from compare.tflite.order import paired


def other_operands(model: ModelProto, trial: Trial) -> Iterator[str]:
    """A sentence for each input or output that cannot be the model's: another number, another shape, text for numbers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in constants]
    for what, ours, theirs in (("input", given, trial.inputs), ("output", list(model.graph.output), trial.outputs)):
        if len(ours) != len(theirs):
            yield f"it has {len(theirs)} {what}s, the model has {len(ours)}"
            continue
        for value, operand in zip(_in_their_order(ours, theirs), theirs, strict=True):
            shape = _shape(value)
            if shape is not None and not _alike(shape, operand.shape):
                said = tuple(size if size else "free" for size in shape)
                yield f"its {what} '{operand.name}' has shape {operand.shape}, that of the model '{value.name}' {said}"
            elif _is_float(value) and operand.dtype not in _NUMBERS:
                yield f"its {what} '{operand.name}' is of type {operand.dtype}, that of the model '{value.name}' of float"


_NUMBERS = frozenset({"float32", "float16", "float64", "int8", "uint8", "int16"})
"""Types in which a float tensor of the model may be stored."""


def _in_their_order(ours: Sequence[ValueInfoProto], theirs: Sequence[Operand]) -> list[ValueInfoProto]:
    by_name = {value.name: value for value in ours}
    return [by_name[name] for name in paired(list(by_name), [operand.name for operand in theirs])]


def _shape(value: ValueInfoProto) -> tuple[int, ...] | None:
    """0 for a dimension that is free; None where the model does not say."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _is_float(value: ValueInfoProto) -> bool:
    elem = value.type.tensor_type.elem_type
    return elem != TensorProto.UNDEFINED and elem != TensorProto.STRING and tensor_dtype_to_np_dtype(elem).kind == "f"


def _alike(model: Sequence[int], file: Sequence[int]) -> bool:
    """Whether these can be one tensor, free dimensions left out.

    Converters move axes, and take away axes of one; a matrix stays one. The order of axes is what inputs tell.
    """
    if len(model) == len(file) <= 2:
        return all(one in (0, other) for one, other in zip(model, file, strict=True))
    sizes = [size for size in file if size != 1]
    for size in model:
        if size > 1:
            if size not in sizes:
                return False
            sizes.remove(size)
    return len(sizes) <= sum(size == 0 for size in model)
