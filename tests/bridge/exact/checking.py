"""What must hold for every drawn model: it converts, loads and runs on both kernel sets, each operator within its bound.

Refusals and wider bounds are listed here one by one, each with its reason; there is no default to widen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bridge.errors import BridgeError
from bridge.exact.convert import Conversion, convert
from bridge.exact.graph import Graph, Node, Tensor
from bridge.verifying.litert import Kernels
from bridge.verifying.operators import OperatorDistance
from bridge.verifying.verification import verify
from tests.bridge.exact.graphs import Model

DEFAULT_BOUND = 1
"""LSB. The reference rounds once, in float32; a kernel rounds its integers once, and may fall on the other side of a tie."""

REFUSALS = {
    r"reaches beyond what the kernel computes": "output_padding larger than the padding: docs/operators.md",
    r"out of its average, which TFLite does for SAME padding only": "AVERAGE_POOL_2D has no other uncounted padding",
    r"TFLite's kernels sample elsewhere": "RESIZE samples by output size / input size only",
    r"hands its input on without computing anything": "a model of Identity or Dropout alone",
    r"and one step of its input is": "beyond what a kernel computes: bridge/exact/limits.py",
    r"its kernel computes between": "beyond what SOFTMAX and HARD_SWISH compute: bridge/exact/limits.py",
    r"does not fit int32": "a weight channel of zeros but for one code, at a scale of 1e-30",
    r"counts its own padding but not what ceil_mode adds": "AVERAGE_POOL_2D counts none of its padding",
}
"""Problems, as regular expressions, with which a drawn model may be refused, and why there is no file for it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a refusal, or the distance of each of its operators."""

    refusal: str | None
    operators: tuple[OperatorDistance, ...]
    too_far: tuple[str, ...]


def checked(model: Model, path: Path) -> Outcome:
    """Convert, run and compare; `path` must be new for each model. Raises whatever is neither converted nor listed."""
    try:
        conversion = convert(model.proto)
    except BridgeError as error:
        listed = next((pattern for pattern in REFUSALS if re.search(pattern, error.problem)), None)
        if listed is None:
            raise
        return Outcome(listed, (), ())
    onnx.save(model.proto, path)
    verification = verify(path, conversion.graph, conversion.tflite, model.inputs)
    known = {name for node in model.proto.graph.node for name in node.output}
    too_far = tuple(
        f"{item.op} '{item.name}' on {item.kernels}: {item.distance}, bound {bound(conversion, item, known)}"
        for item in verification.operators
        if item.distance.worst > bound(conversion, item, known)
    )
    return Outcome(None, verification.operators, too_far)


def bound(conversion: Conversion, item: OperatorDistance, known: AbstractSet[str]) -> int:
    """How many LSB this operator may be away from ONNX Runtime: `DEFAULT_BOUND`, and what is listed in `LOSSES`."""
    graph = conversion.graph
    node = next(node for node in graph.nodes if node.name == item.name)
    y = graph.output(node)
    if y.qparams is None:
        return DEFAULT_BOUND
    return DEFAULT_BOUND + math.ceil(_lost(node, conversion, known, item.kernels) / float(y.q.scale))


REARRANGING = {
    *("RESHAPE", "TRANSPOSE", "CONCATENATION", "PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE", "GATHER"),
    *("SPLIT", "SPLIT_V", "MINIMUM", "MAXIMUM", "MAX_POOL_2D", "RELU", "RELU6", "RELU_N1_TO_1"),
}
"""They round nothing."""


def _lost(node: Node, conversion: Conversion, known: AbstractSet[str], kernels: Kernels) -> float:
    """In real numbers: what the operator loses, and those before it whose results ONNX Runtime does not know.

    They are compared together: their half step is rounded once more, unless what follows only rearranges.
    """
    graph = conversion.graph
    lost = sum(loss(node, conversion, kernels) for loss in LOSSES.values())
    for name in node.inputs:
        before, origin = graph.producers().get(name), graph.tensors[name].origin
        if before is None or (origin is not None and origin.name in known) or graph.tensors[name].qparams is None:
            continue
        again = before.op not in REARRANGING and node.op not in REARRANGING
        half_a_step = float(graph.tensors[name].q.scale) / 2 if again else 0.0
        lost += _gain(node, graph) * (half_a_step + _lost(before, conversion, known, kernels))
    return lost


def _gain(node: Node, graph: Graph) -> float:
    """By how much a difference in the input can grow: the largest sum of weights."""
    if node.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return 1.0
    weight = next(tensor for tensor in graph.operands(node) if tensor.is_constant and tensor.dtype == np.int8)
    others = (0, 1, 2) if node.op == "DEPTHWISE_CONV_2D" else tuple(range(1, len(weight.shape)))
    return float(np.abs(weight.real).sum(axis=others).max())


def _derived_constant(node: Node, conversion: Conversion, kernels: Kernels) -> float:  # noqa: ARG001 - the table's form
    """A constant without a trained scale is rounded to 8 bits: half a step of its own, times what it multiplies."""
    graph = conversion.graph
    if not any(
        note.kind == "derived" and note.where.startswith(f"{_onnx_op(node)} '{node.name}'") for note in conversion.notes
    ):
        return 0.0
    x, c = sorted(graph.operands(node), key=lambda tensor: tensor.is_constant)
    return float(c.q.scale) / 2 * (1.0 if node.op in ("ADD", "SUB") else _largest(x))


def _negated_lowest_code(node: Node, conversion: Conversion, kernels: Kernels) -> float:  # noqa: ARG001 - the table's form
    """A batch norm with a negative factor turns the code -128 into 127: one step of the weight, for each such code."""
    where = re.compile(rf"\w+ '{re.escape(node.name)}'")
    notes = [note.what for note in conversion.notes if where.fullmatch(note.where)]
    found = [re.match(r"(\d+) codes of -128 became", what) for what in notes]
    count = sum(int(match[1]) for match in found if match)
    if not count:
        return 0.0
    operands = [tensor for tensor in conversion.graph.operands(node) if tensor.dtype == np.int8]
    weight, x = sorted(operands, key=lambda tensor: not tensor.is_constant)
    return count * float(weight.q.scale.max()) * _largest(x)


def _made_safe(node: Node, conversion: Conversion, kernels: Kernels) -> float:  # noqa: ARG001 - the table's form
    """Codes of -128 made -127 for ARM: one step of the weight for each, or for each element of a computed operand."""
    notes = [note.what for note in conversion.notes if note.where.startswith(f"{node}, ") and "-127: " in note.what]
    if not notes:
        return 0.0
    if node.op == "BATCH_MATMUL":
        first, second = conversion.graph.operands(node)
        return first.shape[-1] * float(second.q.scale) * _largest(first)
    operands = [tensor for tensor in conversion.graph.operands(node) if tensor.dtype == np.int8]
    weight, x = sorted(operands, key=lambda tensor: not tensor.is_constant)
    found = re.match(r"(\d+) codes of -128 in", notes[0])
    assert found is not None, notes
    return int(found[1]) * float(weight.q.scale.max()) * _largest(x)


def _ten_bit_positions(node: Node, conversion: Conversion, kernels: Kernels) -> float:
    """The reference RESIZE_BILINEAR steps by a scale of 10 fractional bits: half of 2^-10 off for each element.

    lite/kernels/internal/reference/resize_bilinear.h, ResizeBilinearInteger (height_scale_10). Between two elements
    255 codes apart that many are lost. XNNPACK does not do it so; test_kernels.py computes both in numpy.
    """
    if node.op != "RESIZE_BILINEAR" or kernels != "reference":
        return 0.0
    y = conversion.graph.output(node)
    return float(y.q.scale) * 255 * (y.shape[1] - 1 + y.shape[2] - 1) / 2048


def _held_above_the_lowest(node: Node, conversion: Conversion, kernels: Kernels) -> float:  # noqa: ARG001 - the table's form
    """One code of -128 is -127 in the second operand of a product (bridge/exact/pair_sums.py)."""
    held = node.op == "MAXIMUM" and "/above -128" in node.name
    return float(conversion.graph.output(node).q.scale) if held else 0.0


def _coarse_bias(node: Node, conversion: Conversion, kernels: Kernels) -> float:  # noqa: ARG001 - the table's form
    """An addend in steps coarser than the output's, which the file says: half a step of it."""
    where = re.compile(rf"\w+ '{re.escape(node.name)}'")
    if not any(note.kind == "grid" and where.fullmatch(note.where) for note in conversion.notes):
        return 0.0
    steps = [
        tensor.q.scale for tensor in conversion.graph.operands(node) if tensor.dtype == np.int32 and tensor.qparams
    ]
    return float(max(step.max() for step in steps)) / 2


LOSSES = {
    "biases on a coarser grid than the output": _coarse_bias,
    "codes of -128 in a product": _held_above_the_lowest,
    "constants without a trained scale": _derived_constant,
    "code -128 negated": _negated_lowest_code,
    "codes of -128 made safe for ARM": _made_safe,
    "RESIZE_BILINEAR's positions, reference kernel": _ten_bit_positions,
}


def _largest(x: Tensor) -> float:
    """The largest real magnitude that the codes of `x` can mean."""
    zero = int(x.q.zero_point)
    return float(x.q.scale) * max(127 - zero, zero + 128)


def _onnx_op(node: Node) -> str:
    return {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "PRELU": "PRelu"}.get(node.op, node.op)
