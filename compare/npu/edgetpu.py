"""Google Coral Edge TPU, by the rules of its documentation: the graph is cut once, and what follows stays on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from compare.npu.model import OperatorVerdict, Placement, Target, TargetVerdict
from compare.npu.rules import Operator, Rule, first_broken, is_eight_bit, is_float, operators
from compare.tflite.graph import OpenedTflite
from compare.tflite.macs import macs

DOCUMENTATION = "coral.ai, TensorFlow models on the Edge TPU: model requirements and supported operations"
CUT = "google-coral/edgetpu#461, #317: more than one subgraph is not supported"


def _rule(broken: Callable[[Operator], str | None]) -> Rule:
    return Rule(broken, DOCUMENTATION)


def _not_eight_bit(operator: Operator) -> str | None:
    """Data and weights; shapes, axes and biases are int32."""
    tensors = [operator.source, operator.weight, *operator.outputs]
    wrong = [tensor for tensor in tensors if tensor is not None and not is_eight_bit(tensor)]
    return f"'{wrong[0].name}' is {wrong[0].dtype}, not 8-bit" if wrong else None


def _dynamic(operator: Operator) -> str | None:
    """The first dimension may be open in the file: the compiler asks for constant sizes, batch included."""
    names = [tensor.name for tensor in (*operator.inputs, *operator.outputs) if operator.dynamic(tensor)]
    return f"'{names[0]}' has a size that is not constant" if names else None


def _too_many_dimensions(operator: Operator) -> str | None:
    for tensor in (*operator.inputs, *operator.outputs):
        if len(tensor.shape) > 3 and any(size != 1 for size in tensor.shape[:-3]) and not tensor.is_constant:
            return f"'{tensor.name}' has shape {tensor.shape}: only the 3 innermost dimensions may be above 1"
    return None


def _parameters_computed(operator: Operator) -> str | None:
    tensors = [tensor for tensor in (operator.weight, operator.bias) if tensor is not None]
    return next((f"'{tensor.name}' is not constant" for tensor in tensors if not tensor.is_constant), None)


EVERY = (_rule(_not_eight_bit), _rule(_dynamic), _rule(_parameters_computed), _rule(_too_many_dimensions))


def _fused(operator: Operator) -> str | None:
    activation = operator.node.attrs.get("fused_activation", "NONE")
    return None if activation == "NONE" else f"has the fused activation {activation}"


def _dilation(operator: Operator) -> str | None:
    attrs = operator.node.attrs
    both = attrs.get("dilation_h_factor", 1), attrs.get("dilation_w_factor", 1)
    return None if both[0] == both[1] else f"dilations {both[0]} and {both[1]} differ"


def _vector_output(operator: Operator) -> str | None:
    shape = operator.output().shape
    return None if sum(size > 1 for size in shape) <= 1 else f"its output {shape} is not one-dimensional"


def _constant_part(operator: Operator) -> str | None:
    constants = [tensor for tensor in operator.inputs if tensor.is_constant]
    if not constants or (len(operator.inputs) == 2 and not any(tensor.values.any() for tensor in constants)):
        return None
    return f"joins the constant '{constants[0].name}', which is not zero"


def _axes(operator: Operator) -> tuple[int, ...]:
    axes, source = operator.input(1), operator.input(0)
    if axes is None or axes.data is None or source is None:
        return ()
    return tuple(int(axis) % len(source.shape) for axis in axes.values.reshape(-1))


def _batch_axis(operator: Operator) -> str | None:
    return "works along the batch" if 0 in _axes(operator) and len(operator.inputs[0].shape) > 1 else None


def _depth_of_four(operator: Operator) -> str | None:
    source, axes = operator.inputs[0], _axes(operator)
    last = len(source.shape) - 1
    odd = last in axes and source.shape[last] % 4
    return f"works along a depth of {source.shape[last]}, which is not a multiple of 4" if odd else None


def _padded_batch(operator: Operator) -> str | None:
    amounts = operator.input(1)
    if amounts is None or amounts.data is None or not amounts.values.reshape(-1, 2)[0].any():
        return None
    return "pads the batch"


def _spread_alpha(operator: Operator) -> str | None:
    alpha = operator.input(1)
    if alpha is None or all(size == 1 for size in alpha.shape[:-1]):
        return None
    return f"its slopes have shape {alpha.shape}: only the innermost dimension may be above 1"


SUPPORTED: Mapping[str, tuple[Rule, ...]] = {
    **dict.fromkeys(["ADD", "MUL", "SUB", "MAXIMUM", "MINIMUM", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "EXPAND_DIMS", "QUANTIZE", "L2_NORMALIZATION", "RESHAPE"], ()),
    **{op: (_rule(_dilation),) for op in ("CONV_2D", "DEPTHWISE_CONV_2D")},
    **{op: (_rule(_fused),) for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D")},
    "CONCATENATION": (_rule(_fused), _rule(_constant_part)),
    "FULLY_CONNECTED": (_rule(_vector_output),),
    "MEAN": (_rule(_batch_axis), _rule(_depth_of_four)),
    **{op: (_rule(_batch_axis),) for op in ("REDUCE_MAX", "REDUCE_MIN")},
    "PAD": (_rule(_padded_batch),),
    "PRELU": (_rule(_spread_alpha),),
}  # fmt: skip
"""With a condition in the documentation, or none."""
UNCONFIRMED = frozenset(
    [
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SOFTMAX",
        "SPLIT",
        "SQUEEZE",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SUM",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
        "RSQRT",
        "SQUARED_DIFFERENCE",
        "STRIDED_SLICE",
        "PACK",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
    ]
)
"""Taken by some versions of the compiler, sizes or forms only; which, its documentation does not say."""


def _alone(operator: Operator) -> tuple[Placement, str, str]:
    """(placement, reason, source) of an operator if nothing before it cut the graph."""
    broken = first_broken(EVERY, operator)
    if broken is not None:
        return ("cpu-fallback", *broken)
    if operator.op in UNCONFIRMED:
        return "unverified", f"{operator.op} is taken in some versions and sizes only", DOCUMENTATION
    if operator.op not in SUPPORTED:
        return "cpu-fallback", f"{operator.op} is not a supported operation", DOCUMENTATION
    broken = first_broken(SUPPORTED[operator.op], operator)
    return ("cpu-fallback", *broken) if broken is not None else ("npu-fast", "", DOCUMENTATION)


def _opens(operator: Operator) -> bool:
    """A QUANTIZE of a float network input: the compiler leaves it on the CPU and begins behind it."""
    source = operator.input(0)
    at_input = operator.op == "QUANTIZE" and is_float(source)
    return at_input and source is not None and source.name in operator.opened.graph.inputs


def judge(content: bytes, opened: OpenedTflite, cache: Path) -> TargetVerdict:  # noqa: ARG001 - a Target's form
    """Every operator until the first that is not supported; the compiler leaves all after that one on the CPU."""
    verdicts = []
    culprit: OperatorVerdict | None = None
    for operator in operators(opened):
        placement, reason, source = _alone(operator)
        if culprit is not None and placement in ("npu-fast", "unverified"):
            placement, reason = "cpu-fallback", f"comes after {culprit.op} '{culprit.tensor}', where the graph is cut"
            source = CUT
        verdict = OperatorVerdict(
            operator.index,
            operator.op,
            operator.output().name,
            placement,
            reason,
            source,
            macs(opened.graph, operator.node),
        )
        if culprit is None and placement == "cpu-fallback" and not _opens(operator):
            culprit = verdict
        verdicts.append(verdict)
    return TargetVerdict(
        "edgetpu",
        "rules of the documentation",
        "rules",
        tuple(verdicts),
        notes=("Rules of the documentation; the compiler itself was not run.",),
    )


TARGETS = (
    Target(
        "edgetpu", "Google Coral Edge TPU",
        "8-bit files only; the compiler cuts the graph once, at the first operator it does not take.", "rules", judge,
        by_default=1,
    ),
)  # fmt: skip
