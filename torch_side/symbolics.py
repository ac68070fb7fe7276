"""How the TorchScript exporter writes operators of converted int8 models that torch 2.13 leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.onnx import (  # type: ignore[attr-defined]  # documented, only not in its __all__
    register_custom_op_symbolic,
    symbolic_helper,
    symbolic_opset11,
    unregister_custom_op_symbolic,
)


def _chunk(given: object, x: Any, chunks: int, dim: int) -> Any:
    """shufflenet_v2 halves its channels: equal parts, each with the scale of the whole.

    The exporter cannot tell how long a quantized tensor is, so parts of different length are left to ONNX to refuse.
    """
    g: Any = given  # torch up to 2.4 asks whether the annotation is a subclass of its own type, which Any is not
    if not _is_quantized(x):
        return symbolic_opset11.prim_constant_chunk(g, x, chunks, dim)
    values, scale, zero_point, _ = symbolic_helper.dequantize_helper(g, x)
    parts = g.op("Split", values, axis_i=dim, outputs=chunks)
    return [symbolic_helper.quantize_helper(g, part, scale, zero_point) for part in parts]


def _is_quantized(x: Any) -> bool:
    """The exporter's own sign: a quantized tensor is a tuple of values, scale, zero point and axis."""
    return bool(x.node().kind() == "prim::TupleConstruct")


_SYMBOLICS = {"prim::ConstantChunk": _chunk}


@contextmanager
def quantized_symbolics(opset: int) -> Iterator[None]:
    """The exporter knows these operators within the block, and only there: its registry is the whole process's."""
    for name, symbolic in _SYMBOLICS.items():
        register_custom_op_symbolic(name, symbolic, opset)
    try:
        yield
    finally:
        for name in _SYMBOLICS:
            unregister_custom_op_symbolic(name, opset)
